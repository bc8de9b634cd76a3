-- settle: take a command that is done out of the outbox; compress the log of a saga at its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member
-- ARGV[3] entries that ARGV[4] holds   ARGV[4] the whole log, compressed ("" = none)
--
-- Returns 1 taken out, 0 it was gone.
redis.call("ZREM", DUE, ARGV[2])
local f = redis.call("HMGET", SAGA, "c", "b")
local all = tonumber(ARGV[3])
if ARGV[4] ~= "" and f[1] and tonumber(f[1]) == all and log_end(f[2]) == all then
  redis.call("DEL", LOG)
  redis.call("RPUSH", LOG, ARGV[4])
  redis.call("HSET", SAGA, "b", all)
end
return redis.call("HDEL", WORK, ARGV[1])
