-- delay: put jobs in flight aside, to be taken again not before a moment.
-- KEYS  1 leases   2 delayed   3 counters
-- ARGV  1 record prefix   then for each job: ref, lease token, milliseconds from now, calls made so far
-- Returns for each job  1 delayed | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a job that is aside answers 0.

local leases, delayed, counters = KEYS[1], KEYS[2], KEYS[3]
local record_prefix = ARGV[1]

expect(leases, 'zset')
expect(delayed, 'zset')
expect(counters, 'hash')
may('ZREM', leases, '')
may('ZADD', delayed, 0, '')
may('HINCRBY', counters, '', 1)
may('HGET', record_prefix, '')
may('HSET', record_prefix, '', '')

local now, answers, moved = now_ms(), {}, 0
for at = 2, #ARGV, 4 do
  local ref, token, delay_ms, calls = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local record = record_prefix .. ref
  if redis.pcall('HGET', record, 'token') == token then
    redis.call('HSET', record, 'token', '', 'calls', calls)
    redis.call('ZREM', leases, ref)
    redis.call('ZADD', delayed, whole(now + delay_ms), ref)
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
