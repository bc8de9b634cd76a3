-- owe: have a sweep tell the outcome of an ended saga, to who has joined it after its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member   ARGV[3] due, Unix ms
-- ARGV[4] the version at which the saga was seen to have ended: a server that lost its last second
--         may have lost that end, too (E5)
--
-- The field gets another value than before, so that whoever is telling it now does not settle it
-- for those who have just joined.  Returns 1; 0 if the saga is not as it was seen.
if redis.call("HGET", SAGA, "v") ~= ARGV[4] then return 0 end
local sends = string.match(redis.call("HGET", WORK, ARGV[1]) or "0|0", "|(%d+)$")
redis.call("HSET", WORK, ARGV[1], "0|" .. sends + 1)
redis.call("ZADD", DUE, ARGV[3], ARGV[2])
return 1
