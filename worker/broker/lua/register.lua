-- register: note that a worker lives, and its settings; return the workers with other settings.
-- KEYS  1 workers   2 queues that workers took from
-- ARGV  1 worker   2 digest of its settings (empty: it leaves)   3 description: JSON with its queues
--       4 milliseconds after which a worker expires   5 workers returned at most   6 queues kept at most
-- Returns {worker, description, ...} of those with another digest
-- Crash: all or nothing; repeating it is harmless.

local workers, queues = KEYS[1], KEYS[2]
local worker, digest, description, ttl_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local max_others, queues_kept = tonumber(ARGV[5]), tonumber(ARGV[6])

require_type(workers, 'hash')
require_type(queues, 'zset')
require_permission('HGETALL', workers)
require_permission('HDEL', workers, '')
require_permission('HSET', workers, '', '')
require_permission('PEXPIRE', workers, 1)
require_permission('ZADD', queues, 0, '')
require_permission('ZRANGE', queues, 0, 0)
require_permission('ZREM', queues, '')

local now, answers, taken_from = now_ms(), {}, {}
if digest ~= '' then
  taken_from = cjson.decode(description).queues
end
if digest == '' then
  redis.call('HDEL', workers, worker)
else
  redis.call('HSET', workers, worker, integer(now) .. ' ' .. digest .. ' ' .. description)
  redis.call('PEXPIRE', workers, ttl_ms)
  for _, queue in ipairs(taken_from) do
    redis.call('ZADD', queues, integer(now), queue)
  end
  for _, queue in ipairs(redis.call('ZRANGE', queues, 0, -queues_kept - 1)) do
    redis.call('ZREM', queues, queue)
  end
end

local found = redis.call('HGETALL', workers)
for at = 1, #found, 2 do
  local at_ms, other_digest, text = string.match(found[at + 1], '^(%d+) (%S+) (.*)$')
  if not natural(at_ms) or math.abs(now - natural(at_ms)) > ttl_ms then
    redis.call('HDEL', workers, found[at])
  elseif digest ~= '' and other_digest ~= digest and #answers < 2 * max_others then
    answers[#answers + 1] = found[at]
    answers[#answers + 1] = text
  end
end
return answers
