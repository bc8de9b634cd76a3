-- drop: forget a due member, or look at it later, if it still is what was found.
--
-- A sweep that was slow must not forget what has become due anew meanwhile; nor what it only had no
-- reason for in a second that the server has lost since (E5).
--
-- KEYS[1] due zset   KEYS[2] hash that gives the reason, optional
-- ARGV[1] member     ARGV[2] the score that the sweep gave it   ARGV[3] later, Unix ms ("" = never)
-- ARGV[4] field of the hash   ARGV[5] its value, by which the member is to be dropped ("" = none)
--
-- Returns 1 dropped or moved, 0 left alone.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if KEYS[2] and (redis.call("HGET", KEYS[2], ARGV[4]) or "") ~= ARGV[5] then return 0 end
if ARGV[3] == "" then return redis.call("ZREM", KEYS[1], ARGV[1]) end
redis.call("ZADD", KEYS[1], ARGV[3], ARGV[1])
return 1
