-- publish: note when commands were sent, and when to look at them again.
--
-- KEYS[1] work hash   KEYS[2] due zset
-- ARGV[1..] field, value, due member, due ms …
--
-- Returns how many of them still stand; what was claimed meanwhile is left alone.
local standing = 0
for i = 1, #ARGV, 4 do
  if redis.call("HEXISTS", KEYS[1], ARGV[i]) == 1 then
    redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call("ZADD", KEYS[2], ARGV[i + 3], ARGV[i + 2])
    standing = standing + 1
  end
end
return standing
