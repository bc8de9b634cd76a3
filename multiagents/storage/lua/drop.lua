-- drop: forget a due member, or look at it later, if it still is what was found.
--
-- A sweep that was slow must not forget what has become due anew meanwhile.
--
-- KEYS[1] due zset
-- ARGV[1] member   ARGV[2] the score that the sweep gave it   ARGV[3] later, Unix ms ("" = never)
--
-- Returns 1 dropped or moved, 0 left alone.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == "" then return redis.call("ZREM", KEYS[1], ARGV[1]) end
redis.call("ZADD", KEYS[1], ARGV[3], ARGV[1])
return 1
