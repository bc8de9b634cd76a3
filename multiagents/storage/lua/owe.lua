-- owe: have a sweep deliver the outcome of an ended saga to a waiter that joined after its end.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] field   ARGV[2] due member   ARGV[3] due, Unix ms
-- ARGV[4] the version at which the saga was seen as ended: a server that lost its last second may
--         have lost that end, too (E5)
-- ARGV[5] a number that the field never had: a delivery that runs now does not settle it for the
--         waiter that has just joined
--
-- Returns 1; 0 if the saga has changed since.
if redis.call("HGET", SAGA, "v") ~= ARGV[4] then return 0 end
redis.call("HSET", WORK, ARGV[1], "0|" .. ARGV[5])
redis.call("ZADD", DUE, ARGV[3], ARGV[2])
return 1
