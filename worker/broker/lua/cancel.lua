-- cancel: remember job ids whose jobs are not to be called any more, before they are taken or after.
-- KEYS  1 controls   2 cancelled (a mark: some job id is remembered)   3 control stream
-- ARGV  1 prefix of the keys of cancelled ids   2 what is remembered of each: JSON   3 milliseconds to remember it
--       4 event for the control stream (empty: none)   5 events that the stream keeps, about   then for each job: the digest of its id
-- Returns the version of the controls
-- Crash: all or nothing; repeating it is harmless, but for a second event.

local controls, mark, stream = KEYS[1], KEYS[2], KEYS[3]
local prefix, text, ttl_ms, event, max_events = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

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
local version = math.max(read_controls(controls, now) + 1, now)
for at = 6, #ARGV do
  redis.call('SET', prefix .. ARGV[at], text, 'PX', ttl_ms)
end
redis.call('SET', mark, '', 'PX', integer(math.max(tonumber(ttl_ms), redis.call('PTTL', mark))))
redis.call('HSET', controls, 'version', integer(version))
if event ~= '' then
  redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', event)
end
return integer(version)
