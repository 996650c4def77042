-- expire: lease to the caller the jobs that are ready again and too old; it completes them. So they end even while no job may be taken.
-- KEYS  1 deadlines   2 requeued   3 retries   4 suspects   5 leases   6 controls
-- ARGV  1 record prefix   2 jobs at most   3 bytes at most, about   4 lease token   5 lease in milliseconds
--       6 crashes that make a suspect   7 entries of the lists to look through, about
-- Returns {server time in milliseconds, job ...}, a job as in take
-- Crash: all or nothing. Not to be repeated blindly: jobs of a lost answer come back when their lease is over.

local deadlines, requeued, retries, suspects, leases, controls = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local record_prefix, max_jobs, max_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease_token, lease_ms = ARGV[4], tonumber(ARGV[5])
local suspicious, max_read = tonumber(ARGV[6]), tonumber(ARGV[7])

require_type(deadlines, 'zset')
require_type(requeued, 'list')
require_type(retries, 'list')
require_type(suspects, 'list')
require_type(leases, 'zset')
require_type(controls, 'hash')
require_permission('ZRANGE', deadlines, 0, 0)
require_permission('ZREM', deadlines, '')
require_permission('ZADD', deadlines, 0, '')
require_permission('LPOS', requeued, '')
require_permission('LLEN', requeued)
require_permission('LREM', requeued, 1, '')
require_permission('LPOS', retries, '')
require_permission('LLEN', retries)
require_permission('LREM', retries, 1, '')
require_permission('LPOS', suspects, '')
require_permission('LLEN', suspects)
require_permission('LREM', suspects, 1, '')
require_permission('ZADD', leases, 0, '')
require_permission('HGET', record_prefix, '')
require_permission('HMGET', record_prefix, '')
require_permission('HMGET', controls, '')
require_permission('HSET', record_prefix, '', '')

local now, jobs, bytes = now_ms(), {}, 0
local _, _, behind_ms = read_controls(controls, now)

-- A ready job is in the list that its record says, mostly near the head. It may be in another list, because workers of the previous
-- version know no retries. The server reads a list up to the job, so the entries read bound the time of one call.
local read = 0
local function leaves_its_list(ref, record)
  local lists = {requeued, retries, suspects}
  if tonumber(record[5]) >= suspicious then
    lists = {suspects, retries, requeued}
  elseif record[6] == '1' then
    lists = {retries, requeued, suspects}
  end
  for _, list in ipairs(lists) do
    local place = redis.call('LPOS', list, ref)
    read = read + (place or redis.call('LLEN', list))
    if place then
      redis.call('LREM', list, 1, ref)
      return true
    end
  end
  return false
end

for _, ref in ipairs(redis.call('ZRANGE', deadlines, '-inf', integer(now - behind_ms), 'BYSCORE', 'LIMIT', 0, max_jobs)) do
  if bytes >= max_bytes or read >= max_read then
    break
  end
  local name = record_prefix .. ref
  local record, is_newer_layout = read_record(name, now)
  if is_newer_layout then
    -- It keeps a deadline, for a worker that can read it, but a later one: it must not stand before the others.
    redis.call('ZADD', deadlines, integer(now - behind_ms + set_aside_ms), ref)
  else
    redis.call('ZREM', deadlines, ref)
  end
  -- A job in flight is in no list.
  if record and redis.call('HGET', name, 'lease_token') == '' and leaves_its_list(ref, record) then
    redis.call('HSET', name, 'lease_token', lease_token)
    redis.call('ZADD', leases, integer(now + lease_ms), ref)
    jobs[#jobs + 1] = {ref, unpack(record)}
    bytes = bytes + #record[1]
  end
end
return {integer(now), unpack(jobs)}
