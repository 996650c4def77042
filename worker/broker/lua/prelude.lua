-- prelude: the code that every move begins with: the time, the records, and the checks that make a move all or nothing.
-- Redis does not roll a script back, so everything that can fail is checked here, before the first write; and in a cluster no script
-- begins while records of its queue are on their way to another node, which it would take for deleted. Only counters may fail: they
-- are raised with pcall: if a client overwrote a total with text, the move still completes and answers.

-- The last key of each call never exists, and is no script's business: see `worker/broker/keys.py`.
KEYS[#KEYS] = nil

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

-- Reads the milliseconds that a job's age is behind the time since its first take, as a negative number, or ahead of it: 0 for any other text.
local function age_offset(text)
  return text and #text <= 16 and tonumber(string.match(text, '^%-?%d+$')) or 0
end

-- The newest layout of records that this version reads, as in keys.py. A record says its layout if it is another one than 1.
local layout = 1

-- After so many milliseconds another worker may try a job whose record is of a newer layout: a worker of that version takes it then.
local set_aside_ms = 10000

-- True if a record's field `layout` says that only newer workers can read it. Such a job is never changed, ended or dropped here.
local function is_newer(text)
  return text and (natural(text) or layout + 1) > layout
end

-- Reads a job's record as {raw, size, first taken, attempts, crashes, retry, progress, age offset}; nil if it was deleted or overwritten,
-- and nil, true if it is of a newer layout. A missing or damaged number gets its default: else one damaged record would stop every move that
-- reads it, for all jobs.
local function read_record(key, now)
  local found = redis.pcall('HMGET', key, 'raw', 'size', 'first', 'attempts', 'crashes', 'retry', 'progress', 'offset', 'layout')
  local raw = found[1]
  if is_newer(found[9]) then
    return nil, true
  end
  if not raw then
    return nil
  end
  local record = {raw, #raw, now, 0, 0}
  for at = 2, #record do
    record[at] = integer(natural(found[at]) or record[at])
  end
  record[6], record[7] = found[6] or '', found[7] or ''
  record[8] = integer(age_offset(found[8]))
  return record
end

-- While operators pause the fleet until they resume it, workers look again after this many milliseconds.
local open_pause_ms = 3600000

-- Reads the operators' controls: their version, the milliseconds of an operator's pause that are left (0: none), and the milliseconds of all
-- such pauses until now. A job's age does not count them: ages and deadlines are times on a clock that stands still in a pause, which is
-- this number behind the server's.
local function read_controls(controls, now)
  local found = redis.pcall('HMGET', controls, 'version', 'paused_at', 'paused_until', 'paused_total')
  local since, till, paused_ms = natural(found[2]), natural(found[3]) or 0, natural(found[4]) or 0
  local left = 0
  if since and till > 0 and till <= now then
    paused_ms = paused_ms + math.max(0, till - since)
  elseif since then
    paused_ms = paused_ms + math.max(0, now - since)
    left = till > 0 and till - now or open_pause_ms
  end
  return natural(found[1]) or 0, left, paused_ms
end

-- A hold is in force while the operators' controls have it and its time, if it has one, is not over.
local function is_hold_in_force(controls, hold, now)
  local is_json, found = pcall(cjson.decode, redis.call('HGET', controls, 'hold ' .. hold) or '')
  -- As `worker.message.controls` reads it: jobs that no worker holds must not stay set aside.
  if not is_json or type(found) ~= 'table' or type(found.selector) ~= 'table' then
    return false
  end
  local until_ms = tonumber(found.until_ms) or 0
  return type(found.by) == 'string' and type(found.reason) == 'string' and (until_ms == 0 or until_ms > now)
end

-- The deadline of a job that is ready again, on the clock of ages: by its record, or counted from `since`.
local function deadline_of(recorded, since, max_age_ms)
  return natural(recorded) or since + max_age_ms
end

-- Ends a job's time on hold, which does not count for its age. Returns its deadline on the clock of ages, which shows `age_now`, its crashes,
-- and 1 if it is a retry.
local function leave_hold(record, age_now, max_age_ms)
  local found = redis.pcall('HMGET', record, 'crashes', 'retry', 'deadline', 'held_at', 'first', 'offset', 'layout')
  if is_newer(found[7]) then
    return age_now + max_age_ms, 0, '' -- a take sets it aside
  end
  local held_ms = math.max(0, age_now - (natural(found[4]) or age_now))
  local offset, deadline = age_offset(found[6]) + held_ms, natural(found[3])
  deadline = deadline and deadline + held_ms
  if found[5] then -- the record is there
    redis.call('HSET', record, 'offset', integer(offset), 'held_at', '')
    if deadline then
      redis.call('HSET', record, 'deadline', integer(deadline))
    end
  end
  return deadline or (natural(found[5]) or age_now) + offset + max_age_ms, tonumber(found[1]) or 0, found[2]
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

-- Asks the server whether its ACL lets our user run a command. Some servers that speak the protocol cannot be asked: what they forbid,
-- they refuse in the middle of a move. The check of the server tells the operator so.
local is_permitted = redis.acl_check_cmd or function()
  return true
end

-- Ends the script before any change if the ACL of our user would refuse a command half way through.
local function require_permission(...)
  if not is_permitted(...) then
    forbid(...)
  end
end

-- Checks what read_fleet needs. A limit of another type is deleted and not an error, because it must not stop the fleet. Controls of
-- another type are an error, because a fleet that runs on in a pause would be worse.
local function require_fleet(limit, controls)
  require_type(controls, 'hash')
  require_permission('HMGET', controls, '')
  require_permission('DEL', limit)
  require_permission('HMGET', limit, '')
  require_permission('HSET', limit, '', '')
end

-- Adds this worker's counts to the fleet's flow control and returns it for the worker:
-- {version, epoch, rate, answered, failed, milliseconds of pause left, state where its version is not the known one, version of the
-- operators' controls, milliseconds that the clock of ages is behind}
local function read_fleet(limit, pause, controls, known_version, answered, failed)
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
  -- A version without a state was written by somebody else. It is told as an empty one: none would mean that the version is no news.
  local state = version ~= known_version and (found[6] or version ~= '0' and '{}') or ''
  local controls_version, operators_ms, behind_ms = read_controls(controls, now_ms())
  local paused_ms = integer(math.max(0, redis.call('PTTL', pause), operators_ms))
  return {
    version, epoch, rate, sum('answered', 4, answered), sum('failed', 5, failed), paused_ms, state, integer(controls_version),
    integer(behind_ms),
  }
end
