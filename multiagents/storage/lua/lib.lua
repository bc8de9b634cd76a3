-- lib: what several scripts share; put before each of them when it is loaded.
--
-- Every saga script takes the same first keys:
-- KEYS[1] saga   hash     KEYS[2] work  hash     KEYS[3] data  hash
-- KEYS[4] log    list     KEYS[5] ids   set      KEYS[6] due   zset
-- Replies are built as JSON text by concatenation: step names need no escaping (they are checked
-- when a workflow is built) and all values are JSON already.
--
-- An entry's position is its number in the log, from 1; a cursor is the last position that was
-- decided over.  Of an ended saga the first entries, b of them, lie compressed in the first item.
local SAGA, WORK, DATA, LOG, IDS, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local PAGE = 500     -- log entries read at once
local KEPT = 16      -- versions that a wide saga remembers
local FIELDS = 1000  -- arguments that one command is given

local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end

-- take a count n, then call f n times
local function repeated(f)
  for _ = 1, tonumber(take()) do f() end
end

-- A command with any number of arguments, in pieces; all of them pairs if there are several.
local function bulk(command, key, list)
  for i = 1, #list, FIELDS do
    redis.call(command, key, unpack(list, i, math.min(i + FIELDS - 1, #list)))
  end
end

-- Append an entry unless its id is known (E4); return whether it is new.
local function append(id, entry)
  if redis.call("SADD", IDS, id) == 0 then return false end
  redis.call("RPUSH", LOG, entry)
  return true
end

-- The position of the last entry; b: how many lie compressed in the first item (false = none do).
local function log_end(b)
  local items = redis.call("LLEN", LOG)
  return b and tonumber(b) + items - 1 or items
end

-- Whether just these entries follow a position: so many, their texts line by line.  After a server
-- lost its last second others may stand there, while the version is still the same (E5).
local function follow(after, b, count, texts)
  if count == "0" then return true end
  local first = b and tonumber(after) - tonumber(b) + 1 or tonumber(after)
  local found = redis.call("LRANGE", LOG, first, first + tonumber(count) - 1)
  return table.concat(found, "\n") == texts
end

-- The log after a position, oldest first, one page at most.
local function entries(after, b)
  local first = b and tonumber(after) - tonumber(b) + 1 or tonumber(after)
  return redis.call("LRANGE", LOG, first, first + PAGE - 1)
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

-- Whether a version is one of the last of a wide saga, p.
local function remembers(p, known)
  return known ~= "" and p and string.find(p, "," .. known .. ",", 1, true)
end

-- What a decision needs: {version, cursor, position before the log's first entry here, log,
-- definition, head, steps, values}.
-- A reader that knows this version, or one of the last before it (wide sagas keep their versions
-- in p), gets the log after its own cursor and false for the state: it brings itself up to date.
local function view(known, known_cursor)
  local f = redis.call("HMGET", SAGA, "v", "c", "w", "h", "p", "b")
  local cursor, b = f[2], f[6]
  if known == f[1] then
    return {f[1], cursor, cursor, entries(cursor, b), false, false, false, false}
  end
  if remembers(f[5], known) and tonumber(known_cursor) >= tonumber(b or "0") then
    local since = entries(known_cursor, b)
    if #since < PAGE then
      return {f[1], cursor, known_cursor, since, false, false, false, false}
    end
  end
  return {f[1], cursor, cursor, entries(cursor, b), f[3], f[4], object(SAGA, "s:"), false}
end

local function values()
  if redis.call("HGET", SAGA, "q") ~= "1" then return false end
  local input = redis.call("HGET", DATA, "input") or "{}"
  return '{"input":' .. input .. ',"results":' .. object(DATA, "r:") .. "}"
end

local function load(known, known_cursor)
  local reply = view(known, known_cursor)
  reply[8] = values()
  return reply
end

-- Write a decision, whose arguments are next in ARGV.
-- Order: new version, cursor ("" = the end of the log as it is), head, now_ms, saga id, state
-- index to leave and to enter ("" = the same), created_ms, "1" if the saga's outcome is to be
-- delivered now; then counted lists: steps (name, row); entries already decided over (id, entry);
-- outbox (field, value, due member, due ms); letters (queue list of the broker, message);
-- withdrawals (field, due member, entry id, entry); due members to set (member, ms) and to clear
-- (member); claims (field, value); outbox fields that they take (field, due member).  Then, to the
-- end, what begins or ceases to wait for a person: 0 KEYS[9] or 1 KEYS[10], member, since when
-- ("" = no longer).
-- versions: the field p; b: see log_end.
--
-- Returns {1 if the log holds more, cursor}; where the outcome is to be delivered also the data
-- hash, b and the items of the log.
local function apply(versions, b, from_index, to_index)
  local version, cursor, head = take(), tonumber(take()) or log_end(b), take()
  local now, saga_id, leaves, enters, created, ends = take(), take(), take(), take(), take(), take()
  local saga, work, due, gone = {"v", version, "h", head}, {}, {}, {}
  if versions then
    saga[5] = "p"
    saga[6] = string.sub("," .. version .. versions, 1, KEPT * (#version + 1) + 1)
  end
  if enters ~= "" then
    if leaves ~= "" then redis.call("ZREM", from_index, saga_id) end
    redis.call("ZADD", to_index, created, saga_id)
  end
  repeated(function() saga[#saga + 1] = "s:" .. take(); saga[#saga + 1] = take() end)
  repeated(function()
    local id, entry = take(), take()
    append(id, entry)
    cursor = log_end(b)
  end)
  repeated(function()
    work[#work + 1] = take(); work[#work + 1] = take()
    local member = take()
    due[#due + 1] = take(); due[#due + 1] = member
  end)
  repeated(function() redis.call("LPUSH", take(), take()) end)
  bulk("HSET", WORK, work)
  work = {}
  repeated(function()
    local field, member, id, entry = take(), take(), take(), take()
    if redis.call("HDEL", WORK, field) == 1 then
      gone[#gone + 1] = member
      append(id, entry)
    end
  end)
  repeated(function() local member = take(); due[#due + 1] = take(); due[#due + 1] = member end)
  repeated(function() gone[#gone + 1] = take() end)
  repeated(function() work[#work + 1] = take(); work[#work + 1] = take() end)
  repeated(function()
    redis.call("HDEL", WORK, take())
    gone[#gone + 1] = take()
  end)
  saga[#saga + 1] = "c"; saga[#saga + 1] = cursor
  bulk("HSET", SAGA, saga)
  bulk("HSET", WORK, work)
  -- E1: only a commit whose cursor reaches the end of the log makes the saga clean.
  local dirty, more = "d|" .. saga_id, 0
  if log_end(b) == cursor then
    gone[#gone + 1] = dirty
  else
    more = 1
    redis.call("ZADD", DUE, "NX", now + 2000, dirty)
  end
  bulk("ZADD", DUE, due)
  bulk("ZREM", DUE, gone)
  while ARGV[position + 1] do
    local index, member, since = KEYS[9 + take()], take(), take()
    if since == "" then redis.call("ZREM", index, member) else redis.call("ZADD", index, since, member) end
  end
  local reply = {more, tostring(cursor)}
  if ends == "1" then
    reply[3] = redis.call("HGETALL", DATA)
    reply[4] = b or "0"
    reply[5] = redis.call("LRANGE", LOG, 0, -1)
  end
  return reply
end
