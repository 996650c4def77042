-- claim: before the first call, bind each job id to what it is for, and tell the duplicates.
-- KEYS  (none: the ids' keys are made from their digests)
-- ARGV  1 id prefix   2 milliseconds to remember   then for each job: digest of its id, binding, 1 if it is a dry run
-- Returns for each job  0 go on | 1 a duplicate of a job whose event is out | 2 the id stands for something else
-- Crash: all or nothing; repeating it is harmless.

local id_prefix, remember_ms = ARGV[1], ARGV[2]

require_permission('GET', id_prefix)
require_permission('SET', id_prefix, '')

local answers = {}
for at = 3, #ARGV, 3 do
  local key, binding, is_dry_run = id_prefix .. ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  local claimed, ended = 'claimed ' .. binding, 'ended ' .. binding
  local answer = 0
  if is_dry_run and redis.pcall('GET', key .. ':other') == ended then
    answer = 1
  else
    local known = redis.pcall('SET', key, claimed, 'NX', 'GET', 'PX', remember_ms)
    if known and (type(known) ~= 'string' or known == claimed) then
      -- A key that somebody else made; or our own, whose time begins anew each time the job is taken.
      redis.call('SET', key, claimed, 'PX', remember_ms)
    elseif known == ended then -- the real job has
      answer = is_dry_run and 0 or 1
    elseif known then
      answer = 2
    end
  end
  answers[#answers + 1] = answer
end
return answers
