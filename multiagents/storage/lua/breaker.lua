-- breaker: allow or refuse a guarded call, and count its outcome.
--
-- Closed: no field "until"; calls are counted in ten buckets of the window.  Open: "until" is the
-- time of the next probe.  A probe moves it by the open time.  So there is one probe at a time, and
-- another follows if its process dies.
--
-- KEYS[1] hash    until Unix ms, probe nonce, <bucket>:ok and <bucket>:bad counts
-- ARGV[1] "ask" or "tell"    ARGV[2] now, Unix ms    ARGV[3] open time, ms
-- ask:  ARGV[4] nonce of the call; a repeat is granted the same probe
--       returns {allowed 0|1, is a probe 0|1, ms until the next probe}
-- tell: ARGV[4] "ok" or "bad"   ARGV[5] was a probe 0|1   ARGV[6] window, ms
--       ARGV[7] calls below which nothing opens           ARGV[8] share of failures that opens
--       returns "closed" or "open"; a repeat counts twice
local KEY = KEYS[1]
local op, now, open_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local KEEP_OPEN_MS = 86400000 -- an open circuit without calls is forgotten after a day
local opens_at = tonumber(redis.call("HGET", KEY, "until"))

local function open_until(moment)
  redis.call("HSET", KEY, "until", string.format("%d", moment))
  redis.call("PEXPIRE", KEY, open_ms + KEEP_OPEN_MS)
end

if op == "ask" then
  if not opens_at then return {1, 0, 0} end
  local mine = redis.call("HGET", KEY, "probe") == ARGV[4]
  if now < opens_at and not mine then return {0, 0, opens_at - now} end
  redis.call("HSET", KEY, "probe", ARGV[4])
  open_until(now + open_ms)
  return {1, 1, 0}
end

if opens_at then
  if ARGV[5] ~= "1" then return "open" end -- it began before the circuit opened
  redis.call("DEL", KEY)
  if ARGV[4] == "ok" then return "closed" end
  open_until(now + open_ms)
  return "open"
end

local window = tonumber(ARGV[6])
local bucket = math.floor(now * 10 / window)
redis.call("HINCRBY", KEY, string.format("%d:%s", bucket, ARGV[4]), 1)
redis.call("PEXPIRE", KEY, window)
local counts = {ok = 0, bad = 0}
local fields = redis.call("HGETALL", KEY)
for i = 1, #fields, 2 do
  local number, outcome = string.match(fields[i], "^(%d+):(%a+)$")
  if tonumber(number) <= bucket - 10 then
    redis.call("HDEL", KEY, fields[i])
  else
    counts[outcome] = counts[outcome] + tonumber(fields[i + 1])
  end
end
local total = counts.ok + counts.bad
if total < tonumber(ARGV[7]) or counts.bad / total < tonumber(ARGV[8]) then return "closed" end
redis.call("DEL", KEY)
open_until(now + open_ms)
return "open"
