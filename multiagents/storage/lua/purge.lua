-- purge: remove an ended saga, unless it has moved since it was read (E16).
--
-- Its definition is marked: perhaps no saga uses it any more.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] aliases hash   KEYS[8] hash of unused definitions
-- KEYS[9..] indexes that list it
-- ARGV[1] saga id   ARGV[2] version that was read   ARGV[3] purge member
-- ARGV[4] when to retry while its outcome is not delivered (rule 14), and when to search for unused
--         definitions, Unix ms   ARGV[5] due member of that search
--
-- Returns 1 removed, 0 unchanged.
if redis.call("HEXISTS", WORK, "o:end") == 1 then
  redis.call("ZADD", DUE, "XX", ARGV[4], ARGV[3])
  return 0
end
redis.call("ZREM", DUE, ARGV[3])
local f = redis.call("HMGET", SAGA, "v", "c", "b", "w")
if f[1] ~= ARGV[2] or tonumber(f[2]) ~= log_end(f[3]) then return 0 end
for i = 9, #KEYS do redis.call("ZREM", KEYS[i], ARGV[1]) end
for _, field in ipairs(redis.call("HKEYS", DATA)) do
  local task_id = string.match(field, "^alias:(.*)$")
  if task_id and redis.call("HGET", KEYS[7], task_id) == ARGV[1] then
    redis.call("HDEL", KEYS[7], task_id)
  end
end
redis.call("ZREM", DUE, "d|" .. ARGV[1])
redis.call("DEL", SAGA, WORK, DATA, LOG, IDS)
if f[4] then
  redis.call("HSET", KEYS[8], f[4], ARGV[1])
  redis.call("ZADD", DUE, "NX", ARGV[4], ARGV[5])
end
return 1
