-- fields: read one field of several hashes, or all of each, for a search over many sagas.
--
-- KEYS[1..] hashes of one shard   ARGV[1] the field ("" = all values, joined by line breaks)
--
-- Returns for each the text, false where there is no such hash or field.
local found = {}
for i = 1, #KEYS do
  local value
  if ARGV[1] == "" then
    local all = redis.pcall("HVALS", KEYS[i])
    value = not all.err and #all > 0 and table.concat(all, "\n")
  else
    value = redis.pcall("HGET", KEYS[i], ARGV[1])
  end
  found[i] = type(value) == "string" and value or false
end
return found
