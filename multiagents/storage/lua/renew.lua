-- renew: extend a lease that still stands, and keep the step's notes.
--
-- KEYS[1] work hash   KEYS[2] due zset   KEYS[3] data hash
-- ARGV[1] claim field   ARGV[2] nonce   ARGV[3] lease member   ARGV[4] new end, Unix ms
-- ARGV[5] number of data pairs, then field, value …
--
-- Returns 1 renewed; 0 lost: the worker must stop (E2).
local claim = redis.call("HGET", KEYS[1], ARGV[1])
if not claim then return 0 end
local nonce, deadline = string.match(claim, "^%d+|(%x+)|(%d+)|")
if nonce ~= ARGV[2] or not redis.call("ZSCORE", KEYS[2], ARGV[3]) then return 0 end
local ends = tonumber(ARGV[4])
if tonumber(deadline) > 0 then ends = math.min(ends, tonumber(deadline)) end
redis.call("ZADD", KEYS[2], "XX", ends, ARGV[3])
for i = 6, 5 + 2 * tonumber(ARGV[5]), 2 do redis.call("HSET", KEYS[3], ARGV[i], ARGV[i + 1]) end
return 1
