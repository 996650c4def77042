-- take: jobs from the ready lists into flight, oldest first; what comes back goes before what is new.
-- KEYS  1 again   2 suspects   3 arrived   4 leases   5 counters   6 upkeep   7 draining   8.. the stock lists, first priority first
-- ARGV  1 record prefix   2 lease token   3 jobs wanted   4 bytes wanted, about   5 lease in milliseconds
--       6 worker   7 jobs this worker holds   8 milliseconds it may take to empty its hands
--       9 bytes of the largest message   10 bytes kept of a larger one
-- Returns {state, server time in milliseconds, job ...}, a job being {ref, raw, size, first taken, calls, crashes}
--       state  jobs | empty | alone (one suspect: run nothing beside it) | drain (finish what you hold: a suspect waits)
-- Crash: all or nothing. Not to be repeated blindly: jobs of a lost answer come back when their lease is over.

local again, suspects, arrived, leases, counters, upkeep, draining =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local record_prefix, token = ARGV[1], ARGV[2]
local wanted, wanted_bytes, lease_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local worker, held, drain_ms = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local largest, kept = tonumber(ARGV[9]), tonumber(ARGV[10])

expect(again, 'list')
expect(suspects, 'list')
expect(arrived, 'list')
expect(leases, 'zset')
expect(counters, 'hash')
expect(upkeep, 'hash')
expect(draining, 'string')
for list = 8, #KEYS do
  expect(KEYS[list], 'list')
end
may('HMGET', record_prefix, '')
may('HSET', record_prefix, '', '')
may('LPOP', again)
may('RPOP', arrived)
may('EXISTS', record_prefix)
may('ZADD', leases, 0, '')
may('HINCRBY', counters, '', 1)
may('HSET', upkeep, '', '')
may('GET', draining)
may('SET', draining, '')
may('DEL', draining)

local now = now_ms()
local lease_end = whole(now + lease_ms)
local jobs, bytes, fresh, vanished, named = {}, 0, 0, 0, 0

local function hold_again(ref)
  local record = read_record(record_prefix .. ref, now)
  if not record then
    vanished = vanished + 1 -- somebody deleted or overwrote the record; there is no job left to run
    return
  end
  redis.call('HSET', record_prefix .. ref, 'token', token)
  redis.call('ZADD', leases, lease_end, ref)
  bytes = bytes + #record[1]
  jobs[#jobs + 1] = {ref, unpack(record)}
end

-- A name that no record has: a take that was sent twice (by a proxy; no client of ours does it) must not write over a job.
local function new_ref()
  local ref
  repeat
    named = named + 1
    ref = token .. '.' .. named
  until redis.call('EXISTS', record_prefix .. ref) == 0
  return ref
end

local function hold_new(raw)
  local size = #raw
  if size > largest then
    raw = string.sub(raw, 1, kept)
  end
  fresh = fresh + 1
  local ref = new_ref()
  redis.call('HSET', record_prefix .. ref,
    'raw', raw, 'size', size, 'first', whole(now), 'calls', 0, 'crashes', 0, 'token', token)
  redis.call('ZADD', leases, lease_end, ref)
  bytes = bytes + #raw
  jobs[#jobs + 1] = {ref, raw, tostring(size), whole(now), '0', '0'}
end

local function answer(state)
  if fresh > 0 then
    redis.pcall('HINCRBY', counters, 'taken', fresh)
  end
  if vanished > 0 then
    redis.pcall('HINCRBY', counters, 'vanished', vanished)
  end
  return {state, whole(now), unpack(jobs)}
end

if redis.call('EXISTS', suspects) == 1 then
  if held == 0 then
    hold_again(redis.call('LPOP', suspects))
    redis.call('DEL', draining)
    if #jobs > 0 then
      return answer('alone')
    end
  else
    -- One worker empties its hands for the suspect; the others go on, so that a suspect neither starves nor stops the fleet.
    redis.call('SET', draining, worker, 'NX', 'PX', whole(drain_ms))
    if redis.call('GET', draining) == worker then
      return answer('drain')
    end
  end
end

while #jobs < wanted and bytes < wanted_bytes do
  local ref = redis.call('LPOP', again)
  if not ref then
    break
  end
  hold_again(ref)
end

local list = 3
while #jobs < wanted and bytes < wanted_bytes do
  local raw = redis.call('RPOP', KEYS[list])
  if raw then
    hold_new(raw)
  elseif list == #KEYS then
    redis.call('HSET', upkeep, 'empty_at', whole(now))
    break
  else
    list = list == 3 and 8 or list + 1
  end
end

return answer(#jobs > 0 and 'jobs' or 'empty')
