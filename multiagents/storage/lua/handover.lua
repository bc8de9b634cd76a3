-- handover: send the first withheld command, so that a slot of a fan-out stays in use.
--
-- Two processes that leave their slots at the same time send different commands.  A repeat after a
-- lost reply sends two: then one command more runs than before.
--
-- KEYS[1] work hash   KEYS[2] due zset
-- ARGV[1..] field, value, due member, due ms, queue list of the broker, message ("" = it is sent
--           by the caller) …
--
-- Returns which of them, from 1; 0 if each was sent, is claimed, or was refused by its queue.  A
-- refused one stays withheld, and is due at the given time.
for i = 1, #ARGV, 6 do
  local value = redis.call("HGET", KEYS[1], ARGV[i])
  if value and string.match(value, "|0$") then
    redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1])
    redis.call("ZADD", KEYS[2], ARGV[i + 3], ARGV[i + 2])
    local sent = ARGV[i + 5] ~= "" and redis.pcall("LPUSH", ARGV[i + 4], ARGV[i + 5])
    if type(sent) ~= "table" then return (i + 5) / 6 end
    redis.call("HSET", KEYS[1], ARGV[i], value)
  end
end
return 0
