-- sweep: list the due members, without removing them (E2).
--
-- The returned members are delayed by a moment, which hides them from other sweepers.  The new
-- score is the token that a later action must present.  Each gets a different score, in the order
-- in which they were due: members with one score would be sorted by name, and some of a large batch
-- would never come.  After a gap in the sweeping, leases stay valid for one full term before any
-- counts as expired (E9).  The tick is written only when it is old: a thousand workers sweep far
-- more often than needed.
--
-- A tick more than a term ahead means that a sweeper's clock was ahead, or that the server's was
-- set back.  That is a gap, too: leases, commands, dirty marks and timers that such a clock
-- delayed are due after one term.  It does no harm if one of them comes too early: a deadline is
-- put back (`engine.duties`).
--
-- KEYS[1] due zset   KEYS[2] tick hash
-- ARGV[1] now, Unix ms   ARGV[2] most members   ARGV[3] put off by, ms   ARGV[4] lease, ms
--
-- Returns {member, score, …}.
local now, lease = tonumber(ARGV[1]), tonumber(ARGV[4])
local tick = redis.call("HMGET", KEYS[2], "at", "grace")
local last, grace = tonumber(tick[1] or "0"), tonumber(tick[2] or "0")
local ahead = last - now > lease
if now - last > lease / 2 then grace = now + lease end
if ahead then
  grace = now + lease
  -- Page by page from a score on: some servers count their way to a place among a million.
  local PAGE, term = 1000, string.format("%.0f", grace)
  local from, kept = "(" .. term, 0
  repeat
    local range = {from, "+inf", "WITHSCORES", "LIMIT", kept, PAGE}
    local far = redis.call("ZRANGEBYSCORE", KEYS[1], unpack(range))
    for i = 1, #far, 2 do
      local member, score = far[i], far[i + 1]
      if string.find(member, "^[lodt]|") then
        redis.call("ZADD", KEYS[1], term, member)
      elseif score == from then
        kept = kept + 1
      else
        from, kept = score, 1
      end
    end
  until #far < 2 * PAGE
end
if now - last > lease / 64 or ahead then
  redis.call("HSET", KEYS[2], "at", string.format("%.0f", now), "grace", string.format("%.0f", grace))
end
local reply, later = {}, now + tonumber(ARGV[3])
local due = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, ARGV[2])
for i, member in ipairs(due) do
  if now < grace and string.sub(member, 1, 2) == "l|" then
    redis.call("ZADD", KEYS[1], string.format("%.0f", grace), member)
  else
    local score = string.format("%.0f", later + i - 1)
    redis.call("ZADD", KEYS[1], score, member)
    reply[#reply + 1] = member
    reply[#reply + 1] = score
  end
end
return reply
