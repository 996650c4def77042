-- state: read a queue, and the flow control and the workers of its fleet, at one moment; it changes nothing.
-- KEYS  1 arrived   2 requeued   3 retries   4 suspects   5 delayed   6 leases   7 counters   8 maintenance   9 samples   10 arrivals
--       11 pause   12 rate   13 limit   14 workers   15 controls   16 held   17.. the priority lists, first priority first
-- ARGV  none
-- Returns {server time in milliseconds, {key, type that it has, ...} of keys with another type, lengths of the priority lists and of the
--       keys 1 to 4, delayed jobs that are not due, those that are, time when the first is due or an empty text, jobs in flight,
--       {counter, value, ...}, {field, value, ...} of maintenance, {sample, ...}, {list, arrivals, ...},
--       milliseconds of pause left, why it pauses, until when permits are given (us), rate, state of the limit, {worker, description, ...},
--       {field, text, ...} of the operators' controls, milliseconds of their pause left, jobs held, {digest of a hold, its jobs, ...}}
-- Crash: nothing to lose; repeating it is harmless.

local arrived, requeued, retries, suspects, delayed, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local counters, maintenance, samples, arrivals = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local pause, rate, limit, workers, controls, held = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local first_priority_list = 17
local others = {}

local function is_there(key, kind)
  local found = redis.call('TYPE', key).ok
  if found == kind then
    return true
  end
  if found ~= 'none' then
    others[#others + 1] = key
    others[#others + 1] = found
  end
  return false
end

-- Reads a key, or returns the default if it is not there or of another type.
local function read(key, kind, default, command, ...)
  return is_there(key, kind) and redis.call(command, key, ...) or default
end

local now = now_ms()
local lengths = {}
for list = first_priority_list, #KEYS do
  lengths[#lengths + 1] = read(KEYS[list], 'list', 0, 'LLEN')
end
for _, list in ipairs({arrived, requeued, retries, suspects}) do
  lengths[#lengths + 1] = read(list, 'list', 0, 'LLEN')
end
local waiting, due, first_due = 0, 0, {}
if is_there(delayed, 'zset') then
  due = redis.call('ZCOUNT', delayed, '-inf', integer(now))
  waiting = redis.call('ZCARD', delayed) - due
  first_due = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
end
local in_flight = read(leases, 'zset', 0, 'ZCARD')
local totals, maintained = read(counters, 'hash', {}, 'HGETALL'), read(maintenance, 'hash', {}, 'HGETALL')
local kept, arrived_since = read(samples, 'list', {}, 'LRANGE', 0, -1), read(arrivals, 'hash', {}, 'HGETALL')
local why, paused_ms = read(pause, 'string', '', 'GET'), 0
if redis.call('EXISTS', pause) == 1 then
  paused_ms = redis.call('PTTL', pause)
end
local free_at = read(rate, 'string', '', 'GET')
local limited = read(limit, 'hash', {}, 'HMGET', 'rate', 'state')
local registered = read(workers, 'hash', {}, 'HGETALL')
local asked, held_jobs, by_hold = read(controls, 'hash', {}, 'HGETALL'), read(held, 'zset', 0, 'ZCARD'), {}
for at = 1, held_jobs > 0 and #asked or 0, 2 do
  local hold = string.match(asked[at], '^hold (%x+)$')
  if hold then
    by_hold[#by_hold + 1] = hold
    by_hold[#by_hold + 1] = redis.call('ZLEXCOUNT', held, '[' .. hold .. ':', '(' .. hold .. ';')
  end
end
local _, operators_ms = read_controls(controls, now)
return {
  integer(now), others, lengths, waiting, due, first_due[2] or '', in_flight, totals, maintained, kept, arrived_since,
  paused_ms, why, free_at, limited[1] or '', limited[2] or '', registered, asked,
  operators_ms, held_jobs, by_hold,
}
