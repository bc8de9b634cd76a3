-- handback: a worker without a command's function gives the command back to its outbox.
--
-- Its new value, 0|sends, is sent without a look at its queue: its message is known to be gone.  If
-- a running worker has the function, this sending does not count (rule 9).  Otherwise the command
-- is marked as wanted, with the time of the message as score.  The score identifies a repeated
-- call, whose reply was lost.  A later call that finds a worker may give the command back again.
--
-- KEYS[1] work hash   KEYS[2] due zset   KEYS[3] wanted zset of the shard
-- ARGV[1] outbox field   ARGV[2] due member   ARGV[3] when the message was sent, Unix ms
-- ARGV[4] when the command is due, Unix ms    ARGV[5] "1" if a worker has the function
-- ARGV[6] wanted member  ARGV[7] now, Unix ms ARGV[8] wanted members are kept for, ms
--
-- Returns 1; 0 if there is nothing to give back: done, withdrawn, claimed, or sent again since;
-- 2 if this sending is not recorded yet: its record would overwrite this one.
local value = redis.call("HGET", KEYS[1], ARGV[1])
if not value then return 0 end
local sent, sends = string.match(value, "^(%d+)|(%d+)$")
local marked = tonumber(redis.call("ZSCORE", KEYS[3], ARGV[6])) == tonumber(ARGV[3])
if tonumber(sent) > tonumber(ARGV[3]) then return 0 end
if tonumber(sent) < tonumber(ARGV[3]) and not marked then return 2 end
if ARGV[5] == "1" then
  redis.call("HSET", KEYS[1], ARGV[1], "0|" .. math.max(0, tonumber(sends) - 1))
  redis.call("ZADD", KEYS[2], ARGV[4], ARGV[2])
  redis.call("ZREM", KEYS[3], ARGV[6])
elseif not marked then
  redis.call("HSET", KEYS[1], ARGV[1], "0|" .. sends)
  redis.call("ZADD", KEYS[2], ARGV[4], ARGV[2])
  redis.call("ZADD", KEYS[3], ARGV[3], ARGV[6])
  redis.call("ZREMRANGEBYSCORE", KEYS[3], "-inf", ARGV[7] - ARGV[8])
  redis.call("PEXPIRE", KEYS[3], ARGV[8])
end
return 1
