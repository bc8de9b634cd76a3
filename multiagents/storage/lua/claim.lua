-- claim: begin the recorded attempt, once.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] outbox field   ARGV[2] outbox due member   ARGV[3] claim field   ARGV[4] nonce
-- ARGV[5] claim value    ARGV[6] lease member        ARGV[7] lease ends, Unix ms
-- ARGV[8] entry id       ARGV[9] entry               ARGV[10] step
-- ARGV[11] "1" to return the state   ARGV[12] known version   ARGV[13] its cursor
-- ARGV[14] delivery that must hold no claim yet ("" = any)   ARGV[15..] data fields
--
-- Returns {view of lib.lua or false, definition, head, step row or false, data values …}, also if
-- this claim stands already (its reply was lost); 0 if the command is done, withdrawn or taken, or
-- the delivery holds a claim.  A wide saga's state is sent only as changes since the known version.
local claim = redis.call("HGET", WORK, ARGV[3])
local mine = claim and string.match(claim, "|(%x+)|") == ARGV[4]
if not mine then
  if ARGV[14] ~= "" then
    for _, value in ipairs(redis.call("HVALS", WORK)) do
      if string.match(value, "^%d+|%x+|%d+|(.*)$") == ARGV[14] then return 0 end
    end
  end
  if claim or redis.call("HDEL", WORK, ARGV[1]) == 0 then return 0 end
  redis.call("ZREM", DUE, ARGV[2])
  redis.call("HSET", WORK, ARGV[3], ARGV[5])
  redis.call("ZADD", DUE, ARGV[7], ARGV[6])
  append(ARGV[8], ARGV[9])
end
local read = readers()
local f = redis.call("HMGET", SAGA, "w", "h", "s:" .. ARGV[10], "p")
local state = ARGV[11] == "1" and (not f[4] or read.remembers(f[4], ARGV[12]))
local reply = {state and read.view(ARGV[12], ARGV[13]) or false, f[1], f[2], f[3]}
for i = 15, #ARGV, FIELDS do
  local some = redis.call("HMGET", DATA, unpack(ARGV, i, math.min(i + FIELDS - 1, #ARGV)))
  for _, value in ipairs(some) do reply[#reply + 1] = value end
end
return reply
