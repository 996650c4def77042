-- release: make jobs in flight ready again, to be taken before all others and in the order given. No crash is counted.
-- KEYS  1 leases   2 requeued   3 suspects   4 counters   5 retries   6 deadlines
-- ARGV  1 record prefix   2 crashes that make a suspect   3 milliseconds that a job may live (0: for ever)
--       then for each job: ref, lease token, attempts made so far, progress (empty: as before)
-- Returns for each job  1 released | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a released job answers 0.

local leases, requeued, suspects, counters, retries, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record_prefix, suspicious, max_age_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

require_type(leases, 'zset')
require_type(requeued, 'list')
require_type(suspects, 'list')
require_type(counters, 'hash')
require_type(retries, 'list')
require_type(deadlines, 'zset')
require_permission('ZREM', leases, '')
require_permission('LPUSH', requeued, '')
require_permission('LPUSH', suspects, '')
require_permission('LPUSH', retries, '')
require_permission('ZADD', deadlines, 0, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now, answers, moved = now_ms(), {}, 0
for at = #ARGV - 3, 4, -4 do -- from the last to the first, as each is pushed before the previous one
  local ref, lease_token, attempts, progress = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local record = record_prefix .. ref
  local held = redis.pcall('HMGET', record, 'lease_token', 'crashes', 'retry', 'deadline', 'first', 'offset')
  local answer = 0
  if held[1] == lease_token then
    redis.call('HSET', record, 'lease_token', '', 'attempts', attempts)
    if progress ~= '' then
      redis.call('HSET', record, 'progress', progress)
    end
    redis.call('ZREM', leases, ref)
    if (tonumber(held[2]) or 0) >= suspicious then
      redis.call('LPUSH', suspects, ref)
    else
      redis.call('LPUSH', held[3] == '1' and retries or requeued, ref)
    end
    if max_age_ms > 0 then
      redis.call('ZADD', deadlines, integer(deadline_of(held[4], (natural(held[5]) or now) + age_offset(held[6]), max_age_ms)), ref)
    end
    moved, answer = moved + 1, 1
  end
  answers[at / 4] = answer
end
if moved > 0 then
  redis.pcall('HINCRBY', counters, 'released', moved)
end
return answers
