-- putoff: delay a due member whose handling failed, longer each time.
--
-- The failures are counted beside the due set, so all sweepers share them.  The counts expire some
-- time after the last failure.  Their number is limited: at the limit old counts go.  A member
-- without a place is not counted, and gets the longest delay.
--
-- KEYS[1] due zset   KEYS[2] stuck hash: member -> how often|when last, Unix ms|why
-- ARGV[1] member     ARGV[2] the score that the sweep gave it   ARGV[3] now, Unix ms
-- ARGV[4] why        ARGV[5] the first delay, ms   ARGV[6] the longest one, ms
-- ARGV[7] forget after, ms   ARGV[8] most counts
--
-- Returns how often it has failed, or -1 if it is not counted; 0 if it is due anew or was handled:
-- then it stays unchanged.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local function is_full()
  return redis.call("HLEN", KEYS[2]) >= tonumber(ARGV[8])
end

local before = redis.call("HGET", KEYS[2], ARGV[1])
if not before and is_full() then
  -- Old ones are searched only now and then: that reads all of them.
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
