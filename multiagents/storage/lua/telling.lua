-- telling: take the canvases that nobody is starting, or give them back.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] who tells, a nonce   ARGV[2] now, Unix ms   ARGV[3] until when they are its own, Unix ms
-- ARGV[4..] task ids
-- or, to give them back: ARGV[3] "", ARGV[4..] task id, what of its canvas was told by now, JSON
--         ("" = nothing) …
--
-- Returns {task id, what of its canvas was told before, JSON or "", …} of those that are now its own;
-- taken again by the same teller, they still are.  Nothing for those given back.
local taken, SLACK_MS = {}, 60000
-- What lasts longer than a turn was taken by a clock that was ahead.
local function is_over(ends)
  return tonumber(ends) <= tonumber(ARGV[2]) or tonumber(ends) > tonumber(ARGV[3]) + SLACK_MS
end
if redis.call("EXISTS", SAGA) == 0 then return taken end
for i = 4, #ARGV, ARGV[3] == "" and 2 or 1 do
  local field = "telling:" .. ARGV[i]
  local teller, ends = string.match(redis.call("HGET", DATA, field) or "", "^(%x+)|(%d+)$")
  local free = not teller or teller == ARGV[1]
  if ARGV[3] == "" then
    -- What was told is told, whoever tells the rest by now.
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
