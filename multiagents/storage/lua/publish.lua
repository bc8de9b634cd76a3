-- publish: record when commands were sent, and when they are due again; or send them right here.
--
-- KEYS[1] work hash   KEYS[2] due zset
-- ARGV[1] when a command is due again if its queue refuses its message, Unix ms ("" = as before)
-- ARGV[2..] field, value, due member, due ms ("" = its time stays), queue list of the broker,
--           message ("" = it has been sent already) …
--
-- Returns how many of them still stand.  A command that was claimed meanwhile stays unchanged, and
-- so does a claim other than that of the new value: attempt|nonce|deadline|delivery.  If queues
-- refused messages, their commands stay unchanged: {how many, field, queue list, error, …}.
local function is_same(field, value, new)
  if string.sub(field, 1, 2) ~= "c:" then return true end
  return string.match(value, "^%d+|%x+|") == string.match(new, "^%d+|%x+|")
end

local function send(i, value)
  local at = ARGV[1]
  if at == "" then at = redis.call("ZSCORE", KEYS[2], ARGV[i + 2]) end
  redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
  if ARGV[i + 3] ~= "" then redis.call("ZADD", KEYS[2], ARGV[i + 3], ARGV[i + 2]) end
  local sent = redis.pcall("LPUSH", ARGV[i + 4], ARGV[i + 5])
  if type(sent) ~= "table" then return nil end
  redis.call("HSET", KEYS[1], ARGV[i], value)
  if at then redis.call("ZADD", KEYS[2], at, ARGV[i + 2]) end
  return sent.err
end

local standing, refused = 0, {}
for i = 2, #ARGV, 6 do
  local value = redis.call("HGET", KEYS[1], ARGV[i])
  if value and is_same(ARGV[i], value, ARGV[i + 1]) then
    local why = nil
    -- A repeat after a lost reply finds the new value already.
    if ARGV[i + 5] ~= "" and value ~= ARGV[i + 1] then
      why = send(i, value)
    else
      redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
      if ARGV[i + 3] ~= "" then redis.call("ZADD", KEYS[2], ARGV[i + 3], ARGV[i + 2]) end
    end
    if why then
      for _, each in ipairs({ARGV[i], ARGV[i + 4], why}) do refused[#refused + 1] = each end
    else
      standing = standing + 1
    end
  end
end
if not refused[1] then return standing end
return {standing, unpack(refused)}
