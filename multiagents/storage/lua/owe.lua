-- owe: have a sweep tell the outcome of an ended saga, to who has joined it after its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member   ARGV[3] due, Unix ms
--
-- Returns the value of the field, another one than before, so that whoever is telling it now does
-- not settle it for those who have just joined; 0 if the saga does not exist.
if redis.call("EXISTS", SAGA) == 0 then return 0 end
local sends = string.match(redis.call("HGET", WORK, ARGV[1]) or "0|0", "|(%d+)$")
local value = "0|" .. sends + 1
redis.call("HSET", WORK, ARGV[1], value)
redis.call("ZADD", DUE, ARGV[3], ARGV[2])
return value
