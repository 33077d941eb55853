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
if #KEYS > 4 then
  for at, record in ipairs(redis.call('MGET', unpack(KEYS, 5))) do fetched[KEYS[4 + at]] = record end
end
local replies, key, field = {}, 5, 3
while ARGV[field] do
  local count = tonumber(ARGV[field])
  for at = key + OWN_KEYS, key + OWN_KEYS + count - 1 do
    -- It may have a value of another type. For that, GET has an error.
    if not fetched[KEYS[at]] then fetched[KEYS[at]] = nil end
  end
  replies[#replies + 1] = attempt(key, field + 1, count)
  key, field = key + OWN_KEYS + count, field + 1 + OWN_ARGUMENTS + count * FIELDS
end
if #lapsing > 0 then redis.call('ZADD', LAPSES, unpack(lapsing)) end
if #lapsed_ids > 0 then redis.call('ZREM', LAPSES, unpack(lapsed_ids)) end
local keys = {}
for deleted_key in pairs(deleted) do keys[#keys + 1] = deleted_key end
if #keys > 0 then redis.call('DEL', unpack(keys)) end
if held_more ~= 0 then redis.call('INCRBY', HOLDS, text(held_more)) end
return replies
