-- append: add one entry to a saga's log and return the data that a decision over it needs.
--
-- KEYS[1..6] as in lib.lua
-- ARGV[1] saga id            ARGV[2] known version ("" = none)   ARGV[3] dirty at, Unix ms
--                            ARGV[14] the cursor that goes with it
-- ARGV[4] entry id ("" = append nothing, only load)              ARGV[5] entry
-- ARGV[6] due member that must still stand ("" = no such guard)  ARGV[7] its score
-- ARGV[8] claim field that this report ends ("" = none)          ARGV[9] nonce
-- ARGV[10] lease member      ARGV[11] result field               ARGV[12] result JSON ("" = none)
-- ARGV[13] outbox field that must still stand and is removed ("" = none)
-- ARGV[15] Celery delivery whose claims are returned as well, optional
--
-- Returns the view of lib.lua; 0 if the saga does not exist; 1 if a guard did not hold.  With a
-- delivery: {view or false, data hash or false, claim field, value, …}.  Then a wide saga's state
-- is sent only as changes since the known version, as with a claim, and data only if small.
local SMALL = 65536  -- characters
if redis.call("EXISTS", SAGA) == 0 then
  if ARGV[6] ~= "" then redis.call("ZREM", DUE, ARGV[6]) end
  return 0
end
if ARGV[6] ~= "" and redis.call("ZSCORE", DUE, ARGV[6]) ~= ARGV[7] then return 1 end
if ARGV[13] ~= "" and redis.call("HDEL", WORK, ARGV[13]) == 0 then return 1 end
if ARGV[4] ~= "" and append(ARGV[4], ARGV[5]) then
  redis.call("ZADD", DUE, "LT", ARGV[3], "d|" .. ARGV[1])
  local current = false
  if ARGV[8] ~= "" then
    local claim = redis.call("HGET", WORK, ARGV[8])
    current = claim and string.match(claim, "|(%x+)|") == ARGV[9]
    if current then redis.call("HDEL", WORK, ARGV[8]) end
    redis.call("ZREM", DUE, ARGV[10])
  end
  if ARGV[12] ~= "" then
    keep(ARGV[11], ARGV[12], ARGV[9], current)
  end
end
if ARGV[6] ~= "" then redis.call("ZREM", DUE, ARGV[6]) end
local read = readers()
if not ARGV[15] then return read.load(ARGV[2], ARGV[14]) end
local f = redis.call("HMGET", SAGA, "p", "q")
local state = f[2] ~= "1" and (not f[1] or read.remembers(f[1], ARGV[2]))
local data, size = state and not f[1] and redis.call("HGETALL", DATA) or {}, 0
for _, text in ipairs(data) do size = size + #text end
local reply = {state and read.view(ARGV[2], ARGV[14]) or false, #data > 0 and size <= SMALL and data}
local flat = redis.call("HGETALL", WORK)
for i = 1, #flat, 2 do
  if string.match(flat[i + 1], "^%d+|%x+|%d+|(.*)$") == ARGV[15] then
    reply[#reply + 1] = flat[i]
    reply[#reply + 1] = flat[i + 1]
  end
end
return reply
