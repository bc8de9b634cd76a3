-- uses: list the definitions that some of a shard's sagas use.
--
-- KEYS[1] zset of all sagas   ARGV[1] cursor ("0" = from the beginning)   ARGV[2] how many, roughly
-- ARGV[3] the prefix of a saga's key, before its id
--
-- Returns {cursor ("0" = at the end), version …}; "?" stands for one that cannot be read.
local page = redis.call("ZSCAN", KEYS[1], ARGV[1], "COUNT", ARGV[2])
local reply, seen = {page[1]}, {}
for i = 1, #page[2], 2 do
  local version = redis.pcall("HGET", ARGV[3] .. page[2][i], "w")
  if type(version) == "table" then version = "?" end
  if version and not seen[version] then
    seen[version] = true
    reply[#reply + 1] = version
  end
end
return reply
