-- promote: delayed jobs whose moment has come become ready again, before anything new.
-- KEYS  1 delayed   2 again   3 suspects   4 upkeep
-- ARGV  1 record prefix   2 crashes that make a suspect   3 jobs at most   4 milliseconds between two rounds of the whole fleet
-- Returns {jobs promoted (-1: another worker was here just now), milliseconds to the next due job (-1: none)}
-- Crash: all or nothing; repeating it is harmless.

local delayed, again, suspects, upkeep = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix, suspicious, at_most, between_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

expect(delayed, 'zset')
expect(again, 'list')
expect(suspects, 'list')
expect(upkeep, 'hash')
may('ZRANGE', delayed, 0, 0)
may('ZREM', delayed, '')
may('RPUSH', again, '')
may('RPUSH', suspects, '')
may('HSET', upkeep, '', '')
may('HGET', record_prefix, '')

local now = now_ms()

local function next_due()
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, first[2] - now) or -1
end

local last = tonumber(redis.call('HGET', upkeep, 'promoted_at')) or 0
if last <= now and now - last < between_ms then
  return {-1, next_due()}
end
redis.call('HSET', upkeep, 'promoted_at', whole(now))

local due = redis.call('ZRANGE', delayed, '-inf', whole(now), 'BYSCORE', 'LIMIT', 0, at_most)
for _, ref in ipairs(due) do
  local crashes = tonumber(redis.pcall('HGET', record_prefix .. ref, 'crashes')) or 0 -- whatever somebody made of the record
  redis.call('ZREM', delayed, ref)
  redis.call('RPUSH', crashes >= suspicious and suspects or again, ref)
end
return {#due, next_due()}
