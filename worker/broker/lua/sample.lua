-- sample: keep the queue's totals of now, from which rates follow, and note from when on its oldest message can be.
-- KEYS  1 samples   2 arrivals   3 counters   4 maintenance   5 arrived   6.. the priority lists, first priority first
-- ARGV  1 milliseconds between two samples of the whole fleet   2 samples kept   3 milliseconds after which they expire
--       4 marks kept for each list
-- Returns 1, or 0: another worker was here just now
-- Crash: all or nothing; repeating it is harmless.

local samples, arrivals, counters, maintenance, arrived = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local between_ms, samples_kept, ttl_ms, marks_kept = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local first_priority_list = 6

require_type(samples, 'list')
require_type(arrivals, 'hash')
require_type(counters, 'hash')
require_type(maintenance, 'hash')
require_type(arrived, 'list')
for list = first_priority_list, #KEYS do
  require_type(KEYS[list], 'list')
end
require_permission('LINDEX', samples, 0)
require_permission('RPUSH', samples, '')
require_permission('LTRIM', samples, 0, 0)
require_permission('PEXPIRE', samples, 1)
require_permission('HGET', arrivals, '')
require_permission('HSET', arrivals, '', '')
require_permission('HGETALL', counters)
require_permission('HMGET', maintenance, '')
require_permission('LLEN', arrived)

local now = now_ms()
local last = natural(string.match(redis.call('LINDEX', samples, -1) or '', '^(%d+) '))
if last and last <= now and now - last < between_ms then
  return 0
end

local totals, flat = {}, redis.call('HGETALL', counters)
for at = 1, #flat, 2 do
  if natural(flat[at + 1]) then
    totals[flat[at]] = flat[at + 1]
  end
end
redis.call('RPUSH', samples, integer(now) .. ' ' .. cjson.encode(totals))
redis.call('LTRIM', samples, -samples_kept, -1)
redis.call('PEXPIRE', samples, ttl_ms)

-- A message has no time of its arrival. But producers push to one end and workers take from the other. So if by some time as many
-- messages had arrived as were taken until now, all of those are gone, and the oldest one left arrived later. A mark is such a time
-- with the arrivals until then: those taken from the old end and those still there. (Probes take from the new end while the API is in
-- doubt. Then there are fewer arrivals than before, as if those messages had never come, and the marks beyond are dropped.)
local takes = redis.call('HMGET', maintenance, 'taken_newest', 'taken_1', 'taken_2', 'taken_3')
local from_first = natural(totals.taken) or 0
for at = 1, 4 do
  takes[at] = natural(takes[at]) or 0
  from_first = from_first - takes[at]
end
takes[1] = from_first

for list = first_priority_list, #KEYS do
  local name = tostring(list - first_priority_list)
  local left, taken = redis.call('LLEN', KEYS[list]), takes[list - first_priority_list + 1] or 0
  if list == first_priority_list then
    left = left + redis.call('LLEN', arrived)
  end
  local text = redis.call('HGET', arrivals, name) or ''
  local oldest, marks = natural(string.match(text, '^%d+')), {}
  for at_ms, count in string.gmatch(text, ' (%d+):(%d+)') do
    marks[#marks + 1] = {natural(at_ms) or 0, natural(count) or 0}
  end
  if left == 0 then
    oldest, marks = now, {}
  else
    oldest = oldest or last or now
    while marks[1] and marks[1][2] <= taken do
      oldest = table.remove(marks, 1)[1]
    end
    local sum = taken + left
    while marks[#marks] and marks[#marks][2] >= sum do
      table.remove(marks)
    end
    marks[#marks + 1] = {now, sum}
    -- Every second one of the older half goes, so that the newer ones are the more exact.
    if #marks > marks_kept then
      for at = math.floor(#marks / 4) * 2, 2, -2 do
        table.remove(marks, at)
      end
    end
  end
  local parts = {integer(oldest)}
  for _, mark in ipairs(marks) do
    parts[#parts + 1] = integer(mark[1]) .. ':' .. integer(mark[2])
  end
  redis.call('HSET', arrivals, name, table.concat(parts, ' '))
end
return 1
