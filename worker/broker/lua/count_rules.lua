-- count_rules: count the locks that rules ask for, and hold each rule that asks for more than its limit.
-- KEYS  1 controls   2 control stream
-- ARGV  1 prefix of the rules' keys   2 events that the stream keeps, about   3 fields of the controls at most   4 record prefix
--       then for each rule: its digest, limit, milliseconds that the limit is for, digest of its hold, the hold: JSON, event,
--       its jobs: JSON array of refs and lease tokens in turn
-- Returns for each rule  0 it is not on hold | 1 it was before | 2 it is by this call | 3 it is not, for there are too many fields
-- Crash: all or nothing; repeating it is harmless: a job counts once, and its record says so.

local controls, stream = KEYS[1], KEYS[2]
local prefix, max_events, max_fields, record_prefix = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
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
require_permission('HMGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now, answers = now_ms(), {}

-- Marks jobs as counted; returns how many were not yet. A job that is another worker's by now is left to that one.
local function count_new(jobs)
  local new = 0
  for at = 1, #jobs, 2 do
    local record = record_prefix .. jobs[at]
    local found = redis.pcall('HMGET', record, 'lease_token', 'counted')
    if found[1] == jobs[at + 1] and not found[2] then
      redis.call('HSET', record, 'counted', '1')
      new = new + 1
    end
  end
  return new
end

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

for at = 5, #ARGV, 7 do
  local key, limit, window_ms, hold = prefix .. ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local more, answer = count_new(cjson.decode(ARGV[at + 6])), 0
  if is_hold_in_force(controls, hold, now) then
    answer = 1
  elseif more > 0 and sum_with(key, more, window_ms) > limit then
    answer = redis.call('HLEN', controls) < max_fields and 2 or 3
  end
  if answer == 2 then
    local version = read_controls(controls, now)
    redis.call('HSET', controls, 'hold ' .. hold, ARGV[at + 4], 'version', integer(math.max(version + 1, now)))
    redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', ARGV[at + 5])
    redis.call('DEL', key) -- once it is released, it is counted anew
  end
  answers[#answers + 1] = answer
end
return answers
