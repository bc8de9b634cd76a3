-- commit: write a decision if nobody else has written one since the state was read.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] state index to leave   KEYS[8] state index to enter
-- ARGV[1] version that was read   ARGV[2] its cursor
-- ARGV[3] "1" if the log must hold nothing beyond the decision's cursor (ARGV[5])
-- ARGV[4..] the decision, see apply in lib.lua
--
-- Returns {0, cursor} done, {1, cursor} done and the log holds more, or the fresh view if another
-- was faster; 0 if the saga does not exist.
local version = redis.call("HGET", SAGA, "v")
if not version then return 0 end
local known, known_cursor = take(), take()
if version ~= known then return load(known, known_cursor) end
if take() == "1" and redis.call("HGET", SAGA, "l") ~= ARGV[5] then
  return load(known, known_cursor)
end
return apply(KEYS[7], KEYS[8])
