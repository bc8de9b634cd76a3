-- lib: what several scripts share; put before each of them when it is loaded.
--
-- Every saga script takes the same first keys:
-- KEYS[1] saga   hash     KEYS[2] work  hash     KEYS[3] data  hash
-- KEYS[4] log    stream   KEYS[5] ids   set      KEYS[6] due   zset
-- Replies are built as JSON text by concatenation: step names need no escaping (they are checked
-- when a workflow is built) and all values are JSON already.
local SAGA, WORK, DATA, LOG, IDS, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local PAGE = 500  -- log entries read at once
local KEPT = 16   -- versions that a wide saga remembers

local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end

-- take a count n, then call f n times
local function repeated(f)
  for _ = 1, tonumber(take()) do f() end
end

-- Append an entry unless its id is known (E4); return whether it is new.
local function append(id, entry)
  if redis.call("SADD", IDS, id) == 0 then return false end
  redis.call("HSET", SAGA, "l", redis.call("XADD", LOG, "*", "e", entry))
  return true
end

-- All fields of a hash that begin with prefix, as one JSON object without it.
local function object(key, prefix)
  local flat, parts = redis.call("HGETALL", key), {}
  for i = 1, #flat, 2 do
    if string.sub(flat[i], 1, #prefix) == prefix then
      parts[#parts + 1] = '"' .. string.sub(flat[i], #prefix + 1) .. '":' .. flat[i + 1]
    end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- The log after an id, as {id, entry, ...}.
local function entries(after)
  local flat = {}
  for _, item in ipairs(redis.call("XRANGE", LOG, "(" .. after, "+", "COUNT", PAGE)) do
    flat[#flat + 1] = item[1]
    flat[#flat + 1] = item[2][2]
  end
  return flat
end

-- What a decision needs: {version, cursor, log, definition, head, steps, values}.
-- A reader that knows this version, or one of the last before it (wide sagas keep their versions
-- in p), gets the log after its own cursor and false for the state: it brings itself up to date.
local function view(known, known_cursor)
  local f = redis.call("HMGET", SAGA, "v", "c", "w", "h", "p")
  if known == f[1] then return {f[1], f[2], entries(f[2]), false, false, false, false} end
  if known ~= "" and f[5] and string.find(f[5], "," .. known .. ",", 1, true) then
    local since = entries(known_cursor)
    if #since < 2 * PAGE then return {f[1], f[2], since, false, false, false, false} end
  end
  return {f[1], f[2], entries(f[2]), f[3], f[4], object(SAGA, "s:"), false}
end

local function values()
  if redis.call("HGET", SAGA, "q") ~= "1" then return false end
  local input = redis.call("HGET", DATA, "input") or "{}"
  return '{"input":' .. input .. ',"results":' .. object(DATA, "r:") .. "}"
end

local function load(known, known_cursor)
  local reply = view(known, known_cursor)
  reply[7] = values()
  return reply
end

-- Write a decision, whose arguments are next in ARGV; return {1 if the log holds more, cursor}.
-- Order: new version, cursor, head, now_ms, saga id, state index to leave and to enter ("" = the
-- same), created_ms; then counted lists: steps (name, row); entries already decided over
-- (id, entry); outbox (field, value, due member, due ms); letters (queue list of the broker,
-- message); withdrawals (field, due member, entry id, entry); due members to set (member, ms) and to clear (member); claims (field, value).
local function apply(from_index, to_index)
  local version, cursor, head = take(), take(), take()
  local now, saga_id, leaves, enters, created = take(), take(), take(), take(), take()
  local versions = redis.call("HGET", SAGA, "p")
  if versions then
    local kept = string.sub("," .. version .. versions, 1, KEPT * (#version + 1) + 1)
    redis.call("HSET", SAGA, "p", kept)
  end
  redis.call("HSET", SAGA, "v", version, "h", head)
  if enters ~= "" then
    if leaves ~= "" then redis.call("ZREM", from_index, saga_id) end
    redis.call("ZADD", to_index, created, saga_id)
  end
  repeated(function() redis.call("HSET", SAGA, "s:" .. take(), take()) end)
  repeated(function()
    local id, entry = take(), take()
    append(id, entry)
    cursor = redis.call("HGET", SAGA, "l")
  end)
  repeated(function()
    local field, value, member, due_ms = take(), take(), take(), take()
    redis.call("HSET", WORK, field, value)
    redis.call("ZADD", DUE, due_ms, member)
  end)
  repeated(function() redis.call("LPUSH", take(), take()) end)
  repeated(function()
    local field, member, id, entry = take(), take(), take(), take()
    if redis.call("HDEL", WORK, field) == 1 then
      redis.call("ZREM", DUE, member)
      append(id, entry)
    end
  end)
  repeated(function() local member, ms = take(), take(); redis.call("ZADD", DUE, ms, member) end)
  repeated(function() redis.call("ZREM", DUE, take()) end)
  repeated(function() redis.call("HSET", WORK, take(), take()) end)
  redis.call("HSET", SAGA, "c", cursor)
  -- E1: only a commit whose cursor reaches the end of the log makes the saga clean.
  local dirty = "d|" .. saga_id
  if redis.call("HGET", SAGA, "l") == cursor then
    redis.call("ZREM", DUE, dirty)
    return {0, cursor}
  end
  redis.call("ZADD", DUE, "NX", now + 2000, dirty)
  return {1, cursor}
end
