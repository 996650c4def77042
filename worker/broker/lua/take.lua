-- take: jobs from the ready lists into flight, oldest first; what comes back goes before what is new.
-- KEYS  1 again   2 suspects   3 arrived   4 leases   5 counters   6 upkeep   7 draining   8 pause   9 rate
--       10.. the stock lists, first priority first
-- ARGV  1 record prefix   2 lease token   3 jobs wanted   4 bytes wanted, about   5 lease in milliseconds
--       6 worker   7 jobs this worker holds   8 milliseconds it may take to empty its hands
--       9 bytes of the largest message   10 bytes kept of a larger one
--       11 microseconds between two calls of the fleet (0: no rate limit)   12 microseconds a burst may be ahead
--       13 1 to take new jobs first (a breaker probes each time with another job)
-- Returns {state, server time in milliseconds, milliseconds to wait, job ...},
--       a job being {ref, raw, size, first taken, calls, crashes}, or of one that is new {ref, raw}
--       state  jobs | empty | alone (one suspect: run nothing beside it) | drain (finish what you hold: a suspect waits)
--              | paused (the API asked the fleet to wait) | limited (the rate limit is reached)
-- Crash: all or nothing. Not to be repeated blindly: jobs of a lost answer come back when their lease is over.

local again, suspects, arrived, leases, counters, upkeep, draining, pause, rate =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local first_stock = 10
local record_prefix, token = ARGV[1], ARGV[2]
local wanted, wanted_bytes, lease_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local worker, held, drain_ms = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local largest, kept = tonumber(ARGV[9]), tonumber(ARGV[10])
local interval_us, burst_us, is_new_first = tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[13] == '1'

expect(again, 'list')
expect(suspects, 'list')
expect(arrived, 'list')
expect(leases, 'zset')
expect(counters, 'hash')
expect(upkeep, 'hash')
expect(draining, 'string')
expect(pause, 'string')
expect(rate, 'string')
for list = first_stock, #KEYS do
  expect(KEYS[list], 'list')
end
may('HMGET', record_prefix, '')
may('HSET', record_prefix, '', '')
may('LPOP', again)
may('RPOP', arrived)
may('EXISTS', suspects)
may('ZADD', leases, 0, '')
may('HINCRBY', counters, '', 1)
may('HINCRBY', upkeep, '', 1)
may('HSET', upkeep, '', '')
may('GET', draining)
may('SET', draining, '')
may('DEL', draining)
may('PTTL', pause)
may('GET', rate)
may('SET', rate, '')

local now = now_ms()
local lease_end, first_ms = whole(now + lease_ms), whole(now)
local jobs, held_until, bytes, fresh, vanished = {}, {}, 0, 0, 0

local function hold(ref, raw)
  held_until[#held_until + 1] = lease_end
  held_until[#held_until + 1] = ref
  bytes = bytes + #raw
end

local function hold_again(ref)
  local record = read_record(record_prefix .. ref, now)
  if not record then
    vanished = vanished + 1 -- somebody deleted or overwrote the record; there is no job left to run
    return
  end
  redis.call('HSET', record_prefix .. ref, 'token', token)
  hold(ref, record[1])
  jobs[#jobs + 1] = {ref, unpack(record)}
end

-- Names that no record has: a take that was sent twice (by a proxy; no client of ours does it) must not write over a job. So
-- they hold a number of the server's own beside the token. Where somebody wrote a word in its place, the time stands for it.
local names
local function new_ref()
  if not names then
    local number = redis.pcall('HINCRBY', upkeep, 'takes', 1)
    if type(number) ~= 'number' then
      local time = redis.call('TIME')
      number = time[1] .. time[2]
    end
    names = token .. '.' .. number .. '.'
  end
  return names .. fresh
end

-- What is not in a record is 0, and its size that of the raw bytes.
local function hold_new(raw)
  fresh = fresh + 1
  local size, ref = #raw, new_ref()
  if size > largest then
    raw = string.sub(raw, 1, kept)
    redis.call('HSET', record_prefix .. ref, 'raw', raw, 'size', size, 'first', first_ms, 'token', token)
    jobs[#jobs + 1] = {ref, raw, tostring(size), first_ms, '0', '0'}
  else
    redis.call('HSET', record_prefix .. ref, 'raw', raw, 'first', first_ms, 'token', token)
    jobs[#jobs + 1] = {ref, raw}
  end
  hold(ref, raw)
end

local function answer(state, wait_ms)
  if #jobs > 0 then
    redis.call('ZADD', leases, unpack(held_until))
  end
  if fresh > 0 then
    redis.pcall('HINCRBY', counters, 'taken', fresh)
  end
  if vanished > 0 then
    redis.pcall('HINCRBY', counters, 'vanished', vanished)
  end
  return {state, first_ms, whole(wait_ms or 0), unpack(jobs)}
end

local paused_ms = redis.call('PTTL', pause)
if paused_ms > 0 then
  return answer('paused', paused_ms)
end

-- The rate limit is a generic cell rate algorithm in the server's time: a permit each `interval_us`, the next one at `free_at`, and
-- any of them a burst too early. https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
local now_us, free_at
if interval_us > 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
  -- A burst is whole permits: part of one would only bring two calls that are to be a second apart closer together.
  burst_us = math.floor(burst_us / interval_us) * interval_us
  free_at = tonumber(string.match(redis.call('GET', rate) or '', '^%d+$')) or 0
  -- Nobody is given permits for later than this. Such a moment comes from a clock that was set back or from a slower limit
  -- before this one; waiting for it could stop the fleet for hours.
  local latest = now_us + burst_us + interval_us + 1000000
  if free_at < now_us or free_at > latest then
    free_at = now_us
  end
  local permits = math.floor((now_us + burst_us - free_at) / interval_us) + 1
  if permits < 1 then
    -- Back when half a burst is free: nothing is lost by that, and a fleet does not come for every single permit.
    return answer('limited', math.ceil((free_at - burst_us / 2 - now_us) / 1000))
  end
  wanted = math.min(wanted, permits)
end

-- Each job taken uses a permit, though some may turn out to need no call: so the limit is never passed.
local function use_permits()
  if interval_us > 0 and #jobs > 0 then
    local taken_until = free_at + #jobs * interval_us
    redis.call('SET', rate, whole(taken_until), 'PX', whole(math.ceil((taken_until - now_us) / 1000) + 1000))
  end
end

if redis.call('EXISTS', suspects) == 1 then
  if held == 0 then
    hold_again(redis.call('LPOP', suspects))
    redis.call('DEL', draining)
    if #jobs > 0 then
      use_permits()
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

local function take_again()
  while #jobs < wanted and bytes < wanted_bytes do
    local ref = redis.call('LPOP', again)
    if not ref then
      break
    end
    hold_again(ref)
  end
end

local function take_new()
  local list = 3
  while #jobs < wanted and bytes < wanted_bytes do
    local raw = redis.call('RPOP', KEYS[list])
    if raw then
      hold_new(raw)
    elseif list == #KEYS then
      redis.call('HSET', upkeep, 'empty_at', whole(now))
      break
    else
      list = list == 3 and first_stock or list + 1
    end
  end
end

if is_new_first then
  take_new()
  take_again()
else
  take_again()
  take_new()
end

use_permits()
return answer(#jobs > 0 and 'jobs' or 'empty')
