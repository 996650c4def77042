-- throttle: change the rate that the fleet keeps to, if no other worker changed it meanwhile, and start a pause.
-- KEYS  1 limit   2 pause   3 controls
-- ARGV  1 version that the change was made from   2 epoch (one more with each cut)   3 calls a second (0: no limit)
--       4 state of the limit (empty: the pause alone is asked for)   5 milliseconds of pause (0: none)   6 what to say of the pause
-- Returns {1 changed | 0 another worker changed it first (nothing changed), fleet}, the latter as in take
-- Crash: all or nothing; repeating it is harmless: the version has changed.

local limit, pause, controls = KEYS[1], KEYS[2], KEYS[3]
local version, epoch, rate, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local pause_ms, pause_text = tonumber(ARGV[5]), ARGV[6]

require_type(pause, 'string')
require_permission('PTTL', pause)
require_permission('SET', pause, '')
require_fleet(limit, controls)

local now, fleet = now_ms(), read_fleet(limit, pause, controls, '', 0, 0)
if state ~= '' then
  if fleet[1] ~= version then
    return {0, fleet}
  end
  -- The time, so that no version comes twice, even if a client deletes the limit: a worker may still know the version from before.
  local next_version = math.max(tonumber(version) + 1, now)
  redis.call('HSET', limit, 'version', integer(next_version), 'epoch', epoch, 'rate', rate, 'state', state)
end
if pause_ms > math.max(0, redis.call('PTTL', pause)) then -- a longer pause stays
  redis.call('SET', pause, pause_text, 'PX', integer(pause_ms))
end
return {1, read_fleet(limit, pause, controls, '', 0, 0)}
