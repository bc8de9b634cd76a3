-- fields: one field of several hashes, for a search that reads many sagas.
--
-- KEYS[1..] hashes of one shard   ARGV[1] the field
--
-- Returns for each the field's value, false where there is no such hash or field.
local found = {}
for i = 1, #KEYS do
  local value = redis.pcall("HGET", KEYS[i], ARGV[1])
  found[i] = type(value) == "string" and value or false
end
return found
