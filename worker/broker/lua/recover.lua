-- recover: make jobs ready whose leases expired, because their workers died or stalled, and count a crash for each. No other move counts
-- crashes. A job with too many is leased to the caller, which completes it as poisoned. A job of a lost take (see lost_takes), which its
-- worker never received, gets no crash.
-- KEYS  1 leases   2 requeued   3 suspects   4 counters   5 maintenance   6 retries   7 deadlines   8 lost_takes
-- ARGV  1 record prefix   2 crashes that make a suspect   3 crashes that make a poisoned job   4 jobs at most
--       5 lease token for poisoned jobs   6 lease in milliseconds   7 milliseconds between two rounds of the whole fleet
--       8 a silence of this many milliseconds means that the server was away, not the workers
--       9 milliseconds the workers then have to renew their leases   10 bytes of poisoned jobs at most, about
--       11 milliseconds that a job may live (0: for ever)   12 jobs whose messages are returned for the log, at most
--       13 bytes of such a message at most
-- Returns {jobs recovered (-1: another worker was here just now; -2: the workers have time to renew their leases, and should),
--       server time in milliseconds, {lost worker, its jobs, ...}, {message ...}, poisoned job ...}, a job as in take
-- Crash: all or nothing. Not to be repeated blindly: poisoned jobs of a lost answer come back when their lease is over.

local leases, requeued, suspects, counters, maintenance, retries, deadlines, lost_takes =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local record_prefix, suspicious, poisonous, max_jobs = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_token, lease_ms = ARGV[5], tonumber(ARGV[6])
local between_ms, silence_ms, grace_ms = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local max_bytes, max_age_ms = tonumber(ARGV[10]), tonumber(ARGV[11])
local max_logged, max_logged_bytes = tonumber(ARGV[12]), tonumber(ARGV[13])

require_type(leases, 'zset')
require_type(requeued, 'list')
require_type(suspects, 'list')
require_type(counters, 'hash')
require_type(maintenance, 'hash')
require_type(retries, 'list')
require_type(deadlines, 'zset')
require_type(lost_takes, 'hash')
require_permission('HGET', lost_takes, '')
require_permission('ZREM', leases, '')
require_permission('RPUSH', requeued, '')
require_permission('RPUSH', suspects, '')
require_permission('RPUSH', retries, '')
require_permission('ZADD', deadlines, 0, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('ZRANGE', leases, 0, 0)
require_permission('ZADD', leases, 0, '')
require_permission('HGET', record_prefix, '')
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now = now_ms()
local seen = redis.call('HMGET', maintenance, 'recovered_at', 'awake_since')
local last, awake_since = tonumber(seen[1]) or 0, tonumber(seen[2]) or 0
if last <= now and now - last < between_ms then
  return {now - awake_since < grace_ms and -2 or -1, integer(now), {}, {}}
end
redis.call('HSET', maintenance, 'recovered_at', integer(now))
-- If the fleet was silent, or the server's clock was set, leases expired although no worker died: the workers get time to renew them.
if last > now or now - last > silence_ms then
  awake_since = now
  redis.call('HSET', maintenance, 'awake_since', integer(now))
end
if now - awake_since < grace_ms then
  return {-2, integer(now), {}, {}}
end

local recovered, poisoned, vanished, bytes, died = 0, {}, 0, 0, 0
local jobs_of, messages = {}, {}
local lapsed = redis.call('ZRANGE', leases, '-inf', integer(now), 'BYSCORE', 'LIMIT', 0, max_jobs)
for _, ref in ipairs(lapsed) do
  if bytes >= max_bytes then
    break
  end
  local name = record_prefix .. ref
  local record, is_newer_layout = read_record(name, now)
  if is_newer_layout then
    redis.call('ZADD', leases, integer(now + set_aside_ms), ref)
  elseif not record then
    redis.call('ZREM', leases, ref)
    vanished = vanished + 1 -- the record was deleted or overwritten; there is no job left to run
  else
    local old_lease_token = redis.call('HGET', name, 'lease_token') or ''
    local is_lost_take = redis.call('HGET', lost_takes, old_lease_token)
    local crashes = tonumber(record[5]) + (is_lost_take and 0 or 1)
    record[5] = tostring(crashes)
    died = died + (is_lost_take and 0 or 1)
    -- A worker's lease tokens are its name and a number.
    local worker = not is_lost_take and string.match(old_lease_token, '^([^ ]+)%.%d+$')
    if worker and #worker <= 100 then
      jobs_of[worker] = (jobs_of[worker] or 0) + 1
    end
    if #messages < max_logged and #record[1] <= max_logged_bytes then
      messages[#messages + 1] = record[1]
    end
    if crashes >= poisonous and not is_lost_take then
      redis.call('HSET', name, 'crashes', crashes, 'lease_token', lease_token)
      redis.call('ZADD', leases, integer(now + lease_ms), ref)
      poisoned[#poisoned + 1] = {ref, unpack(record)}
      bytes = bytes + #record[1]
    else
      redis.call('HSET', name, 'crashes', crashes, 'lease_token', '')
      redis.call('ZREM', leases, ref)
      if crashes >= suspicious then
        redis.call('RPUSH', suspects, ref)
      else
        redis.call('RPUSH', record[6] == '1' and retries or requeued, ref)
      end
      if max_age_ms > 0 then
        local deadline = deadline_of(redis.call('HGET', name, 'deadline'), record[3] + record[8], max_age_ms)
        redis.call('ZADD', deadlines, integer(deadline), ref)
      end
      recovered = recovered + 1
    end
  end
end
if died > 0 then
  redis.pcall('HINCRBY', counters, 'crashes', died)
end
if vanished > 0 then
  redis.pcall('HINCRBY', counters, 'vanished', vanished)
end

-- Several rounds may find the jobs of one worker. It counts once, as long as it is among the workers lost last.
local workers, lost, new = {}, redis.call('HGET', maintenance, 'lost') or ' ', 0
for worker, jobs in pairs(jobs_of) do
  workers[#workers + 1] = worker
  workers[#workers + 1] = jobs
  if not string.find(lost, ' ' .. worker .. ' ', 1, true) then
    lost = ' ' .. worker .. lost
    new = new + 1
  end
end
if new > 0 then
  redis.call('HSET', maintenance, 'lost', string.sub(lost, 1, 2000))
  redis.pcall('HINCRBY', counters, 'workers_lost', new)
end
return {recovered, integer(now), workers, messages, unpack(poisoned)}
