-- note_layout: note the layout of records that a worker of the queue writes, and the worker's version; a newer note stays.
-- KEYS  1 maintenance
-- ARGV  1 version of the worker
-- Returns 1 if it is noted, 0 if a newer layout stays noted
-- Crash: all or nothing; repeating it is harmless.

local maintenance, version = KEYS[1], ARGV[1]

require_type(maintenance, 'hash')
require_permission('HGET', maintenance, '')
require_permission('HSET', maintenance, '', '')

local noted = redis.call('HGET', maintenance, 'layout')
if noted and is_newer(string.match(noted, '^%d+')) then
  return 0
end
redis.call('HSET', maintenance, 'layout', layout .. ' ' .. version)
return 1
