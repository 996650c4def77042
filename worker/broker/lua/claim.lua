-- claim: before the first call, bind each job id to what it is for, and tell the copies.
-- KEYS  (none: the ids' keys are made from their digests)
-- ARGV  1 id prefix   2 milliseconds to remember   then for each job: digest of its id, binding
-- Returns for each job  0 go on | 1 a copy of a job whose event is out | 2 the id stands for something else
-- Crash: all or nothing; repeating it is harmless.

local id_prefix, remember_ms = ARGV[1], ARGV[2]

may('GET', id_prefix)
may('SET', id_prefix, '')

local answers = {}
for at = 3, #ARGV, 2 do
  local key, binding = id_prefix .. ARGV[at], ARGV[at + 1]
  local claimed = 'claimed ' .. binding
  local known = redis.pcall('SET', key, claimed, 'NX', 'GET', 'PX', remember_ms)
  if known == false then -- unknown until now
    answers[#answers + 1] = 0
  elseif type(known) ~= 'string' or known == claimed then
    -- A key that somebody else made; or our own, whose time begins anew each time the job is taken.
    redis.call('SET', key, claimed, 'PX', remember_ms)
    answers[#answers + 1] = 0
  elseif known == 'ended ' .. binding then
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 2
  end
end
return answers
