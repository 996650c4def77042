-- delay: let jobs in flight wait until a given time, before they become ready again.
-- KEYS  1 leases   2 delayed   3 counters   4 controls
-- ARGV  1 record prefix   then for each job: ref, lease token, milliseconds from now, attempts made so far,
--       1 if it is a retry from now on (empty: as before), its deadline on the clock of ages in milliseconds (0: by its first take),
--       progress (empty: as before)
-- Returns for each job  1 delayed | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a delayed job answers 0.

local leases, delayed, counters, controls = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix = ARGV[1]

require_type(leases, 'zset')
require_type(delayed, 'zset')
require_type(counters, 'hash')
require_type(controls, 'hash')
require_permission('ZREM', leases, '')
require_permission('ZADD', delayed, 0, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('HGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')
require_permission('HMGET', controls, '')

local now, answers, moved = now_ms(), {}, 0
local _, _, behind_ms = read_controls(controls, now)
for at = 2, #ARGV, 7 do
  local ref, lease_token, delay_ms, attempts = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local retry, deadline_ms, progress = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6]
  local record = record_prefix .. ref
  if redis.pcall('HGET', record, 'lease_token') == lease_token then
    local due = now + delay_ms
    local fields = {'lease_token', '', 'attempts', attempts}
    if retry ~= '' then
      fields[#fields + 1] = 'retry'
      fields[#fields + 1] = retry
    end
    if progress ~= '' then
      fields[#fields + 1] = 'progress'
      fields[#fields + 1] = progress
    end
    if deadline_ms > 0 then
      fields[#fields + 1] = 'deadline'
      fields[#fields + 1] = integer(deadline_ms)
      due = math.max(now, math.min(due, deadline_ms + behind_ms)) -- the job expires then, and must not wait longer
    end
    redis.call('HSET', record, unpack(fields))
    redis.call('ZREM', leases, ref)
    redis.call('ZADD', delayed, integer(due), ref)
    moved = moved + 1
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
if moved > 0 then
  redis.pcall('HINCRBY', counters, 'delayed', moved)
end
return answers
