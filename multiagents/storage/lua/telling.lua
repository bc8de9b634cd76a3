-- telling: take the canvases that nobody is starting, or give them back.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] who tells, a nonce   ARGV[2] now, Unix ms   ARGV[3] until when they are its own, Unix ms
--         ("" = no longer)     ARGV[4..] task ids
--
-- Returns the ids that are now its own; taken again by the same teller, they still are.
local taken = {}
if redis.call("EXISTS", SAGA) == 0 then return taken end
for i = 4, #ARGV do
  local field = "telling:" .. ARGV[i]
  local teller, ends = string.match(redis.call("HGET", DATA, field) or "", "^(%x+)|(%d+)$")
  local free = not teller or teller == ARGV[1]
  if ARGV[3] == "" then
    if free then redis.call("HDEL", DATA, field) end
  elseif (free or tonumber(ends) <= tonumber(ARGV[2]))
    and redis.call("HEXISTS", DATA, "told:" .. ARGV[i]) == 0 then
    redis.call("HSET", DATA, field, ARGV[1] .. "|" .. ARGV[3])
    taken[#taken + 1] = ARGV[i]
  end
end
return taken
