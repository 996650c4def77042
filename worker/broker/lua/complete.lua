-- complete: end jobs in flight. Publishing the event and acknowledging the job are one step: nothing can come between the two.
-- KEYS  1 leases   2 counters   3 results stream   4 dead stream   5 ledger of the results   6 ledger of the dead letters
-- ARGV  1 record prefix   2 id prefix   3 results channel   4 results kept   5 dead letters kept   6 milliseconds to keep an id
--       7 bytes of results kept   8 bytes of dead letters kept   9 queue   10 bytes kept of a rejected message
--       then for each job: ref, lease token, event (empty: a duplicate, dropped), outcome, 1 if it is a dead letter, digest of its id
--       (empty: not kept), fingerprint (empty: it names no conversation), 1 if it is a dry run, 1 if the event's id is not the job's
-- Returns for each job  1 published | 0 not ours any more (nothing changed)
--       | 2 the job's id names another event, 3 it also stands for something else: complete the job with an id of its own (nothing changed)
--       | a text: dropped as a duplicate; the outcome of the first one if it ended without a lock, else empty
-- Crash: all or nothing; repeating it is harmless: a completed job answers 0.

local leases, counters, results, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix, id_prefix, channel = ARGV[1], ARGV[2], ARGV[3]
local results_kept, dead_kept, dedup_ttl_ms = ARGV[4], ARGV[5], ARGV[6]
local results_ledger, dead_ledger = KEYS[5], KEYS[6]
local results_bytes, dead_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local queue, message_bytes = ARGV[9], tonumber(ARGV[10])

