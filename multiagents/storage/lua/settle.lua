-- settle: take a command that is done out of the outbox; compress the log of a saga at its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member
-- ARGV[3] entries that ARGV[4] holds   ARGV[4] the whole log, compressed ("" = none)
-- ARGV[5..] results for Celery's backend: key, text, expires after, s (0 = never) …
--
-- Returns 1 taken out, 0 it was gone.
for i = 5, #ARGV, 3 do
  -- A success is never overwritten, as with Celery.
  local stored = redis.call("GET", ARGV[i])
  if not (stored and string.find(stored, '"status": "SUCCESS"', 1, true)) then
    redis.call("SET", ARGV[i], ARGV[i + 1])
    if ARGV[i + 2] ~= "0" then redis.call("EXPIRE", ARGV[i], ARGV[i + 2]) end
    redis.call("PUBLISH", ARGV[i], ARGV[i + 1])
  end
end
redis.call("ZREM", DUE, ARGV[2])
local f = redis.call("HMGET", SAGA, "c", "b")
local all = tonumber(ARGV[3])
if ARGV[4] ~= "" and f[1] and tonumber(f[1]) == all and log_end(f[2]) == all then
  redis.call("DEL", LOG)
  redis.call("RPUSH", LOG, ARGV[4])
  redis.call("HSET", SAGA, "b", all)
end
return redis.call("HDEL", WORK, ARGV[1])
