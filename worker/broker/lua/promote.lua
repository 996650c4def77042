-- promote: make delayed jobs ready that are due: retries in a list of their own, all others before anything new.
-- KEYS  1 delayed   2 requeued   3 suspects   4 maintenance   5 retries   6 deadlines   7 limit   8 pause   9 controls
-- ARGV  1 record prefix   2 crashes that make a suspect   3 jobs at most   4 milliseconds between two rounds of the whole fleet
--       5 milliseconds that a job may live (0: for ever)   6 version of the limit that this worker knows
-- Returns {jobs promoted (-1: another worker was here just now), milliseconds to the next due job (-1: none),
--       milliseconds to the next job that is too old (-1: none), fleet, as in take,
--       due jobs that wait for a worker of a newer version}
-- Crash: all or nothing; repeating it is harmless.

local delayed, requeued, suspects, maintenance = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local retries, deadlines, limit, pause, controls = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local record_prefix, suspicious, max_jobs, between_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_age_ms, known_version = tonumber(ARGV[5]), ARGV[6]

require_type(delayed, 'zset')
require_type(requeued, 'list')
require_type(suspects, 'list')
require_type(maintenance, 'hash')
require_type(retries, 'list')
require_type(deadlines, 'zset')
require_type(pause, 'string')
require_permission('ZRANGE', delayed, 0, 0)
require_permission('ZREM', delayed, '')
require_permission('ZADD', delayed, 0, '')
require_permission('RPUSH', requeued, '')
require_permission('RPUSH', retries, '')
require_permission('RPUSH', suspects, '')
require_permission('ZRANGE', deadlines, 0, 0)
require_permission('ZADD', deadlines, 0, '')
require_permission('HGET', maintenance, '')
require_permission('HSET', maintenance, '', '')
require_permission('HMGET', record_prefix, '')
require_permission('PTTL', pause)
require_fleet(limit, controls)

local now, fleet = now_ms(), read_fleet(limit, pause, controls, known_version, 0, 0)
local age_now = now - tonumber(fleet[9])

local function ms_until_first(index, clock)
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, first[2] - clock) or -1
end

local function answer(count, set_aside)
  return {count, ms_until_first(delayed, now), ms_until_first(deadlines, age_now), fleet, set_aside}
end

local last = tonumber(redis.call('HGET', maintenance, 'promoted_at')) or 0
if last <= now and now - last < between_ms then
  return answer(-1, 0)
end
redis.call('HSET', maintenance, 'promoted_at', integer(now))

local set_aside = 0
local function make_ready(ref, found)
  redis.call('ZREM', delayed, ref)
  if (tonumber(found[1]) or 0) >= suspicious then
    redis.call('RPUSH', suspects, ref)
  else
    redis.call('RPUSH', found[2] == '1' and retries or requeued, ref)
  end
  if max_age_ms > 0 then
    redis.call('ZADD', deadlines, integer(deadline_of(found[3], age_now, max_age_ms)), ref)
  end
end

local due = redis.call('ZRANGE', delayed, '-inf', integer(now), 'BYSCORE', 'LIMIT', 0, max_jobs)
for _, ref in ipairs(due) do
  -- The record may have been overwritten.
  local found = redis.pcall('HMGET', record_prefix .. ref, 'crashes', 'retry', 'deadline', 'layout')
  if is_newer(found[4]) then
    redis.call('ZADD', delayed, integer(now + set_aside_ms), ref)
    set_aside = set_aside + 1
  else
    make_ready(ref, found)
  end
end
return answer(#due - set_aside, set_aside)
