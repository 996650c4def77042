-- unheard: a worker notes takes of its own whose answers it never heard. Nobody died on their jobs, which come back when the lease is
-- over: recover counts no crash for them. The note may come before the take itself, which may still be on its way to the server.
-- KEYS  1 unheard
-- ARGV  1 milliseconds that a note is kept   then for each job: lease token
-- Returns the number of notes
-- Crash: all or nothing; repeating it is harmless.

local unheard = KEYS[1]
local ttl_ms = tonumber(ARGV[1])

require_type(unheard, 'hash')
require_permission('HSET', unheard, '', '')
require_permission('HGETALL', unheard)
require_permission('HDEL', unheard, '')
require_permission('PEXPIRE', unheard, 1)

local now = now_ms()
for at = 2, #ARGV, 1 do
  redis.call('HSET', unheard, ARGV[at], integer(now))
end
redis.call('PEXPIRE', unheard, ttl_ms)
local notes, count = redis.call('HGETALL', unheard), 0
for at = 1, #notes, 2 do
  local noted_at = natural(notes[at + 1])
  if noted_at and math.abs(now - noted_at) <= ttl_ms then
    count = count + 1
  else
    redis.call('HDEL', unheard, notes[at])
  end
end
return count
