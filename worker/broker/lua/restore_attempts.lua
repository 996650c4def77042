-- restore_attempts: lower the attempts of waiting jobs by those that an outage cost them. A job in flight keeps its count.
-- KEYS  1 delayed (where such jobs wait)
-- ARGV  1 record prefix   then for each job: ref, attempts to subtract
-- Returns the number of jobs whose count changed
-- Crash: all or nothing. Not to be repeated: each call subtracts.

local record_prefix = ARGV[1]

require_type(KEYS[1], 'zset')
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local changed = 0
for at = 2, #ARGV, 2 do
  local record = record_prefix .. ARGV[at]
  local found = redis.pcall('HMGET', record, 'lease_token', 'attempts', 'layout')
  local attempts = natural(found[2]) or 0
  if found[1] == '' and attempts > 0 and not is_newer(found[3]) then
    redis.call('HSET', record, 'attempts', integer(math.max(0, attempts - tonumber(ARGV[at + 1]))))
    changed = changed + 1
  end
end
return changed
