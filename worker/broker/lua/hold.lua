-- hold: set jobs in flight aside, until the hold that matches them is released.
-- KEYS  1 leases   2 held   3 counters   4 controls
-- ARGV  1 record prefix   then for each job: ref, lease token, digest of the hold, attempts made so far, progress (empty: as before)
-- Returns for each job  1 set aside | 0 not ours any more (nothing changed)
-- Crash: all or nothing; repeating it is harmless: a held job answers 0.

local leases, held, counters, controls = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local record_prefix = ARGV[1]

require_type(leases, 'zset')
require_type(held, 'zset')
require_type(counters, 'hash')
require_type(controls, 'hash')
require_permission('ZREM', leases, '')
require_permission('ZADD', held, 0, '')
require_permission('HINCRBY', counters, '', 1)
require_permission('HMGET', controls, '')
require_permission('HGET', record_prefix, '')
require_permission('HSET', record_prefix, '', '')

local now, answers, moved = now_ms(), {}, 0
local _, _, behind_ms = read_controls(controls, now)
for at = 2, #ARGV, 5 do
  local ref, lease_token, hold, attempts, progress = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local record = record_prefix .. ref
  if redis.pcall('HGET', record, 'lease_token') == lease_token then
    redis.call('HSET', record, 'lease_token', '', 'attempts', attempts, 'held_at', integer(now - behind_ms))
    if progress ~= '' then
      redis.call('HSET', record, 'progress', progress)
    end
    redis.call('ZREM', leases, ref)
    redis.call('ZADD', held, 0, hold .. ':' .. ref)
    moved = moved + 1
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
if moved > 0 then
  redis.pcall('HINCRBY', counters, 'held', moved)
end
return answers
