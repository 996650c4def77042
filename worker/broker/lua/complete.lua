-- complete: end jobs in flight. Publishing the event is the acknowledgement: there is no moment between the two.
-- KEYS  1 leases   2 counters   3 results stream   4 dead stream
-- ARGV  1 record prefix   2 id prefix   3 results channel   4 results kept   5 dead letters kept   6 milliseconds to remember an id
--       then for each job: ref, lease token, event (empty: a copy, dropped), outcome, 1 if it is a dead letter, digest of its id
--       (empty: not remembered), binding (empty: it names no conversation), 1 if it is a dry run, 1 if the event's id is not the job's
-- Returns for each job  1 published | 0 not ours any more (nothing changed)
--       | 2 the job's id names another event, 3 and stands for something else: end it with an id of its own (nothing changed)
--       | a text: dropped as a copy; the outcome of the first one if it ended without a lock, else empty
-- Crash: all or nothing; repeating it is harmless: a job that is gone answers 0.

local leases, counters, results, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix, id_prefix, channel = ARGV[1], ARGV[2], ARGV[3]
local results_kept, dead_kept, remember_ms = ARGV[4], ARGV[5], ARGV[6]

expect(leases, 'zset')
expect(counters, 'hash')
expect(results, 'stream')
expect(dead, 'stream')
may('ZREM', leases, '')
may('HINCRBY', counters, '', 1)
may('XADD', results, '*', '', '')
may('XADD', dead, '*', '', '')
may('PUBLISH', channel, '')
may('DEL', record_prefix)
may('SET', id_prefix, '')
may('MGET', id_prefix)
may('HGET', record_prefix, '')

local answers, counts, records, refs, gone = {}, {}, {}, {}, {}

local function count(name)
  counts[name] = (counts[name] or 0) + 1
end

-- What the ids stand for: asked for all at once, and kept up to date below, as two copies may end in one call.
local id_keys, known = {}, {}
for at = 7, #ARGV, 9 do
  if ARGV[at + 5] ~= '' then
    local id_key = id_prefix .. ARGV[at + 5]
    id_keys[#id_keys + 1] = id_key
    id_keys[#id_keys + 1] = id_key .. ':other'
  end
end
if #id_keys > 0 then
  for at, value in ipairs(redis.call('MGET', unpack(id_keys))) do
    known[id_keys[at]] = value
  end
end

local function remember(key, meaning)
  known[key] = meaning
  redis.call('SET', key, meaning, 'PX', remember_ms)
end

for at = 7, #ARGV, 9 do
  local ref, token, event, outcome = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local is_dead, digest, binding = ARGV[at + 4] == '1', ARGV[at + 5], ARGV[at + 6]
  local is_dry_run, has_own_id = ARGV[at + 7] == '1', ARGV[at + 8] == '1'
  local record, id_key, ended = record_prefix .. ref, id_prefix .. digest, 'ended ' .. binding
  local other_key = id_key .. ':other'
  local end_key = (is_dry_run or binding == '') and other_key or id_key
  local meaning = known[id_key] or ''
  local has_ended = string.sub(meaning, 1, 6) == 'ended '
  local answer = 0
  if not gone[ref] and redis.pcall('HGET', record, 'token') == token then
    if event == '' or (binding ~= '' and known[end_key] == ended) then
      answer = redis.call('MGET', end_key .. ':unlocked')[1] or ''
      count('deduplicated')
    elseif binding ~= '' and has_ended and meaning ~= ended then
      answer = 3
    elseif not has_own_id and (has_ended or known[other_key]) then
      answer = 2
    else
      answer = 1
      redis.call('XADD', results, 'MAXLEN', '~', results_kept, '*', 'event', event)
      if is_dead then
        redis.call('XADD', dead, 'MAXLEN', '~', dead_kept, '*', 'event', event, 'message', redis.call('HGET', record, 'raw') or '')
      end
      redis.call('PUBLISH', channel, event)
      if digest ~= '' then
        remember(end_key, ended)
        if outcome ~= 'locked' then -- beside the end, as workers of the version before know no other words for that
          remember(end_key .. ':unlocked', outcome)
        end
        local claimed = is_dry_run and 'claimed ' .. binding
        if claimed and (meaning == '' or meaning == claimed) then -- so long the id stands for this conversation
          remember(id_key, claimed)
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
for name, times in pairs(counts) do
  redis.pcall('HINCRBY', counters, name, times)
end
return answers
