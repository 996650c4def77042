-- claim: before a job's first call, note what its id stands for, and find the duplicates.
-- KEYS  1 cancelled (a mark: some job id is remembered as cancelled)
-- ARGV  1 id prefix   2 milliseconds to keep an id   3 prefix of the keys of cancelled ids
--       then for each job: digest of its id, fingerprint, 1 if it is a dry run
-- Returns for each job  0 go on | 1 a duplicate of a job whose event is out | 2 the id stands for something else
--       | 3 the id is cancelled
-- Crash: all or nothing; repeating it is harmless.

local mark = KEYS[1]
local id_prefix, dedup_ttl_ms, cancelled_prefix = ARGV[1], ARGV[2], ARGV[3]

require_permission('GET', id_prefix)
require_permission('SET', id_prefix, '')
require_permission('EXISTS', mark)
require_permission('EXISTS', cancelled_prefix)

local answers, are_some_cancelled = {}, redis.call('EXISTS', mark) == 1
if are_some_cancelled then
  require_type(mark, 'string')
end
for at = 4, #ARGV, 3 do
  local key, fingerprint, is_dry_run = id_prefix .. ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  local claimed, ended = 'claimed ' .. fingerprint, 'ended ' .. fingerprint
  local answer = 0
  if is_dry_run and redis.pcall('GET', key .. ':other') == ended then
    answer = 1
  else
    local known = redis.pcall('SET', key, claimed, 'NX', 'GET', 'PX', dedup_ttl_ms)
    if known and (type(known) ~= 'string' or known == claimed) then
      -- A key of another type, which is overwritten; or our own claim, whose time starts again each time the job is taken.
      redis.call('SET', key, claimed, 'PX', dedup_ttl_ms)
    elseif known == ended then -- the real job has ended
      answer = is_dry_run and 0 or 1
    elseif known then
      answer = 2
    end
  end
  if answer == 0 and are_some_cancelled and redis.call('EXISTS', cancelled_prefix .. ARGV[at]) == 1 then
    answer = 3
  end
  answers[#answers + 1] = answer
end
return answers
