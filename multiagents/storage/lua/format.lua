-- format: record that workers of a format write here, unless newer ones do.
--
-- KEYS[1..] format string of each shard on the server
-- ARGV[1] the caller's format
--
-- Returns the newest format recorded before, 0 if none was.
local newest = 0
for _, key in ipairs(KEYS) do
  newest = math.max(newest, tonumber(redis.call("GET", key) or "0"))
end
if newest < tonumber(ARGV[1]) then
  for _, key in ipairs(KEYS) do redis.call("SET", key, ARGV[1]) end
end
return newest
