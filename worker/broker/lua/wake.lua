-- wake: make delayed and held jobs ready now, because they are to be ended. One that is not ended after all goes on, and so the time that it
-- was held does not count for its age.
-- KEYS  1 delayed   2 held   3 requeued   4 suspects   5 deadlines   6 controls
-- ARGV  1 record prefix   2 crashes that make a suspect   3 milliseconds that a job may live (0: for ever)
--       then for each job: delayed | held, its member there, its ref
-- Returns the number of jobs that are ready now; the others were there no more
-- Crash: all or nothing; repeating it is harmless.

local delayed, held, requeued, suspects, deadlines, controls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record_prefix, suspicious, max_age_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

require_type(delayed, 'zset')
require_type(held, 'zset')
require_type(requeued, 'list')
require_type(suspects, 'list')
require_type(deadlines, 'zset')
require_type(controls, 'hash')
require_permission('ZREM', delayed, '')
require_permission('ZREM', held, '')
require_permission('RPUSH', requeued, '')
require_permission('RPUSH', suspects, '')
require_permission('ZADD', deadlines, 0, '')
require_permission('HMGET', controls, '')
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now, moved = now_ms(), 0
local _, _, behind_ms = read_controls(controls, now)
for at = 4, #ARGV, 3 do
  local is_held, ref = ARGV[at] == 'held', ARGV[at + 2]
  if redis.call('ZREM', is_held and held or delayed, ARGV[at + 1]) == 1 then
    local record, deadline, crashes = record_prefix .. ref, 0, 0
    if is_held then
      deadline, crashes = leave_hold(record, now - behind_ms, max_age_ms)
    else
      local found = redis.pcall('HMGET', record, 'crashes', 'deadline')
      deadline, crashes = deadline_of(found[2], now - behind_ms, max_age_ms), tonumber(found[1]) or 0
    end
    redis.call('RPUSH', crashes >= suspicious and suspects or requeued, ref)
    if max_age_ms > 0 then
      redis.call('ZADD', deadlines, integer(deadline), ref)
    end
    moved = moved + 1
  end
end
return moved
