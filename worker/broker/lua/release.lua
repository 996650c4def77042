-- release: hand jobs in flight back, to be taken again at once, before all others and in the order given. No crash is counted.
-- KEYS  1 leases   2 again   3 suspects   4 counters
-- ARGV  1 record prefix   2 crashes that make a suspect   then for each job: ref, lease token, calls made so far
-- Returns for each job  1 released | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a job that is back answers 0.

local leases, again, suspects, counters = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix, suspicious = ARGV[1], tonumber(ARGV[2])

expect(leases, 'zset')
expect(again, 'list')
expect(suspects, 'list')
expect(counters, 'hash')
may('ZREM', leases, '')
may('LPUSH', again, '')
may('LPUSH', suspects, '')
may('HINCRBY', counters, '', 1)
may('HMGET', record_prefix, '')
may('HSET', record_prefix, '', '')

local answers, moved = {}, 0
for at = #ARGV - 2, 3, -3 do -- from the last to the first: each goes before the one behind it
  local ref, token, calls = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local record = record_prefix .. ref
  local held = redis.pcall('HMGET', record, 'token', 'crashes')
  if held[1] == token then
    redis.call('HSET', record, 'token', '', 'calls', calls)
    redis.call('ZREM', leases, ref)
    redis.call('LPUSH', (tonumber(held[2]) or 0) >= suspicious and suspects or again, ref)
    moved = moved + 1
    answers[at / 3] = 1
  else
    answers[at / 3] = 0
  end
end
if moved > 0 then
  redis.pcall('HINCRBY', counters, 'released', moved)
end
return answers
