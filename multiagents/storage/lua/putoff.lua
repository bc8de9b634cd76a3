-- putoff: look at a due member later whose handling has failed, longer each time.
--
-- How often it has failed is counted beside the due set, so that all sweepers know it.  The counts are
-- forgotten when nothing has failed for a while, or when there are too many of them.
--
-- KEYS[1] due zset   KEYS[2] stuck hash: member -> how often|when last, Unix ms|why
-- ARGV[1] member     ARGV[2] the score that the sweep gave it   ARGV[3] now, Unix ms
-- ARGV[4] why        ARGV[5] the first delay, ms   ARGV[6] the longest one, ms
-- ARGV[7] forget after, ms   ARGV[8] most counts
--
-- Returns how often it has failed; 0 if it has become due anew or was dealt with: it is left alone.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local before = redis.call("HGET", KEYS[2], ARGV[1]) or "0"
local failures = tonumber(string.match(before, "^%d+")) + 1
if redis.call("HLEN", KEYS[2]) >= tonumber(ARGV[8]) then redis.call("DEL", KEYS[2]) end
redis.call("HSET", KEYS[2], ARGV[1], table.concat({failures, ARGV[3], ARGV[4]}, "|"))
redis.call("PEXPIRE", KEYS[2], ARGV[7])
local delay = math.min(tonumber(ARGV[5]) * 2 ^ math.min(failures - 1, 20), tonumber(ARGV[6]))
redis.call("ZADD", KEYS[1], string.format("%.0f", tonumber(ARGV[3]) + delay), ARGV[1])
return failures
