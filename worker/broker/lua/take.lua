-- take: lease ready jobs to a worker, oldest first; requeued jobs go before new ones, retries only in part.
-- KEYS  1 requeued   2 suspects   3 arrived   4 leases   5 counters   6 maintenance   7 draining   8 pause   9 rate   10 limit
--       11 retries   12 deadlines   13 controls   14 delayed   15.. the priority lists, highest priority first
-- ARGV  1 record prefix   2 lease token   3 jobs wanted   4 bytes wanted, about   5 lease in milliseconds
--       6 worker   7 jobs this worker holds   8 milliseconds it may take to drain its slots
--       9 bytes of the largest message   10 bytes kept of a larger one
--       11 microseconds between two calls of the fleet (0: no rate limit)   12 microseconds a burst may be ahead
--       13 microseconds a burst may be ahead of the limit that the API's refusals set
--       14 which new jobs: oldest | newest   15 1: this take is for a breaker's probe
--       16 retries that may go before new jobs   17 retries at most
--       18 calls answered since the last take   19 calls failed since then
--       20 permits without a call to give back, a tenth of a second old at most
--       21 milliseconds between two probes of the fleet   22 version of the limit that this worker knows
--       23 jobs that it passes over at most, because it finds no record of them that it can read
-- Returns {state, server time in milliseconds, milliseconds to wait, fleet, job ...},
--       fleet being {version, epoch, rate, answered, failed, milliseconds of pause left, state of the limit where its version is news,
--       version of the operators' controls, milliseconds that the clock of ages is behind},
--       a job {ref, raw, size, first taken, attempts, crashes, 1 if it is a retry, progress, age offset}, or of one that is new {ref, raw}
--       state  jobs | empty | alone (one suspect: run nothing beside it) | drain (finish what you hold: a suspect waits)
--              | paused (an operator or the API asked the fleet to wait) | limited (no permit, or another worker probes just now)
--              | more (it passed over as many jobs as it may; there may be others behind them, so ask again)
-- Crash: all or nothing. Not to be repeated blindly: jobs of a lost answer come back when their lease is over.

local requeued, suspects, arrived, leases, counters, maintenance, draining, pause, rate, limit, retries, deadlines,
  controls, delayed =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14]
local first_priority_list = 15
local record_prefix, lease_token = ARGV[1], ARGV[2]
local wanted, wanted_bytes, lease_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local worker, held, drain_ms = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local max_message_bytes, kept = tonumber(ARGV[9]), tonumber(ARGV[10])
local interval_us, burst_us, limit_burst_us = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local which_new, is_probe = ARGV[14], ARGV[15] == '1'
local retries_first, max_retries = tonumber(ARGV[16]), tonumber(ARGV[17])
local answered, failed, unused = tonumber(ARGV[18]), tonumber(ARGV[19]), tonumber(ARGV[20])
local probe_gap_ms, known_version, max_passed = tonumber(ARGV[21]), ARGV[22], tonumber(ARGV[23])

