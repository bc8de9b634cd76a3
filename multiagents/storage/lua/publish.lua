-- publish: note when commands were sent, and when to look at them again; or send them right here.
--
-- KEYS[1] work hash   KEYS[2] due zset
-- ARGV[1..] field, value, due member, due ms ("" = its time stays), queue list of the broker,
--           message ("" = it has been sent already) …
--
-- Returns how many of them still stand; what was claimed meanwhile is left alone, and so is a claim
-- that is not the one of the new value: attempt|nonce|deadline|delivery.
local function is_same(field, value, new)
  if string.sub(field, 1, 2) ~= "c:" then return true end
  return string.match(value, "^%d+|%x+|") == string.match(new, "^%d+|%x+|")
end

local standing = 0
for i = 1, #ARGV, 6 do
  local value = redis.call("HGET", KEYS[1], ARGV[i])
  if value and is_same(ARGV[i], value, ARGV[i + 1]) then
    redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
    if ARGV[i + 3] ~= "" then redis.call("ZADD", KEYS[2], ARGV[i + 3], ARGV[i + 2]) end
    -- The new value stands already when this call is repeated because its reply was lost.
    if ARGV[i + 5] ~= "" and value ~= ARGV[i + 1] then
      redis.call("LPUSH", ARGV[i + 4], ARGV[i + 5])
    end
    standing = standing + 1
  end
end
return standing
