-- Records a saga and lists its first steps.
-- KEYS[1] saga (hash)  KEYS[2] log (stream)  KEYS[3] due (zset)  KEYS[4] queue (list)
-- ARGV[1] saga id  ARGV[2] steps  ARGV[3] number of first steps  ARGV[4] input (JSON)  ARGV[5] due, ms
redis.call('XADD', KEYS[2], '*', 'started', ARGV[4])
redis.call('HSET', KEYS[1], 'steps', ARGV[2], 'left', ARGV[3], 'first', ARGV[3], 'input', ARGV[4])
for step = 0, ARGV[3] - 1 do
  redis.call('HSET', KEYS[1], 's' .. step, 'ready')
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1] .. ':' .. step)
  redis.call('LPUSH', KEYS[4], ARGV[1] .. ':' .. step)
end
return 1
