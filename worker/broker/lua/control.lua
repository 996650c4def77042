-- control: carry out what an operator, or a rule's limit, asks of the fleet, and note it in the control stream.
-- KEYS  1 controls   2 pause   3 control stream
-- ARGV  1 action: pause | resume | set | remove   2 field to set or to remove: `hold <digest>` or `cancel <digest>` (else empty)
--       3 what the field, or the pause, says: JSON   4 time in milliseconds until which it holds (0: until it is ended)
--       5 event for the control stream (empty: none)   6 events that the stream keeps, about   7 fields at most
--       8 what the field must say before (empty: it must not be there; *: anything)
-- Returns {version of the controls, 1 done | 0 there was nothing to end, or the field says something else | -1 there are too many fields}
-- Crash: all or nothing; repeating it is harmless, but for a second event.

local controls, pause, stream = KEYS[1], KEYS[2], KEYS[3]
local action, field, text, until_ms, event = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local max_events, max_fields, expected = ARGV[6], tonumber(ARGV[7]), ARGV[8]

require_type(controls, 'hash')
require_type(pause, 'string')
require_type(stream, 'stream')
require_permission('HMGET', controls, '')
require_permission('HSET', controls, '', '')
require_permission('HDEL', controls, '')
require_permission('HGET', controls, '')
require_permission('HGETALL', controls)
require_permission('HEXISTS', controls, '')
require_permission('HLEN', controls)
require_permission('DEL', pause)
require_permission('EXISTS', pause)
require_permission('XADD', stream, '*', '', '')

local now = now_ms()
local version, left, behind_ms = read_controls(controls, now)
local done = 1

-- Deletes the holds and cancels that are over, so that they do not fill the controls.
local function drop_what_is_over()
  local found = redis.call('HGETALL', controls)
  for at = 1, #found, 2 do
    local is_json, what = pcall(cjson.decode, found[at + 1])
    local until_of_it = is_json and type(what) == 'table' and tonumber(what['until_ms']) or 0
    if string.find(found[at], '^%l+ %x+$') and until_of_it > 0 and until_of_it <= now then
      redis.call('HDEL', controls, found[at])
    end
  end
end

if field ~= '' and expected ~= '*' and (redis.call('HGET', controls, field) or '') ~= expected then
  return {integer(version), 0}
end
if action == 'pause' then
  redis.call('HSET', controls, 'paused_at', integer(now), 'paused_until', integer(until_ms), 'paused_total', integer(behind_ms), 'pause', text)
elseif action == 'resume' then
  if left == 0 and redis.call('EXISTS', pause) == 0 then
    done = 0
  end
  redis.call('HSET', controls, 'paused_total', integer(behind_ms))
  redis.call('HDEL', controls, 'paused_at', 'paused_until', 'pause')
  redis.call('DEL', pause)
elseif action == 'set' then
  drop_what_is_over()
  if redis.call('HEXISTS', controls, field) == 0 and redis.call('HLEN', controls) >= max_fields then
    return {integer(version), -1}
  end
  redis.call('HSET', controls, field, text)
else
  done = redis.call('HDEL', controls, field)
end
if done == 1 then
  -- The time, so that no version comes twice, even if a client deletes the controls.
  version = math.max(version + 1, now)
  redis.call('HSET', controls, 'version', integer(version))
  if event ~= '' then
    redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', event)
  end
end
return {integer(version), done}