require_type(leases, 'zset')
require_type(counters, 'hash')
require_type(results, 'stream')
require_type(dead, 'stream')
require_permission('ZREM', leases, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('XADD', results, '*', '', '')
require_permission('XADD', dead, '*', '', '')
require_permission('PUBLISH', channel, '')
require_permission('DEL', record_prefix)
require_permission('SET', id_prefix, '')
require_permission('MGET', id_prefix)
require_permission('HGET', record_prefix, '')

-- A stream has two bounds: its entries (XADD trims them) and its bytes. The bytes are counted in parts, each a sixteenth of the bound.
-- The ledger is a text: the entries and bytes of the part being written, a ";", and those of the earlier parts, oldest first. When a part
-- is full, the oldest entries are trimmed. If the stream has other entries than counted, a client deleted or wrote some, and the server is
-- asked for the stream's memory. A "?" before the parts marks the first one as measured so: how its bytes are spread is unknown.
local parts_of_bound = 16
local to_results = {stream = results, ledger = results_ledger, max_entries = results_kept, max_bytes = results_bytes}
local to_dead = {stream = dead, ledger = dead_ledger, max_entries = dead_kept, max_bytes = dead_bytes}

-- The memory of an entry: a large one is an allocation of its own, which allocators round up by up to a quarter.
local function in_memory(bytes)
  bytes = bytes + 100
  if bytes <= 4096 then
    return bytes
  end
  local _, exponent = math.frexp(bytes - 1)
  local step = 2 ^ (exponent - 3)
  return math.ceil(bytes / step) * step
end

-- Reads a ledger; `more` is what this call may add. Checks what closing a part needs, if this call may close one.
local function open_ledger(to, text, more)
  local entries, bytes, parts = string.match(text or '', '^(%d+) (%d+);(.*)$')
  to.entries, to.bytes, to.parts, to.added = tonumber(entries), tonumber(bytes), parts, 0
  -- Text of another kind starts a new ledger; close_part then finds that the entries are not as many as counted.
  to.is_new = not (entries and to.entries < 1e15 and to.bytes < 1e15)
  if to.is_new then
    require_type(to.ledger, 'string')
    to.entries, to.bytes, to.parts = 0, 0, ''
  end
  if to.is_new or (to.bytes + more) * parts_of_bound >= to.max_bytes then
    require_permission('XLEN', to.stream)
    require_permission('XTRIM', to.stream, 'MAXLEN', 0)
    require_permission('XREVRANGE', to.stream, '+', '-')
    if not is_permitted('MEMORY', 'USAGE', to.stream) then
      forbid('MEMORY USAGE', to.stream)
    end
    if not is_permitted('XINFO', 'GROUPS', to.stream) then
      forbid('XINFO GROUPS', to.stream)
    end
  end
end

-- True if groups have entries that they did not acknowledge.
local function has_pending(stream)
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for at = 1, #group, 2 do
      if group[at] == 'pending' and group[at + 1] > 0 then
        return true
      end
    end
  end
  return false
end

-- The mean memory of an entry, by the newest ones, up to so many bytes of them.
local function mean_of_entries(stream, max_bytes)
  local entries, bytes, last = 0, 0, '+'
  repeat
    local found = redis.call('XREVRANGE', stream, last, '-', 'COUNT', 10)
    for _, entry in ipairs(found) do
      local size = 0
      for _, text in ipairs(entry[2]) do
        size = size + #text
      end
      entries, bytes, last = entries + 1, bytes + in_memory(size), '(' .. entry[1]
    end
  until #found < 10 or bytes >= max_bytes
  return bytes / math.max(1, entries)
end

local function close_part(to)
  local is_unknown = string.sub(to.parts, 1, 1) == '?'
  local parts, counted, held = {}, 0, 0
  for entries, bytes in string.gmatch(to.parts .. ' ' .. integer(to.entries) .. ' ' .. integer(to.bytes), '(%d+) (%d+)') do
    if tonumber(entries) > 0 then
      parts[#parts + 1] = {entries = tonumber(entries), bytes = tonumber(bytes)}
      counted, held = counted + entries, held + bytes
    end
  end

  local bound = to.max_bytes * (1 - 1 / parts_of_bound)

  -- MEMORY USAGE includes what groups keep of unacknowledged entries, even of trimmed ones. No entry may be trimmed for that, so
  -- if there are any, the entries themselves are measured. That takes most of a second for a hundred thousand of them, so it happens
  -- once, when the ledger was lost or other clients have written.
  local mean
  local function measure(left)
    local used = redis.call('MEMORY', 'USAGE', to.stream, 'SAMPLES', 0) or 0
    if used <= bound or not (mean or has_pending(to.stream)) then
      return used
    end
    mean = mean or mean_of_entries(to.stream, 2 * bound)
    return math.min(used, mean * left)
  end

  -- Takes the oldest entries off the count, each with the mean of its part.
  local function forget(count)
    while count > 0 and parts[1] do
      local part = parts[1]
      local gone = math.min(count, part.entries)
      local bytes = part.bytes * gone / part.entries
      part.entries, part.bytes = part.entries - gone, part.bytes - bytes
      count, held = count - gone, held - bytes
      if part.entries == 0 then
        table.remove(parts, 1)
        is_unknown = false
      end
    end
  end

  local left = redis.call('XLEN', to.stream)
  if counted > left and left >= tonumber(to.max_entries) then
    forget(counted - left) -- XADD trimmed them
  elseif counted > left and has_pending(to.stream) then
    forget(counted - left) -- consumers delete what they have read: mostly the oldest
  elseif counted ~= left then
    held = measure(left)
    is_unknown = not mean
    parts = {{entries = left, bytes = held}}
  end

  local rounds = 0
  while held > bound and left > 1 and rounds < 24 do
    local oldest = parts[1]
    local gone = math.min(left - 1, oldest.entries, math.ceil((held - bound) * oldest.entries / oldest.bytes))
    redis.call('XTRIM', to.stream, 'MAXLEN', integer(left - gone))
    left = left - gone
    forget(gone)
    if is_unknown then -- the mean was a guess; what the newer parts hold is known
      local newer = held - oldest.bytes
      oldest.bytes = math.max(1, measure(left) - newer)
      is_unknown = not mean
      held, rounds = newer + oldest.bytes, rounds + 1
    end
  end

  for at, part in ipairs(parts) do
    parts[at] = integer(part.entries) .. ' ' .. integer(part.bytes)
  end
  to.entries, to.bytes, to.parts = 0, 0, (is_unknown and '?' or '') .. table.concat(parts, ' ')
end

local function add(to, bytes, ...)
  redis.call('XADD', to.stream, 'MAXLEN', '~', to.max_entries, '*', ...)
  to.entries, to.bytes, to.added = to.entries + 1, to.bytes + in_memory(bytes), to.added + 1
  if to.bytes * parts_of_bound >= to.max_bytes then
    close_part(to)
  end
end

local function write_ledger(to)
  if to.is_new then
    close_part(to)
  end
  redis.call('SET', to.ledger, string.format('%.0f %.0f;', to.entries, to.bytes) .. to.parts)
end

local answers, counts, records, refs, gone = {}, {}, {}, {}, {}

local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

-- What the ids stand for: read at once, and kept up to date below, as two duplicates may be completed in one call.
local asked, known = {results_ledger}, {}
local event_bytes, has_dead_letters = 0, false
for at = 11, #ARGV, 9 do
  local event, is_dead, digest = ARGV[at + 2], ARGV[at + 4] == '1', ARGV[at + 5]
  if digest ~= '' then
    local id_key = id_prefix .. digest
    asked[#asked + 1] = id_key
    asked[#asked + 1] = id_key .. ':other'
  end
  if event ~= '' then
    event_bytes = event_bytes + in_memory(#event)
    has_dead_letters = has_dead_letters or is_dead
  end
end
if has_dead_letters then
  asked[#asked + 1] = dead_ledger
end
for at, value in ipairs(redis.call('MGET', unpack(asked))) do
  known[asked[at]] = value
end
open_ledger(to_results, known[results_ledger], event_bytes)
if has_dead_letters then
  open_ledger(to_dead, known[dead_ledger], dead_bytes) -- as if they filled it: their sizes are not known yet
end

local function keep(key, meaning)
  known[key] = meaning
  redis.call('SET', key, meaning, 'PX', dedup_ttl_ms)
end

for at = 11, #ARGV, 9 do
  local ref, lease_token, event, outcome = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local is_dead, digest, fingerprint = ARGV[at + 4] == '1', ARGV[at + 5], ARGV[at + 6]
  local is_dry_run, has_own_id = ARGV[at + 7] == '1', ARGV[at + 8] == '1'
  local record, id_key, ended = record_prefix .. ref, id_prefix .. digest, 'ended ' .. fingerprint
  local other_key = id_key .. ':other'
  local end_key = (is_dry_run or fingerprint == '') and other_key or id_key
  local meaning = known[id_key] or ''
  local has_ended = string.sub(meaning, 1, 6) == 'ended '
  local answer = 0
  if not gone[ref] and redis.pcall('HGET', record, 'lease_token') == lease_token then
    if event == '' or (fingerprint ~= '' and known[end_key] == ended) then
      answer = redis.call('MGET', end_key .. ':unlocked')[1] or ''
      count('deduplicated')
    elseif fingerprint ~= '' and has_ended and meaning ~= ended then
      answer = 3
    elseif not has_own_id and (has_ended or known[other_key]) then
      answer = 2
    else
      answer = 1
      add(to_results, #event, 'event', event)
      if is_dead then
        local message = redis.call('HGET', record, 'raw') or ''
        if outcome == 'rejected' then -- any other is a job, and one that is replayed needs its whole message
          message = string.sub(message, 1, message_bytes)
        end
        add(to_dead, #event + #queue + #message, 'event', event, 'queue', queue, 'message', message)
      end
      redis.call('PUBLISH', channel, event)
      if digest ~= '' then
        keep(end_key, ended)
        if outcome ~= 'locked' then -- in a key beside it, so that `ended` can be compared whole
          keep(end_key .. ':unlocked', outcome)
        end
        local claimed = is_dry_run and 'claimed ' .. fingerprint
        if claimed and (meaning == '' or meaning == claimed) then -- while the id stands for this conversation
          keep(id_key, claimed)
        end
      end
      count('finished')
      count('outcome:' .. outcome)
    end
    if answer ~= 2 and answer ~= 3 then
      gone[ref] = true
      records[#records + 1] = record
      refs[#refs + 1] = ref
    end
  end
  answers[#answers + 1] = answer
end

if #refs > 0 then
  redis.call('DEL', unpack(records))
  redis.call('ZREM', leases, unpack(refs))
end
if to_results.added > 0 then
  write_ledger(to_results)
end
if has_dead_letters and to_dead.added > 0 then
  write_ledger(to_dead)
end
for name, times in pairs(counts) do
  redis.pcall('HINCRBY', counters, name, times)
end
return answers