require_type(arrived, 'list')
require_type(leases, 'zset')
require_type(counters, 'hash')
require_type(maintenance, 'hash')
require_type(KEYS[first_priority_list], 'list')
require_permission('EXISTS', suspects)
require_permission('HSET', record_prefix, '', '')
require_permission('RPOP', arrived)
require_permission('LPOP', arrived)
require_permission('ZADD', leases, 0, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('HINCRBY', maintenance, '', 1)
require_permission('HSET', maintenance, '', '')
require_permission('PTTL', pause)
require_permission('GET', rate)
require_permission('SET', rate, '')
require_permission('HGET', limit, '')
require_fleet(limit, controls)
-- Mostly there are only new jobs of the first priority. One EXISTS for all the other keys is cheaper than a TYPE and a read for each,
-- which a job that comes alone would have to pay for. The pause, the rate and the limit are obeyed in any case, below. Deadlines exist
-- only for jobs that are ready again.
local is_plain =
  redis.call('EXISTS', requeued, suspects, draining, pause, rate, retries, deadlines, unpack(KEYS, first_priority_list + 1)) == 0
if not is_plain then
  require_type(requeued, 'list')
  require_type(suspects, 'list')
  require_type(draining, 'string')
  require_type(pause, 'string')
  require_type(rate, 'string')
  require_type(retries, 'list')
  require_type(deadlines, 'zset')
  require_type(delayed, 'zset')
  for list = first_priority_list + 1, #KEYS do
    require_type(KEYS[list], 'list')
  end
  require_permission('HMGET', record_prefix, '')
  require_permission('LPOP', requeued)
  require_permission('LPOP', retries)
  require_permission('ZREM', deadlines, '')
  require_permission('ZADD', delayed, 0, '')
  require_permission('GET', draining)
  require_permission('SET', draining, '')
  require_permission('DEL', draining)
end

local now = now_ms()
local lease_end, first_ms = integer(now + lease_ms), integer(now)
local jobs, held_until, bytes, fresh, vanished, passed = {}, {}, 0, 0, 0, 0
local taken_beside = {} -- new jobs that are not from the old end of the first list, see sample.lua
local fleet = read_fleet(limit, pause, controls, known_version, answered, failed)

local function hold(ref, raw)
  held_until[#held_until + 1] = lease_end
  held_until[#held_until + 1] = ref
  bytes = bytes + #raw
end

local came_back = {}
local function hold_requeued(ref)
  came_back[#came_back + 1] = ref
  local record, is_newer_layout = read_record(record_prefix .. ref, now)
  if not record then
    passed = passed + 1
    if is_newer_layout then
      redis.call('ZADD', delayed, integer(now + set_aside_ms), ref)
    else
      vanished = vanished + 1 -- the record was deleted or overwritten; there is no job left to run
    end
    return
  end
  redis.call('HSET', record_prefix .. ref, 'lease_token', lease_token)
  hold(ref, record[1])
  jobs[#jobs + 1] = {ref, unpack(record)}
end

-- Record names must be unique even if a proxy sends this call twice with the same token, else the second would overwrite jobs. So they
-- include a counter of the server; if that was overwritten with text, the server's time.
local names
local function new_ref()
  if not names then
    local number = redis.pcall('HINCRBY', maintenance, 'takes', 1)
    if type(number) ~= 'number' then
      local time = redis.call('TIME')
      number = time[1] .. time[2]
    end
    names = lease_token .. '.' .. number .. '.'
  end
  return names .. fresh
end

-- A new job's age is 0 on the clock of ages, which is behind.
local new_offset = fleet[9] == '0' and '0' or '-' .. fleet[9]

-- New records omit attempts and crashes (0) and size (that of the raw bytes), to save memory.
local function hold_new(raw)
  fresh = fresh + 1
  local size, ref = #raw, new_ref()
  if size > max_message_bytes then
    raw = string.sub(raw, 1, kept)
    redis.call('HSET', record_prefix .. ref, 'raw', raw, 'size', size, 'first', first_ms, 'lease_token', lease_token)
    jobs[#jobs + 1] = {ref, raw, tostring(size), first_ms, '0', '0', '', '', new_offset}
  else
    redis.call('HSET', record_prefix .. ref, 'raw', raw, 'first', first_ms, 'lease_token', lease_token)
    jobs[#jobs + 1] = {ref, raw}
  end
  if new_offset ~= '0' then
    redis.call('HSET', record_prefix .. ref, 'offset', new_offset)
  end
  hold(ref, raw)
end

local function answer(state, wait_ms)
  if #jobs > 0 then
    redis.call('ZADD', leases, unpack(held_until))
  end
  if #came_back > 0 then
    redis.call('ZREM', deadlines, unpack(came_back))
  end
  if fresh > 0 then
    redis.pcall('HINCRBY', counters, 'taken', fresh)
  end
  for name, count in pairs(taken_beside) do
    redis.pcall('HINCRBY', maintenance, name, count)
  end
  if vanished > 0 then
    redis.pcall('HINCRBY', counters, 'vanished', vanished)
  end
  return {state, first_ms, integer(wait_ms or 0), fleet, unpack(jobs)}
end

-- The limit from the API's refusals applies if it is lower than the configured one. It is never below one call in twenty seconds.
local max_interval_us = 20000000
local limit_rate = tonumber(fleet[3])
if limit_rate > 0 then
  local limit_us = math.min(math.ceil(1000000 / limit_rate), max_interval_us)
  if limit_us > interval_us then
    interval_us, burst_us = limit_us, limit_burst_us
  end
end

-- The rate limit is a generic cell rate algorithm in the server's time: a permit each `interval_us`, the next one at `free_at`, and
-- any of them a burst too early. https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm
local now_us, free_at
if interval_us > 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
  -- A burst is whole permits: a fraction would only move two calls closer together that have to be a second apart.
  burst_us = math.floor(burst_us / interval_us) * interval_us
  free_at = tonumber(string.match(redis.call('GET', rate) or '', '^%d+$')) or 0
  -- No permit can have been given for a later time than this. A later time comes from a clock that was set back, or from an earlier,
  -- slower limit; waiting for it could stop the fleet for hours.
  local latest = now_us + burst_us + interval_us + 1000000
  if free_at < now_us or free_at > latest then
    free_at = now_us
  end
end

local function set_free_at(time_us)
  free_at = time_us
  redis.call('SET', rate, integer(free_at), 'PX', integer(math.ceil((free_at - now_us) / 1000) + 1000))
end

-- A permit without a call is given back at once, but no further back than now. The caller gives back only permits that are a tenth of a
-- second old at most, so no second has more than a tenth more calls by that: with the burst, less than a fifth too many.
if interval_us > 0 and unused > 0 and free_at > now_us then
  set_free_at(math.max(now_us, free_at - unused * interval_us))
end

local paused_ms = tonumber(fleet[6])
if paused_ms > 0 then
  return answer('paused', paused_ms)
end

-- While the API is down, the whole fleet sends a few probes a second. After a probe that made no call the next one need not wait.
if is_probe and unused == 0 then
  local wait_ms = (tonumber(redis.call('HGET', limit, 'probe_at')) or 0) - now
  if wait_ms > 0 and wait_ms <= probe_gap_ms then
    return answer('limited', wait_ms)
  end
end

if interval_us > 0 then
  local permits = math.floor((now_us + burst_us - free_at) / interval_us) + 1
  if permits < 1 then
    -- Come back when half a burst is free: that costs no throughput, and workers do not ask for every single permit.
    return answer('limited', math.ceil((free_at - burst_us / 2 - now_us) / 1000))
  end
  wanted = math.min(wanted, permits)
end

-- Each job taken uses a permit.
local function use_permits()
  if interval_us > 0 and #jobs > 0 then
    set_free_at(free_at + #jobs * interval_us)
  end
  if is_probe and #jobs > 0 then
    redis.call('HSET', limit, 'probe_at', integer(now + probe_gap_ms))
  end
end

if not is_plain and redis.call('EXISTS', suspects) == 1 then
  if held == 0 then
    hold_requeued(redis.call('LPOP', suspects))
    redis.call('DEL', draining)
    if #jobs > 0 then
      use_permits()
      return answer('alone')
    end
  else
    -- One worker drains its slots for the suspect, and the others go on, so that a suspect neither starves nor stops the fleet.
    redis.call('SET', draining, worker, 'NX', 'PX', integer(drain_ms))
    if redis.call('GET', draining) == worker then
      return answer('drain')
    end
  end
end

-- A deletion by key pattern can make whole lists of jobs vanish: no call goes through all of them.
local function is_full()
  return #jobs >= wanted or bytes >= wanted_bytes or passed >= max_passed
end

local function take_requeued()
  while not is_plain and not is_full() do
    local ref = redis.call('LPOP', requeued)
    if not ref then
      break
    end
    hold_requeued(ref)
  end
end

local retried = 0
local function take_retries(bound)
  while not is_plain and retried < bound and not is_full() do
    local ref = redis.call('LPOP', retries)
    if not ref then
      break
    end
    retried = retried + 1
    hold_requeued(ref)
  end
end

-- Producers push to the left: the oldest message is popped from the right.
local function take_new()
  local list = 3
  while not is_full() do
    local raw = redis.call(which_new == 'newest' and 'LPOP' or 'RPOP', KEYS[list])
    if raw then
      hold_new(raw)
      if which_new == 'newest' or list > first_priority_list then
        local name = which_new == 'newest' and 'taken_newest' or 'taken_' .. list - first_priority_list
        taken_beside[name] = (taken_beside[name] or 0) + 1
      end
    elseif list == #KEYS or (is_plain and list == first_priority_list) then
      redis.call('HSET', maintenance, 'empty_at', integer(now))
      break
    else
      list = list == 3 and first_priority_list or list + 1
    end
  end
end

if is_probe then
  take_new()
  take_requeued()
  take_retries(wanted)
else
  take_requeued()
  take_retries(retries_first)
  take_new()
  take_retries(max_retries)
end

use_permits()
if passed >= max_passed then
  return answer('more')
end
return answer(#jobs > 0 and 'jobs' or 'empty')
