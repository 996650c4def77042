-- release: hand jobs in flight back, to be taken again at once, before all others and in the order given. No crash is counted.
-- KEYS  1 leases   2 again   3 suspects   4 counters   5 retries   6 deadlines
-- ARGV  1 record prefix   2 crashes that make a suspect   3 milliseconds that a job may live (0: for ever)
--       then for each job: ref, lease token, calls made so far
-- Returns for each job  1 released | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a job that is back answers 0.

local leases, again, suspects, counters, retries, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record_prefix, suspicious, max_age_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

expect(leases, 'zset')
expect(again, 'list')
expect(suspects, 'list')
expect(counters, 'hash')
expect(retries, 'list')
expect(deadlines, 'zset')
may('ZREM', leases, '')
may('LPUSH', again, '')
may('LPUSH', suspects, '')
may('LPUSH', retries, '')
may('ZADD', deadlines, 0, '')
may('HINCRBY', counters, '', 1)
may('HMGET', record_prefix, '')
may('HSET', record_prefix, '', '')

local now, answers, moved = now_ms(), {}, 0
for at = #ARGV - 2, 4, -3 do -- from the last to the first: each goes before the one behind it
  local ref, token, calls = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local record = record_prefix .. ref
  local held = redis.pcall('HMGET', record, 'token', 'crashes', 'retry', 'deadline', 'first')
  local answer = 0
  if held[1] == token then
    redis.call('HSET', record, 'token', '', 'calls', calls)
    redis.call('ZREM', leases, ref)
    if (tonumber(held[2]) or 0) >= suspicious then
      redis.call('LPUSH', suspects, ref)
    else
      redis.call('LPUSH', held[3] == '1' and retries or again, ref)
    end
    if max_age_ms > 0 then
      redis.call('ZADD', deadlines, whole(deadline_of(held[4], natural(held[5]) or now, max_age_ms)), ref)
    end
    moved, answer = moved + 1, 1
  end
  answers[(at - 1) / 3] = answer
end
if moved > 0 then
  redis.pcall('HINCRBY', counters, 'released', moved)
end
return answers
