-- report_breakers: show the operators which breakers of a worker are open, and since when.
-- KEYS  1 breakers
-- ARGV  1 worker   2 report (empty: none is open)   3 milliseconds after which it expires
-- Returns the number of workers with an open breaker
-- Crash: all or nothing; repeating it is harmless.

local breakers = KEYS[1]
local worker, report, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

require_type(breakers, 'hash')
require_permission('HGETALL', breakers)
require_permission('HDEL', breakers, '')
require_permission('HSET', breakers, '', '')
require_permission('PEXPIRE', breakers, 1)

local now = now_ms()
if report == '' then
  redis.call('HDEL', breakers, worker)
else
  redis.call('HSET', breakers, worker, integer(now) .. ' ' .. report)
end
redis.call('PEXPIRE', breakers, ttl_ms)
local reports, count = redis.call('HGETALL', breakers), 0
for at = 1, #reports, 2 do
  local at_ms = natural(string.match(reports[at + 1], '^%d+'))
  if at_ms and math.abs(now - at_ms) <= ttl_ms then
    count = count + 1
  else
    redis.call('HDEL', breakers, reports[at])
  end
end
return count
