-- delay: put jobs in flight aside, to be taken again not before a moment.
-- KEYS  1 leases   2 delayed   3 counters
-- ARGV  1 record prefix   then for each job: ref, lease token, milliseconds from now, calls made so far,
--       1 if it is a retry from now on (empty: as before), moment in milliseconds at which it is too old (0: by its first take),
--       progress (empty: as before)
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
for at = 2, #ARGV, 7 do
  local ref, token, delay_ms, calls = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), ARGV[at + 3]
  local retry, deadline_ms, progress = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6]
  local record = record_prefix .. ref
  if redis.pcall('HGET', record, 'token') == token then
    local due = now + delay_ms
    local fields = {'token', '', 'calls', calls}
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
      fields[#fields + 1] = whole(deadline_ms)
      due = math.max(now, math.min(due, deadline_ms)) -- it ends then, and must not sleep through it
    end
    redis.call('HSET', record, unpack(fields))
    redis.call('ZREM', leases, ref)
    redis.call('ZADD', delayed, whole(due), ref)
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
