-- count_rules: count the locks that rules ask for, and hold each rule that asks for more than its limit.
-- KEYS  1 controls   2 control stream
-- ARGV  1 prefix of the rules' keys   2 events that the stream keeps, about   3 fields of the controls at most
--       then for each rule: its digest, jobs more, limit, milliseconds that the limit is for, digest of its hold, the hold: JSON, event
-- Returns for each rule  0 it is not on hold | 1 it was before | 2 it is by this call
-- Crash: all or nothing. Not to be repeated blindly: it would count the jobs twice.

local controls, stream = KEYS[1], KEYS[2]
local prefix, max_events, max_fields = ARGV[1], ARGV[2], tonumber(ARGV[3])
local parts = 10

require_type(controls, 'hash')
require_type(stream, 'stream')
require_permission('HMGET', controls, '')
require_permission('HGET', controls, '')
require_permission('HLEN', controls)
require_permission('HSET', controls, '', '')
require_permission('XADD', stream, '*', '', '')
require_permission('HGETALL', prefix)
require_permission('HDEL', prefix, '')
require_permission('HINCRBY', prefix, '', 1)
require_permission('PEXPIRE', prefix, 1)
require_permission('DEL', prefix)

local now, answers = now_ms(), {}

-- The window slides in tenths: jobs count for the limit's time, and up to a tenth of it longer.
local function sum_with(key, more, window_ms)
  if redis.call('TYPE', key).ok ~= 'hash' then
    redis.call('DEL', key)
  end
  local tenth_ms = window_ms / parts
  local this, sum = math.floor(now / tenth_ms), more
  local found = redis.call('HGETALL', key)
  for at = 1, #found, 2 do
    local tenth = natural(found[at])
    if tenth and tenth > this - parts - 1 and tenth <= this then
      sum = sum + (natural(found[at + 1]) or 0)
    else
      redis.call('HDEL', key, found[at])
    end
  end
  redis.call('HINCRBY', key, integer(this), more)
  redis.call('PEXPIRE', key, integer(window_ms + tenth_ms))
  return sum
end

for at = 4, #ARGV, 7 do
  local more, limit, window_ms = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local hold, answer = ARGV[at + 4], 0
  if is_hold_in_force(controls, hold, now) then
    answer = 1
  elseif sum_with(prefix .. ARGV[at], more, window_ms) > limit and redis.call('HLEN', controls) < max_fields then
    local version = read_controls(controls, now)
    redis.call('HSET', controls, 'hold ' .. hold, ARGV[at + 5], 'version', integer(math.max(version + 1, now)))
    redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', ARGV[at + 6])
    redis.call('DEL', prefix .. ARGV[at]) -- once it is released, it is counted anew
    answer = 2
  end
  answers[#answers + 1] = answer
end
return answers
