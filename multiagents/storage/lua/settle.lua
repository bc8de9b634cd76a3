-- settle: take a command that is done out of the outbox.
--
-- KEYS[1] work hash   KEYS[2] due zset
-- ARGV[1] field   ARGV[2] due member
--
-- Returns 1 taken out, 0 it was gone.
redis.call("ZREM", KEYS[2], ARGV[2])
return redis.call("HDEL", KEYS[1], ARGV[1])
