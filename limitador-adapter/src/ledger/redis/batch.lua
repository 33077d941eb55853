-- Runs a call of a batch. Returns the numbers of its reply, or its error as a text.
local function attempt(call, key, field, count)
  begin_call()
  local works, reply = pcall(call, key, field, count)
  if works then return reply end
  -- Which of the two an error is depends on the version of Redis.
  return type(reply) == 'table' and reply.err or tostring(reply)
end

-- Reads the records of the batch: those in KEYS, and for each reservation those of settled ids. `counts` has the number
-- of buckets of each call.
local function fetch(counts, own_keys)
  local names, key = { AMENDED, unpack(KEYS, 5) }, 5
  for call = 1, #counts do
    if own_keys > 0 then
      local place = place_of(KEYS[key])
      if not place.asked then
        place.asked = true
        names[#names + 1], names[#names + 2] = place.newest, place.previous
      end
    end
    key = key + own_keys + counts[call]
  end
  local records = redis.call('MGET', unpack(names))
  for at = 1, #names do fetched[names[at]] = records[at] end
end

-- Writes what the calls of the batch have left to write.
local function write()
  if #lapsing > 0 then redis.call('ZADD', LAPSES, unpack(lapsing)) end
  if #lapsed_ids > 0 then redis.call('ZREM', LAPSES, unpack(lapsed_ids)) end
  local expires = text((math.floor(now / REMEMBERED) + 2) * REMEMBERED)
  for name in pairs(settled_records) do
    redis.call('SET', name, fetched[name], 'PXAT', expires)
  end
  local keys = {}
  for key in pairs(deleted) do keys[#keys + 1] = key end
  if #keys > 0 then redis.call('DEL', unpack(keys)) end
  if held_more ~= 0 then redis.call('INCRBY', HOLDS, text(held_more)) end
end

-- Returns a function that runs the calls of a batch one after another, as if each was a function of its own. ARGV[2]
-- is the room for counters. Then follow for each call: the number of its buckets, its own arguments, and its fields
-- for each bucket. Its keys are its own keys and the buckets. Returns for each call its reply or error.
local function batch_of(call, own_keys, own_arguments, fields)
  return function()
    set_room(ARGV[2])
    local counts, field = {}, 3
    while ARGV[field] do
      local count = ARGV[field] + 0
      counts[#counts + 1] = count
      field = field + 1 + own_arguments + count * fields
    end
    fetch(counts, own_keys)
    local replies, key = {}, 5
    field = 4
    for at = 1, #counts do
      local count = counts[at]
      replies[at] = attempt(call, key, field, count)
      key, field = key + own_keys + count, field + 1 + own_arguments + count * fields
    end
    write()
    return replies
  end
end
