-- Claims a listed step under a lease.  Returns the saga's input, or nil if it cannot be claimed.
-- KEYS[1] saga (hash)  KEYS[2] due (zset)
-- ARGV[1] saga id  ARGV[2] step  ARGV[3] nonce  ARGV[4] end of the lease, ms
if redis.call('HGET', KEYS[1], 's' .. ARGV[2]) ~= 'ready' then
  return false
end
redis.call('HSET', KEYS[1], 's' .. ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1] .. ':' .. ARGV[2])
return redis.call('HGET', KEYS[1], 'input')
