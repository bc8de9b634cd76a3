-- owe: have a sweep tell the outcome of an ended saga, to who has joined it after its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member   ARGV[3] due, Unix ms
-- ARGV[4] the version at which the saga was seen to have ended: a server that lost its last second
--         may have lost that end, too (E5)
--
-- ARGV[5] a number that the field never had: whoever is telling it now does not settle it for those
--         who have just joined
--
-- Returns 1; 0 if the saga is not as it was seen.
if redis.call("HGET", SAGA, "v") ~= ARGV[4] then return 0 end
redis.call("HSET", WORK, ARGV[1], "0|" .. ARGV[5])
redis.call("ZADD", DUE, ARGV[3], ARGV[2])
return 1
