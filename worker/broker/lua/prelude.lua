-- prelude: the code that every move begins with: the time, the records, and the checks that make a move all or nothing.
-- Redis does not roll a script back, so everything that can fail is checked here, before the first write. Only counters may fail: they
-- are raised with pcall: if a client overwrote a total with text, the move still completes and answers.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Writes a number as a whole decimal: Lua would write a time in milliseconds as 1.7e+12.
local function integer(number)
  return string.format('%.0f', number)
end

-- Reads a whole number as these scripts write it; nil for anything else: text, 'inf', '0x10', or too many digits for a count or a time.
local function natural(text)
  return text and #text <= 15 and tonumber(string.match(text, '^%d+$')) or nil
end

-- Reads a job's record as {raw, size, first taken, attempts, crashes, retry, progress}; nil if it was deleted or overwritten. A missing or
-- damaged number gets its default: else one damaged record would stop every move that reads it, for all jobs.
local function read_record(key, now)
  local found = redis.pcall('HMGET', key, 'raw', 'size', 'first', 'attempts', 'crashes', 'retry', 'progress')
  local raw = found[1]
  if not raw then
    return nil
  end
  local record = {raw, #raw, now, 0, 0}
  for at = 2, #record do
    record[at] = integer(natural(found[at]) or record[at])
  end
  record[6], record[7] = found[6] or '', found[7] or ''
  return record
end

-- The time at which a job that is ready again is too old, in milliseconds: by its record, or counted from `since`.
local function deadline_of(recorded, since, max_age_ms)
  return natural(recorded) or since + max_age_ms
end

-- Ends the script before any change if a key has another type than the move needs.
local function require_type(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    error({err = 'WRONGTYPE key "' .. key .. '" holds a ' .. found .. ' where lock-worker keeps a ' .. kind})
  end
end

local function forbid(command, key)
  error({err = 'NOPERM the ACL user of lock-worker may not run ' .. command .. ' on "' .. key .. '"'})
end

-- Ends the script before any change if the ACL of our user would refuse a command half way through.
local function require_permission(...)
  if not redis.acl_check_cmd(...) then
    forbid(...)
  end
end

-- Checks what read_fleet needs. A limit of another type is deleted and not an error, because it must not stop the fleet.
local function require_limit_permissions(limit)
  require_permission('DEL', limit)
  require_permission('HMGET', limit, '')
  require_permission('HSET', limit, '', '')
end

-- Adds this worker's counts to the fleet's flow control and returns it for the worker:
-- {version, epoch, rate, answered, failed, milliseconds of pause left, state where its version is not the known one}
local function read_fleet(limit, pause, known_version, answered, failed)
  local kind = redis.call('TYPE', limit).ok
  if kind ~= 'hash' and kind ~= 'none' then
    redis.call('DEL', limit)
  end
  local found = redis.call('HMGET', limit, 'version', 'epoch', 'rate', 'answered', 'failed', 'state')
  -- Anything that is not a plausible number counts as 0.
  local function sum(name, at, more)
    local total = integer((natural(found[at]) or 0) + more)
    if more > 0 then
      redis.call('HSET', limit, name, total)
    end
    return total
  end
  local version, epoch = integer(natural(found[1]) or 0), integer(natural(found[2]) or 0)
  local rate = #(found[3] or '') <= 20 and string.match(found[3] or '', '^%d+%.?%d*$') or '0'
  local state = version ~= known_version and found[6] or ''
  local paused_ms = integer(math.max(0, redis.call('PTTL', pause)))
  return {version, epoch, rate, sum('answered', 4, answered), sum('failed', 5, failed), paused_ms, state}
end
