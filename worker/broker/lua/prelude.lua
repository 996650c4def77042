-- prelude: stands before every move. Time, records, and the checks that make a move all or nothing.
-- Redis does not roll a script back, so whatever can fail is asked here, before the first write. Counters alone may fail: they are
-- raised with pcall, for a total that somebody overwrote with a word must not cost an answer.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Numbers go back to Redis as whole decimals: Lua would write a time in milliseconds as 1.7e+12.
local function whole(number)
  return string.format('%.0f', number)
end

-- A job's record as {raw, size, first taken, calls, crashes}; nil if somebody deleted or overwrote it. A number that somebody took
-- out of it is mended: one maimed record would otherwise stop every move that meets it, for all jobs.
local function read_record(key, now)
  local found = redis.pcall('HMGET', key, 'raw', 'size', 'first', 'calls', 'crashes')
  local raw = found[1]
  if not raw then
    return nil
  end
  local record = {raw, #raw, now, 0, 0}
  for at = 2, #record do
    record[at] = string.match(found[at] or '', '^%d+$') or whole(record[at])
  end
  return record
end

-- Ends the script, unchanged, if a key holds something else than the move is about to write.
local function expect(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    error({err = 'WRONGTYPE key "' .. key .. '" holds a ' .. found .. ' where lock-worker keeps a ' .. kind})
  end
end

-- Ends the script, unchanged, if the ACL of our user would refuse a command half way through.
local function may(...)
  if not redis.acl_check_cmd(...) then
    local command, key = ...
    error({err = 'NOPERM the ACL user of lock-worker may not run ' .. command .. ' on "' .. key .. '"'})
  end
end
