-- remove: remove a damaged saga and all its entries elsewhere; it reads nothing else.
--
-- Its definition is marked: perhaps no saga uses it any more.  If its hash does not name the
-- definition, all of the shard are marked.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] dead letters, zset   KEYS[8] stuck hash   KEYS[9] aliases hash
-- KEYS[10] definitions hash   KEYS[11] hash of unused definitions
-- KEYS[12..] indexes that may list it, zset
-- ARGV[1] saga id   ARGV[2] due member of the search for unused ones   ARGV[3] its time, Unix ms
-- ARGV[4] "1" if all are marked when its own is unknown
-- ARGV[5..] three lists, each with its length before it: due members, members of the dead letters,
-- aliases
--
-- Returns the number of its own keys that it removed.
local at = 5
local function each(take_out)
  local last = at + tonumber(ARGV[at])
  for i = at + 1, last do take_out(ARGV[i]) end
  at = last + 1
end

local version, marked = redis.pcall("HGET", KEYS[1], "w"), {}
if type(version) == "string" then
  marked[1] = version
elseif ARGV[4] == "1" then
  marked = redis.call("HKEYS", KEYS[10])
end
local removed = redis.call("DEL", KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5])
each(function(member)
  redis.call("ZREM", KEYS[6], member)
  redis.call("HDEL", KEYS[8], member)
end)
each(function(member) redis.call("ZREM", KEYS[7], member) end)
each(function(alias) redis.call("HDEL", KEYS[9], alias) end)
-- An index may be damaged itself.
for i = 12, #KEYS do redis.pcall("ZREM", KEYS[i], ARGV[1]) end
for _, name in ipairs(marked) do redis.call("HSET", KEYS[11], name, ARGV[1]) end
if marked[1] then redis.call("ZADD", KEYS[6], "NX", ARGV[3], ARGV[2]) end
return removed
