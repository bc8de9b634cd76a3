-- advance: append an entry and, if the saga has not changed, write the decision over it at once.
--
-- The entry is the end of an attempt, whose claim must still stand, or an operator's action.
-- The caller decided over a state and its pending entries.  That decision holds only if neither has
-- changed.  Otherwise only the entry is written.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] state index to leave   KEYS[8] state index to enter
-- ARGV[1] saga id   ARGV[2] known version   ARGV[3] dirty at, Unix ms
-- ARGV[4] entry id  ARGV[5] entry           ARGV[6] claim field ("" = ends none)  ARGV[7] nonce
-- ARGV[8] lease member  ARGV[9] result field  ARGV[10] result JSON ("" = none)
-- ARGV[11] the cursor that goes with the known version
-- ARGV[12] number and ARGV[13] texts, line by line, of the entries after it that were decided over
-- ARGV[14..] the decision, see apply in lib.lua, without a cursor
--
-- Returns as commit does.
local f = redis.call("HMGET", SAGA, "v", "c", "p", "b")
if not f[1] then return 0 end
local claim = ARGV[6] ~= "" and redis.call("HGET", WORK, ARGV[6])
local current = claim and string.match(claim, "|(%x+)|") == ARGV[7]
local last = append(ARGV[4], ARGV[5], f[4])
local clean = last and (current or ARGV[6] == "") and f[1] == ARGV[2] and last == ARGV[11] + ARGV[12] + 1
  and follow(ARGV[11], f[4], ARGV[12], ARGV[13])
if last then
  if current then redis.call("HDEL", WORK, ARGV[6]) end
  if ARGV[10] ~= "" then
    keep(ARGV[9], ARGV[10], ARGV[7], current)
  end
end
if not clean then
  if last then redis.call("ZREM", DUE, ARGV[8]) end
  -- A repeat after a lost reply may find nothing pending: then no commit would clear the mark.
  if tonumber(f[2]) ~= log_end(f[4]) then
    redis.call("ZADD", DUE, "LT", ARGV[3], "d|" .. ARGV[1])
  end
  return readers().load(ARGV[2], ARGV[11])
end
position = 13
return apply(f[3], f[4], last, {ARGV[8]})
