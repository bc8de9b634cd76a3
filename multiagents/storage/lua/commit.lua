-- commit: write a decision if no other was written since the state was read.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] state index to leave   KEYS[8] state index to enter
-- ARGV[1] version that was read   ARGV[2] its cursor
-- ARGV[3] number and ARGV[4] texts, line by line, of the entries after it that were decided over
-- ARGV[5] "1" if the log must have no entry after the decision's cursor (ARGV[7])
-- ARGV[6..] the decision, see apply in lib.lua
--
-- Returns the reply of apply; the fresh view if the saga has changed; 0 if it does not exist.
local f = redis.call("HMGET", SAGA, "v", "p", "b")
if not f[1] then return 0 end
local known, known_cursor = take(), take()
local last = log_end(f[3])
local fits = f[1] == known
  and follow(known_cursor, f[3], take(), take())
  and (take() ~= "1" or last == tonumber(ARGV[7]))
if not fits then return readers().load(known, known_cursor) end
return apply(f[2], f[3], last, {})
