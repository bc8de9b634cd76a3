-- lib: functions that several scripts share; put before each of them when it is loaded.
--
-- Every saga script takes the same first keys:
-- KEYS[1] saga   hash     KEYS[2] work  hash     KEYS[3] data  hash
-- KEYS[4] log    list     KEYS[5] ids   set      KEYS[6] due   zset
-- Replies are built as JSON text by concatenation: step names need no escaping (they are checked
-- when a workflow is built) and all values are JSON already.
--
-- The server may refuse a foreign key (a queue of the broker, a result of Celery's) for a reason of
-- its own: another type, a right that the user lacks.  A script uses it by pcall, after all its
-- writes to the saga, and a refused write stays owed.
--
-- An entry's position is its number in the log, from 1; a cursor is the last decided position.  In
-- an ended saga the first item holds the first b entries, compressed.
local SAGA, WORK, DATA, LOG, IDS, DUE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local PAGE = 500     -- log entries read at once
local KEPT = 16      -- versions that a wide saga remembers
local FIELDS = 1000  -- arguments of one command at most
local CARRIED = 65536  -- bytes of the longest log that the reply to a saga's end includes

local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end

-- The length of the list that comes next in ARGV.
local function count()
  return tonumber(take())
end

-- Run a command with any number of arguments, in pieces; FIELDS is even, so pairs stay whole.
local function bulk(command, key, list)
  for i = 1, #list, FIELDS do
    redis.call(command, key, unpack(list, i, math.min(i + FIELDS - 1, #list)))
  end
end

-- The position of the last of so many items of the log.
-- b: number of entries that are compressed in the first item (false = none).
local function place(items, b)
  return b and tonumber(b) + items - 1 or items
end

-- The position of the last entry.
local function log_end(b)
  return place(redis.call("LLEN", LOG), b)
end

-- Append an entry and return its position; false if its id is known (E4).
local function append(id, entry, b)
  return redis.call("SADD", IDS, id) == 1 and place(redis.call("RPUSH", LOG, entry), b)
end

-- Keep a result.  Only the result of the attempt that holds the claim counts.  That of a given-up
-- attempt is put aside until a decision adopts it, so the results that other steps read stay true.
local function keep(field, text, nonce, current)
  if current then return redis.call("HSET", DATA, field, text) end
  redis.call("HSETNX", DATA, string.sub(field, 1, 2) == "r:" and "l:" .. nonce or field, text)
end

-- Whether exactly these entries follow a position: their number, and their texts line by line.
-- After a server lost its last second others may be there, with the same version (E5).
local function follow(after, b, count, texts)
  if count == "0" then return true end
  local first = b and tonumber(after) - tonumber(b) + 1 or tonumber(after)
  local found = redis.call("LRANGE", LOG, first, first + tonumber(count) - 1)
  return table.concat(found, "\n") == texts
end

-- The functions that read a saga.  A script defines all its functions anew in each run, and most
-- runs need none of these.
local function readers()
  -- The log after a position, oldest first, one page at most.
  local function entries(after, b)
    local first = b and tonumber(after) - tonumber(b) + 1 or tonumber(after)
    return redis.call("LRANGE", LOG, first, first + PAGE - 1)
  end

  -- The fields of a hash (a reply to HGETALL) with a prefix, as a JSON object without the prefix.
  local function object(flat, prefix)
    local parts = {}
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

  -- The data of a decision: {version, cursor, position before the log's first entry here, log,
  -- definition, head, steps, values}.
  -- A reader may have this version, or one of the last before it (wide sagas keep those in p).
  -- Then it gets the log after its own cursor and false for the state, and folds the log itself.
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
    local steps = object(redis.call("HGETALL", SAGA), "s:")
    return {f[1], cursor, cursor, entries(cursor, b), f[3], f[4], steps, false}
  end

  local function values()
    if redis.call("HGET", SAGA, "q") ~= "1" then return false end
    local input, flat = redis.call("HGET", DATA, "input") or "{}", redis.call("HGETALL", DATA)
    local results, late = object(flat, "r:"), object(flat, "l:")
    return '{"input":' .. input .. ',"results":' .. results .. ',"late":' .. late .. "}"
  end

  local function load(known, known_cursor)
    local reply = view(known, known_cursor)
    reply[8] = values()
    return reply
  end

  return {load = load, view = view, remembers = remembers}
end

-- Write a decision, whose arguments are next in ARGV.
-- Order: new version, cursor ("" = the end of the log as it is), head, now_ms, saga id, state
-- index to leave and to enter ("" = the same), created_ms, and if the saga's outcome is to be
-- delivered now a counted list of its data fields ("" = it is not); then counted lists: steps
-- (name, row); entries that are decided already (id, entry);
-- outbox (field, value, due member, due ms); letters (field, queue list of the broker, message);
-- withdrawals (field, due member, entry id, entry); due members to set (member, ms) and to clear
-- (member); claims (field, value); outbox fields that they take (field, due member); late results
-- that count from now on (field, result field).  Then, to the end, changes to the indexes of
-- attention and dead letters: 0 KEYS[9] or 1 KEYS[10], member, since when ("" = no longer).
-- versions: the field p; b: see place; last: the position of the last entry; gone: more due members
-- to clear.
--
-- Returns {1 if the log holds more, cursor}.  If the outcome is to be delivered, then also the
-- version, those fields and the waiters' fields of the data hash (as in HGETALL), and the items of
-- the log, or their number if they are many or large.  At the end, if queues refused letters, a
-- list of these: {field, queue list, error, …}, which is also the second return value.
local function apply(versions, b, last, gone)
  local version, cursor, head, now, saga_id, leaves, enters, created, ends =
    unpack(ARGV, position + 1, position + 9)
  position = position + 9
  local wanted = ends ~= "" and {}
  for _ = 1, tonumber(ends) or 0 do wanted[#wanted + 1] = take() end
  cursor = tonumber(cursor) or last
  local saga, work, due = {"v", version, "h", head}, {}, {}
  if versions then
    saga[5] = "p"
    saga[6] = string.sub("," .. version .. versions, 1, KEPT * (#version + 1) + 1)
  end
  if enters ~= "" then
    if leaves ~= "" then redis.call("ZREM", KEYS[7], saga_id) end
    redis.call("ZADD", KEYS[8], created, saga_id)
  end
  for _ = 1, count() do saga[#saga + 1] = "s:" .. take(); saga[#saga + 1] = take() end
  for _ = 1, count() do
    last = append(take(), take(), b) or last
    cursor = last
  end
  for _ = 1, count() do
    work[#work + 1] = take(); work[#work + 1] = take()
    local member = take()
    due[#due + 1] = take(); due[#due + 1] = member
  end
  local letters = position + 1
  position = letters + 3 * tonumber(ARGV[letters])
  bulk("HSET", WORK, work)
  work = {}
  for _ = 1, count() do
    local field, member, id, entry = take(), take(), take(), take()
    if redis.call("HDEL", WORK, field) == 1 then
      gone[#gone + 1] = member
      last = append(id, entry, b) or last
    end
  end
  for _ = 1, count() do local member = take(); due[#due + 1] = take(); due[#due + 1] = member end
  for _ = 1, count() do gone[#gone + 1] = take() end
  for _ = 1, count() do work[#work + 1] = take(); work[#work + 1] = take() end
  for _ = 1, count() do
    redis.call("HDEL", WORK, take())
    gone[#gone + 1] = take()
  end
  for _ = 1, count() do
    local late, result = redis.call("HGET", DATA, take()), take()
    if late then redis.call("HSETNX", DATA, result, late) end
  end
  saga[#saga + 1] = "c"; saga[#saga + 1] = cursor
  bulk("HSET", SAGA, saga)
  bulk("HSET", WORK, work)
  -- E1: only a commit whose cursor reaches the end of the log makes the saga clean.
  local dirty, more = "d|" .. saga_id, 0
  if last == cursor then
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
  if wanted then
    for _, name in ipairs(redis.call("HKEYS", DATA)) do
      local kind = string.match(name, "^(%l+):")
      if kind == "alias" or kind == "told" or kind == "part" then wanted[#wanted + 1] = name end
    end
    local data, log, bytes = {}, redis.call("LLEN", LOG), 0
    for i = 1, #wanted, FIELDS do
      local some = redis.call("HMGET", DATA, unpack(wanted, i, math.min(i + FIELDS - 1, #wanted)))
      for j, value in ipairs(some) do
        if value then data[#data + 1] = wanted[i + j - 1]; data[#data + 1] = value end
      end
    end
    if log <= PAGE then
      local items = redis.call("LRANGE", LOG, 0, -1)
      for _, item in ipairs(items) do bytes = bytes + #item end
      if bytes <= CARRIED then log = items end
    end
    reply[3], reply[4], reply[5] = version, data, log
  end
  local refused
  for i = letters + 1, letters + 3 * tonumber(ARGV[letters]), 3 do
    local field, sent = ARGV[i], redis.pcall("LPUSH", ARGV[i + 1], ARGV[i + 2])
    if type(sent) == "table" then
      -- The command is unsent, and due again soon.  For a plain task, whose claim this commit has
      -- written, a "-" marks the holder.
      local value, member = "0|0", "o|" .. saga_id .. "|" .. field
      if string.sub(field, 1, 2) == "c:" then
        local start, holder = string.match(redis.call("HGET", WORK, field), "^(%d+|%x+|%d+|)(.*)$")
        local attempt, nonce = string.match(start, "^(%d+)|(%x+)")
        local kind, step = string.match(field, "^c:([^:]+):(.+)$")
        value = start .. "-" .. holder
        member = table.concat({"l", saga_id, kind, step, attempt, nonce}, "|")
      end
      redis.call("HSET", WORK, field, value)
      redis.call("ZADD", DUE, now + 2000, member)
      refused = refused or {}
      for _, each in ipairs({field, ARGV[i + 1], sent.err}) do refused[#refused + 1] = each end
    end
  end
  if not refused then return reply end
  reply[#reply + 1] = refused
  return reply, refused
end
