-- Runs the calls of a batch one after another, as if each was a script of its own. ARGV[2] is the room for
-- counters. Then follow for each call: the number of its buckets, its OWN_ARGUMENTS, and FIELDS for each bucket. Its
-- keys are its OWN_KEYS and the buckets. Returns for each call the numbers of its reply, or its error as a text.

local function attempt(key, field, count)
  calendar, elsewhere, rules, crossed, created, buckets, order = {}, false, {}, {}, {}, {}, {}
  local works, reply = pcall(call, key, field, count)
  if works then return reply end
  -- Which of the two an error is depends on the version of Redis.
  return type(reply) == 'table' and reply.err or tostring(reply)
end

set_room(ARGV[2])
local replies, key, field = {}, 5, 3
while ARGV[field] do
  local count = tonumber(ARGV[field])
  replies[#replies + 1] = attempt(key, field + 1, count)
  key, field = key + OWN_KEYS + count, field + 1 + OWN_ARGUMENTS + count * FIELDS
end
if held_more ~= 0 then redis.call('INCRBY', HOLDS, text(held_more)) end
return replies
