-- start: record a new saga with its first decision, or join the one that has this id (rule 12).
--
-- KEYS[1..6] as in lib.lua   KEYS[7] aliases hash   KEYS[8] state index to enter
-- KEYS[9] definitions hash   KEYS[10] hash of those that may be unused
-- KEYS[11..] indexes that list the saga, zset by creation
-- ARGV[1] task id that waits for the outcome   ARGV[2] its canvas, JSON   ARGV[3] definition
--         version
-- ARGV[4] definition JSON ("" = believed to be stored)   ARGV[5] "1" if decisions read values
-- ARGV[6] "1" if the saga is so wide that its readers fold the log instead of reading the state
-- ARGV[7] the saga's id, if the task id is another ("" = it is the same)
-- ARGV[8] digest that an existing saga must have been started with ("" = any)
-- ARGV[9] number of data pairs, then field, value …
-- then the decision, see apply in lib.lua
--
-- Returns 1 created; 2 existed (the task id now waits too; of a damaged saga some key exists); 3
-- the definition must be sent; 4 existed, with another digest or none (the task id does not wait).
-- A list of the letters that queues refused stands for 1.
local task_id, canvas, definition, text = take(), take(), take(), take()
local reads, wide, alias_of, digest = take(), take(), take(), take()
if redis.call("EXISTS", SAGA, WORK, DATA, LOG, IDS) > 0 then
  if redis.call("EXISTS", SAGA, DATA) == 2 then
    if digest ~= "" and redis.call("HGET", DATA, "digest") ~= digest then return 4 end
    redis.call("HSETNX", DATA, "alias:" .. task_id, canvas)
    if alias_of ~= "" then redis.call("HSETNX", KEYS[7], task_id, alias_of) end
  end
  return 2
end
if text ~= "" then
  redis.call("HSETNX", KEYS[9], definition, text)
elseif redis.call("HEXISTS", KEYS[9], definition) == 0 then
  return 3
end
for _ = 1, count() do redis.call("HSET", DATA, take(), take()) end
redis.call("HSET", DATA, "alias:" .. task_id, canvas)
if alias_of ~= "" then redis.call("HSETNX", KEYS[7], task_id, alias_of) end
redis.call("HSET", SAGA, "w", definition, "q", reads)
-- Not earlier: a full server refuses a script at its first write, but not one that begins with a
-- deletion.
redis.call("HDEL", KEYS[10], definition)
local created, saga_id = ARGV[position + 8], ARGV[position + 5]
for i = 11, #KEYS do redis.call("ZADD", KEYS[i], created, saga_id) end
local _, refused = apply(wide == "1" and ",", nil, 0, {})
return refused or 1
