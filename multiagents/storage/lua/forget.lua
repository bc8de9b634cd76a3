-- forget: remove definitions that no saga uses any more.
--
-- A start removes its definition's mark, and a purge marks it anew with another saga's id.  So a
-- definition with the same mark as at the search has not been used since.
--
-- KEYS[1] definitions hash   KEYS[2] hash of unused ones: version, mark   KEYS[3] due zset
-- ARGV[1] due member   ARGV[2] time of the next search, Unix ms
-- ARGV[3..] version, mark, "1" if it is in use … (none = the member goes if nothing is marked)
--
-- Returns how many were removed.
local removed = 0
for i = 3, #ARGV, 3 do
  if redis.call("HGET", KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call("HDEL", KEYS[2], ARGV[i])
    if ARGV[i + 2] ~= "1" then removed = removed + redis.call("HDEL", KEYS[1], ARGV[i]) end
  end
end
if #ARGV == 2 and redis.call("EXISTS", KEYS[2]) == 0 then
  redis.call("ZREM", KEYS[3], ARGV[1])
else
  redis.call("ZADD", KEYS[3], ARGV[2], ARGV[1])
end
return removed
