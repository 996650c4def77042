-- renew: extend the leases of jobs in flight; also one that expired and was not recovered yet.
-- KEYS  1 leases
-- ARGV  1 record prefix   2 lease in milliseconds   then for each job: ref, lease token
-- Returns for each job  1 renewed | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless.

local leases = KEYS[1]
local record_prefix, lease_ms = ARGV[1], tonumber(ARGV[2])

require_type(leases, 'zset')
require_permission('ZADD', leases, 0, '')
require_permission('HGET', record_prefix, '')

local lease_end, answers = integer(now_ms() + lease_ms), {}
for at = 3, #ARGV, 2 do
  local ref, lease_token = ARGV[at], ARGV[at + 1]
  if redis.pcall('HGET', record_prefix .. ref, 'lease_token') == lease_token then
    redis.call('ZADD', leases, lease_end, ref)
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
