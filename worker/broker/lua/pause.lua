-- pause: nobody in the fleet takes a job for a while, because the API asked for it.
-- KEYS  1 pause
-- ARGV  1 milliseconds
-- Returns the milliseconds that the pause now lasts: a longer one stays
-- Crash: all or nothing; repeating it is harmless.

local pause, wanted_ms = KEYS[1], tonumber(ARGV[1])

expect(pause, 'string')
may('PTTL', pause)
may('SET', pause, '')

local left_ms = math.max(0, redis.call('PTTL', pause))
if left_ms >= wanted_ms then
  return left_ms
end
redis.call('SET', pause, 'the API answered Retry-After', 'PX', wanted_ms)
return wanted_ms
