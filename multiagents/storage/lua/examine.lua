-- examine: read the types of a saga's keys, and the fields of its hash.  Writes nothing.
--
-- KEYS[1..6] as in lib.lua   KEYS[7] index of all sagas, zset   KEYS[8] definitions hash
-- ARGV[1] saga id
--
-- Returns {type of each of the first five keys ("none" = it is missing), number of items in the
-- log, "1" if the saga is listed, v, c, w, h, b, "1" if its definition is stored}.
local reply = {}
for i = 1, 5 do
  local found = redis.call("TYPE", KEYS[i])
  reply[i] = type(found) == "table" and found.ok or found
end
reply[6] = reply[4] == "list" and redis.call("LLEN", KEYS[4]) or 0
reply[7] = redis.call("ZSCORE", KEYS[7], ARGV[1]) and "1" or ""
local f = reply[1] == "hash" and redis.call("HMGET", KEYS[1], "v", "c", "w", "h", "b") or {}
for i = 1, 5 do reply[7 + i] = f[i] or "" end
-- In the same call: between two calls the saga may go, and its definition with it.
reply[13] = f[3] and redis.call("HEXISTS", KEYS[8], f[3]) == 1 and "1" or ""
return reply
