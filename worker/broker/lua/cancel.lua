-- cancel: remember job ids whose jobs are not to be called any more, before they are taken or after.
-- KEYS  1 controls   2 cancelled (a mark: some job id is remembered)   3 control stream
-- ARGV  1 prefix of the keys of cancelled ids   2 what is remembered of each: JSON   3 milliseconds to remember it
--       4 event for the control stream (empty: none)   5 events that the stream keeps, about
--       6 1: only ids that are not remembered yet, as several workers may ask for the same   then for each job: the digest of its id
-- Returns the version of the controls
-- Crash: all or nothing; repeating it is harmless, but for a second event.

local controls, mark, stream = KEYS[1], KEYS[2], KEYS[3]
local prefix, text, ttl_ms, event, max_events, is_new_only = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'

require_type(controls, 'hash')
require_type(mark, 'string')
require_type(stream, 'stream')
require_permission('HMGET', controls, '')
require_permission('HSET', controls, '', '')
require_permission('SET', mark, '')
require_permission('SET', prefix, '')
require_permission('PTTL', mark)
require_permission('XADD', stream, '*', '', '')

local now = now_ms()
local known_version, remembered = read_controls(controls, now), 0
for at = 7, #ARGV do
  if not is_new_only then
    redis.call('SET', prefix .. ARGV[at], text, 'PX', ttl_ms)
    remembered = remembered + 1
  elseif redis.call('SET', prefix .. ARGV[at], text, 'NX', 'PX', ttl_ms) then
    remembered = remembered + 1
  end
end
if is_new_only and remembered == 0 then
  return integer(known_version)
end
local version = math.max(known_version + 1, now)
redis.call('SET', mark, '', 'PX', integer(math.max(tonumber(ttl_ms), redis.call('PTTL', mark))))
redis.call('HSET', controls, 'version', integer(version))
if event ~= '' then
  redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', event)
end
return integer(version)
