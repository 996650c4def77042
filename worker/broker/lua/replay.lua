-- replay: turn dead letters into messages of new jobs, each only once, even if several operators replay it at the same time.
-- KEYS  1 dead stream   2 producers' list
-- ARGV  then for each job: entry of the dead stream, message
-- Returns for each job  1 sent | 0 the dead letter is gone (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a replayed dead letter answers 0.

local dead, list = KEYS[1], KEYS[2]

require_type(dead, 'stream')
require_type(list, 'list')
require_permission('XDEL', dead, '0-1')
require_permission('LPUSH', list, '')

local answers = {}
for at = 1, #ARGV, 2 do
  local sent = redis.call('XDEL', dead, ARGV[at])
  if sent == 1 then
    redis.call('LPUSH', list, ARGV[at + 1])
  end
  answers[#answers + 1] = sent
end
return answers
