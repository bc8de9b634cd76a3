-- putoff: look at a due member later whose handling has failed, longer each time.
--
-- How often it has failed is counted beside the due set, so that all sweepers know it.  The counts are
-- forgotten when nothing has failed for a while.  There are so many of them at most: when as many
-- fail, old counts go, and what finds no place is not counted, and put off for the longest time.
--
-- KEYS[1] due zset   KEYS[2] stuck hash: member -> how often|when last, Unix ms|why
-- ARGV[1] member     ARGV[2] the score that the sweep gave it   ARGV[3] now, Unix ms
-- ARGV[4] why        ARGV[5] the first delay, ms   ARGV[6] the longest one, ms
-- ARGV[7] forget after, ms   ARGV[8] most counts
--
-- Returns how often it has failed, or -1 if it is not counted; 0 if it has become due anew or was dealt with: it is left alone.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local function is_full()
  return redis.call("HLEN", KEYS[2]) >= tonumber(ARGV[8])
end

local before = redis.call("HGET", KEYS[2], ARGV[1])
if not before and is_full() then
  -- Old ones are looked for now and then, because that reads all of them.
  local counts = ARGV[3] % 32 == 0 and redis.call("HGETALL", KEYS[2]) or {}
  for i = 1, #counts, 2 do
    local last = tonumber(string.match(counts[i + 1], "^%d+|(%d+)|"))
    if last < ARGV[3] - ARGV[7] then redis.call("HDEL", KEYS[2], counts[i]) end
  end
  if is_full() then
    redis.call("ZADD", KEYS[1], string.format("%.0f", ARGV[3] + ARGV[6]), ARGV[1])
    return -1
  end
end
local failures = tonumber(string.match(before or "0", "^%d+")) + 1
redis.call("HSET", KEYS[2], ARGV[1], table.concat({failures, ARGV[3], ARGV[4]}, "|"))
redis.call("PEXPIRE", KEYS[2], ARGV[7])
local delay = math.min(tonumber(ARGV[5]) * 2 ^ math.min(failures - 1, 20), tonumber(ARGV[6]))
redis.call("ZADD", KEYS[1], string.format("%.0f", tonumber(ARGV[3]) + delay), ARGV[1])
return failures
