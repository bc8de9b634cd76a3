-- Records a step's result, then lists the next step or claims it for the caller.
-- KEYS[1] saga (hash)  KEYS[2] log (stream)  KEYS[3] due (zset)  KEYS[4] queue (list)
-- ARGV[1] saga id  ARGV[2] step  ARGV[3] its nonce  ARGV[4] result (JSON)  ARGV[5] due, ms
-- ARGV[6] nonce to claim the next step with; '' lists it
-- Returns nil: not the claimant; -1: the saga has ended; -2: no step to continue with; or the step.
local field = 's' .. ARGV[2]
if redis.call('HGET', KEYS[1], field) ~= ARGV[3] then
  return false
end
redis.call('XADD', KEYS[2], '*', ARGV[2], ARGV[4])
redis.call('HSET', KEYS[1], field, 'done', 'r' .. ARGV[2], ARGV[4])
redis.call('ZREM', KEYS[3], ARGV[1] .. ':' .. ARGV[2])
local facts = redis.call('HMGET', KEYS[1], 'steps', 'first')
local step, steps, first = tonumber(ARGV[2]), tonumber(facts[1]), tonumber(facts[2])
if step < first and redis.call('HINCRBY', KEYS[1], 'left', -1) > 0 then
  return -2
end
local following = math.max(step + 1, first)
if following >= steps then
  redis.call('HSET', KEYS[1], 'state', 'completed')
  return -1
end
redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1] .. ':' .. following)
if ARGV[6] == '' then
  redis.call('HSET', KEYS[1], 's' .. following, 'ready')
  redis.call('LPUSH', KEYS[4], ARGV[1] .. ':' .. following)
  return -2
end
redis.call('HSET', KEYS[1], 's' .. following, ARGV[6])
return following
