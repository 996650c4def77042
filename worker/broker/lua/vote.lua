-- vote: a worker tells for all to read which of its breakers are open, and since when.
-- KEYS  1 breakers
-- ARGV  1 worker   2 what to tell (empty: none is open)   3 milliseconds after which it counts no more
-- Returns the number of workers that tell something
-- Crash: all or nothing; repeating it is harmless.

local breakers = KEYS[1]
local worker, told, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

require_type(breakers, 'hash')
require_permission('HGETALL', breakers)
require_permission('HDEL', breakers, '')
require_permission('HSET', breakers, '', '')
require_permission('PEXPIRE', breakers, 1)

local now = now_ms()
if told == '' then
  redis.call('HDEL', breakers, worker)
else
  redis.call('HSET', breakers, worker, integer(now) .. ' ' .. told)
end
redis.call('PEXPIRE', breakers, ttl_ms)
local votes, count = redis.call('HGETALL', breakers), 0
for at = 1, #votes, 2 do
  local at_ms = natural(string.match(votes[at + 1], '^%d+'))
  if at_ms and math.abs(now - at_ms) <= ttl_ms then
    count = count + 1
  else
    redis.call('HDEL', breakers, votes[at])
  end
end
return count
