-- lost_takes: note a worker's takes whose answers were lost. No worker died on their jobs, which are recovered when their leases expire,
-- so recover counts no crash for them. The note may come before the take itself, which may still be on its way to the server.
-- KEYS  1 lost_takes
-- ARGV  1 milliseconds that a note is kept   then for each job: lease token
-- Returns the number of notes
-- Crash: all or nothing; repeating it is harmless.

local lost_takes = KEYS[1]
local ttl_ms = tonumber(ARGV[1])

require_type(lost_takes, 'hash')
require_permission('HSET', lost_takes, '', '')
require_permission('HGETALL', lost_takes)
require_permission('HDEL', lost_takes, '')
require_permission('PEXPIRE', lost_takes, 1)

local now = now_ms()
for at = 2, #ARGV, 1 do
  redis.call('HSET', lost_takes, ARGV[at], integer(now))
end
redis.call('PEXPIRE', lost_takes, ttl_ms)
local notes, count = redis.call('HGETALL', lost_takes), 0
for at = 1, #notes, 2 do
  local noted_at = natural(notes[at + 1])
  if noted_at and math.abs(now - noted_at) <= ttl_ms then
    count = count + 1
  else
    redis.call('HDEL', lost_takes, notes[at])
  end
end
return count
