-- release_held: make jobs ready whose hold is released, or over. The time that they were held does not count for their age.
-- KEYS  1 held   2 controls   3 requeued   4 retries   5 suspects   6 deadlines
-- ARGV  1 record prefix   2 crashes that make a suspect   3 jobs at most   4 milliseconds that a job may live (0: for ever)
--       5 holds to look at, at most
-- Returns the number of jobs that are ready now
-- Crash: all or nothing; repeating it is harmless.

local held, controls, requeued, retries, suspects, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record_prefix, suspicious, max_jobs, max_age_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local max_holds = tonumber(ARGV[5])

require_type(held, 'zset')
require_type(controls, 'hash')
require_type(requeued, 'list')
require_type(retries, 'list')
require_type(suspects, 'list')
require_type(deadlines, 'zset')
require_permission('ZRANGE', held, 0, 0)
require_permission('ZREM', held, '')
require_permission('HMGET', controls, '')
require_permission('HGET', controls, '')
require_permission('RPUSH', requeued, '')
require_permission('RPUSH', retries, '')
require_permission('RPUSH', suspects, '')
require_permission('ZADD', deadlines, 0, '')
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now, moved = now_ms(), 0
local _, _, behind_ms = read_controls(controls, now)

local function make_ready(ref)
  local deadline, crashes, retry = leave_hold(record_prefix .. ref, now - behind_ms, max_age_ms)
  if crashes >= suspicious then
    redis.call('RPUSH', suspects, ref)
  else
    redis.call('RPUSH', retry == '1' and retries or requeued, ref)
  end
  if max_age_ms > 0 then
    redis.call('ZADD', deadlines, integer(deadline), ref)
  end
end

-- Members are `<digest of the hold>:<ref>`, in the order of their texts: those of one hold are neighbours. ';' comes behind ':'.
local from = '-'
for _ = 1, max_holds do
  local first = redis.call('ZRANGE', held, from, '+', 'BYLEX', 'LIMIT', 0, 1)[1]
  if not first or moved >= max_jobs then
    break
  end
  local hold = string.match(first, '^[^:]*')
  if not is_hold_in_force(controls, hold, now) then
    for _, member in ipairs(redis.call('ZRANGE', held, '[' .. first, '(' .. hold .. ';', 'BYLEX', 'LIMIT', 0, max_jobs - moved)) do
      redis.call('ZREM', held, member)
      make_ready(string.sub(member, #hold + 2))
      moved = moved + 1
    end
  end
  from = '(' .. hold .. ';'
end
return moved
