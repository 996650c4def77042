-- adopt: turn jobs that a stock worker took and did not acknowledge into messages of their queue again, to be taken next.
-- KEYS  1 unacked   2 unacked_index   3 producers' list
-- ARGV  then for each job: tag in unacked, message
-- Returns for each job  1 sent | 0 the tag is gone: acknowledged, or adopted by another call (nothing changed)
-- Crash: all or nothing; repeating it is harmless.

local unacked, index, list = KEYS[1], KEYS[2], KEYS[3]

require_type(unacked, 'hash')
require_type(index, 'zset')
require_type(list, 'list')
require_permission('HDEL', unacked, '')
require_permission('ZREM', index, '')
require_permission('RPUSH', list, '')

local answers = {}
for at = 1, #ARGV, 2 do
  local sent = redis.call('HDEL', unacked, ARGV[at])
  if sent == 1 then
    redis.call('ZREM', index, ARGV[at])
    redis.call('RPUSH', list, ARGV[at + 1])
  end
  answers[#answers + 1] = sent
end
return answers
