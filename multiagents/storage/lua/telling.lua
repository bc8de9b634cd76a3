-- telling: reserve the canvases that no process is starting, or return them.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] the process's nonce   ARGV[2] now, Unix ms   ARGV[3] the end of the reservation, Unix ms
-- ARGV[4..] task ids
-- or, to return them: ARGV[3] "", ARGV[4..] task id, targets of its canvas that have the outcome,
--         JSON ("" = none) …
--
-- Returns {task id, targets that had the outcome before, JSON or "", …} of the reserved ones; a
-- repeat with the same nonce reserves them again.  Nothing for those returned.
local taken, SLACK_MS = {}, 60000
-- A reservation longer than a turn was made by a clock that was ahead.
local function is_over(ends)
  return tonumber(ends) <= tonumber(ARGV[2]) or tonumber(ends) > tonumber(ARGV[3]) + SLACK_MS
end
if redis.call("EXISTS", SAGA) == 0 then return taken end
for i = 4, #ARGV, ARGV[3] == "" and 2 or 1 do
  local field = "telling:" .. ARGV[i]
  local teller, ends = string.match(redis.call("HGET", DATA, field) or "", "^(%x+)|(%d+)$")
  local free = not teller or teller == ARGV[1]
  if ARGV[3] == "" then
    -- These targets have the outcome, also if another process delivers to the rest by now.
    if ARGV[i + 1] ~= "" then redis.call("HSET", DATA, "part:" .. ARGV[i], ARGV[i + 1]) end
    if free then redis.call("HDEL", DATA, field) end
  elseif (free or is_over(ends))
    and redis.call("HEXISTS", DATA, "told:" .. ARGV[i]) == 0 then
    redis.call("HSET", DATA, field, ARGV[1] .. "|" .. ARGV[3])
    taken[#taken + 1] = ARGV[i]
    taken[#taken + 1] = redis.call("HGET", DATA, "part:" .. ARGV[i]) or ""
  end
end
return taken
