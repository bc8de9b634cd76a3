-- wake: make the commands due that wait for a worker's functions on its queues.
--
-- KEYS[1] wanted zset of the shard   KEYS[2] due zset
-- ARGV[1] now, Unix ms   ARGV[2] time between two of them, ms   ARGV[3] number of queues
-- ARGV[4..] queues, then functions
--
-- Returns how many.  A member that is not in the due set was claimed, or its saga is gone.
local wanted = redis.call("ZRANGE", KEYS[1], 0, -1)
if #wanted == 0 then return 0 end
local queues, functions, woken = {}, {}, 0
for i = 4, #ARGV do
  local set = i < 4 + tonumber(ARGV[3]) and queues or functions
  set[ARGV[i]] = true
end
for _, each in ipairs(wanted) do
  local queue, name, member = string.match(each, "^([^\n]*)\n([^\n]*)\n(.*)$")
  if queues[queue] and functions[name] then
    local due = string.format("%.0f", ARGV[1] + woken * ARGV[2])
    redis.call("ZADD", KEYS[2], "XX", "LT", due, member)
    redis.call("ZREM", KEYS[1], each)
    woken = woken + 1
  end
end
return woken
