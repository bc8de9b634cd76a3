-- settle: remove a finished command from the outbox; compress the log of an ended saga.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member
-- ARGV[3] version at which the log was read
-- ARGV[4] entries that ARGV[5] holds   ARGV[5] the whole log, compressed ("" = none)
-- ARGV[6] value of the field   ARGV[7] number of task ids whose canvas was started, then these
-- then results for Celery's backend: key, text, expires after, s (0 = never) …
--
-- Returns 1 removed; 0 if it was gone, or is still owed to a waiter that joined meanwhile; a list
-- of the results that were refused, {field, key, error, …}: then it is still owed.
local told = tonumber(ARGV[7])
local f = redis.call("HMGET", SAGA, "v", "c", "b")
local all = tonumber(ARGV[4])
-- After a server lost its last second another log may have as many entries (E5).
local same = f[1] == ARGV[3]
if same and ARGV[5] ~= "" and tonumber(f[2]) == all and log_end(f[3]) == all then
  redis.call("DEL", LOG)
  redis.call("RPUSH", LOG, ARGV[5])
  redis.call("HSET", SAGA, "b", all)
end
if f[1] then
  for i = 8, 7 + told do
    redis.call("HSET", DATA, "told:" .. ARGV[i], 1)
    redis.call("HDEL", DATA, "telling:" .. ARGV[i])
  end
end
local owed = redis.call("HGET", WORK, ARGV[1])

-- The error by which the server has refused a command; nil if it has not.
local function refusal(reply)
  return type(reply) == "table" and reply.err or nil
end

-- Store a result as Celery's backend does; the error if that was refused.
local function answer(key, text, expires_s)
  local stored = redis.pcall("GET", key)
  local why = refusal(stored)
  -- A success is never overwritten, as in Celery; it is published again, since that may be missing.
  if stored and not why and string.find(stored, '"status": "SUCCESS"', 1, true) then
    text = stored
  elseif not why then
    why = refusal(redis.pcall("SET", key, text))
    if not why and expires_s ~= "0" then why = refusal(redis.pcall("EXPIRE", key, expires_s)) end
  end
  return why or refusal(redis.pcall("PUBLISH", key, text))
end

local refused = {}
for i = 8 + told, #ARGV, 3 do
  local why = answer(ARGV[i], ARGV[i + 1], ARGV[i + 2])
  if why then
    for _, each in ipairs({ARGV[1], ARGV[i], why}) do refused[#refused + 1] = each end
  end
end
if refused[1] then return refused end
if owed and owed ~= ARGV[6] then return 0 end
redis.call("ZREM", DUE, ARGV[2])
return redis.call("HDEL", WORK, ARGV[1])
