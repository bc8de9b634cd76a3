-- remove: take away a damaged saga, with all that lists it; nothing is looked at.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] dead letters, zset   KEYS[8] stuck hash   KEYS[9] aliases hash
-- KEYS[10..] indexes that may list it, zset
-- ARGV[1] saga id   ARGV[2..] three lists, each with its length before it: due members, members of
-- the dead letters, aliases
--
-- Returns how many of its own keys there were.
local at = 2
local function each(take_out)
  local last = at + tonumber(ARGV[at])
  for i = at + 1, last do take_out(ARGV[i]) end
  at = last + 1
end

local removed = redis.call("DEL", KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
each(function(member)
  redis.call("ZREM", KEYS[6], member)
  redis.call("HDEL", KEYS[8], member)
end)
each(function(member) redis.call("ZREM", KEYS[7], member) end)
each(function(alias) redis.call("HDEL", KEYS[9], alias) end)
-- An index may be damaged itself.
for i = 10, #KEYS do redis.pcall("ZREM", KEYS[i], ARGV[1]) end
return removed
