-- drop: remove or delay a due member that is still as the sweep found it.
--
-- A slow sweep must not remove a member that has become due anew.  Nor one whose reason was missing
-- only in a second that the server has lost since (E5).
--
-- KEYS[1] due zset   KEYS[2] hash that gives the reason, optional
-- ARGV[1] member     ARGV[2] the score that the sweep gave it   ARGV[3] later, Unix ms ("" = never)
-- ARGV[4] field of the hash   ARGV[5] the value that it must have ("" = none)
--
-- Returns 1 removed or delayed, 0 unchanged.
if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if KEYS[2] and (redis.call("HGET", KEYS[2], ARGV[4]) or "") ~= ARGV[5] then return 0 end
if ARGV[3] == "" then return redis.call("ZREM", KEYS[1], ARGV[1]) end
redis.call("ZADD", KEYS[1], ARGV[3], ARGV[1])
return 1
