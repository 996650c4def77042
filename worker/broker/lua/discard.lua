-- discard: delete dead letters, and note who did it and why.
-- KEYS  1 dead stream   2 control stream
-- ARGV  1 event for the control stream   2 events that the stream keeps, about   then for each job: entry of the dead stream
-- Returns the number of dead letters that were there
-- Crash: all or nothing; repeating it is harmless, but for a second event.

local dead, stream = KEYS[1], KEYS[2]
local event, max_events = ARGV[1], ARGV[2]

require_type(dead, 'stream')
require_type(stream, 'stream')
require_permission('XDEL', dead, '0-1')
require_permission('XADD', stream, '*', '', '')

local deleted = 0
for at = 3, #ARGV do
  deleted = deleted + redis.call('XDEL', dead, ARGV[at])
end
redis.call('XADD', stream, 'MAXLEN', '~', max_events, '*', 'event', event)
return deleted
