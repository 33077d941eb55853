-- Holds every amount, or none. KEYS[4] the reservation, then the buckets; ARGV[2] its id, [3] the most buckets, then for
-- each bucket: window, amount, max, ttl in ms, whether it refuses, whether admission charges it.
-- Tells: whether it was admitted, whether the id was known (0 no, 1 live, 2 over), then the buckets' statuses.

local FIELDS, FIRST = 6, 4
local reservation, id, most = KEYS[4], ARGV[2], tonumber(ARGV[3])
local wants = {}
for at = 5, #KEYS do
  local field = FIRST + (at - 5) * FIELDS
  wants[#wants + 1] = {
    name = KEYS[at], it = bucket(KEYS[at]), window = ARGV[field], amount = tonumber(ARGV[field + 1]),
    max = tonumber(ARGV[field + 2]), untils = now + tonumber(ARGV[field + 3]), refuses = ARGV[field + 4] == '1',
    charges = ARGV[field + 5] == '1',
  }
end

local function answer(admitted, turn)
  local told = { admitted and 1 or 0, turn }
  for _, want in ipairs(wants) do status(told, want.it, want.window, want.max, want.limited) end
  return told
end

local record = redis.call('GET', reservation)
if record then
  local live = record ~= 'settled' and cmsgpack.unpack(record).live
  return answer(true, live and 1 or 2)
end

-- One after the other, so that two wants of one bucket see each other.
local admitted = true
for _, want in ipairs(wants) do
  local it = want.it
  want.limited = it.used + it.held + want.amount > want.max
  if want.limited and want.refuses then
    admitted = false
  else
    if not has_place(it, most) then return redis.error_reply('WEIRFULL as many counters as allowed') end
    hold(it, want.amount, want.untils)
    want.taken = true
  end
end
if not admitted then
  for _, want in ipairs(wants) do
    if want.taken then release(want.it, want.amount) end
  end
  return answer(false, 0)
end
if #wants == 0 then return answer(true, 0) end

local kept, advances, first, last = {}, {}, nil, 0
for _, want in ipairs(wants) do
  if want.charges then
    release(want.it, want.amount)
    advances[#advances + 1] = { want.name, want.amount, charge(want.it, want.window, want.amount) }
  else
    kept[#kept + 1] = { want.name, want.amount, want.untils }
  end
  first, last = math.min(first or want.untils, want.untils), math.max(last, want.untils)
end
save()
if #kept > 0 then redis.call('INCRBY', HOLDS, #kept) end
redis.call('ZADD', LAPSES, text(first), id)
local packed = cmsgpack.pack({ live = true, holds = kept, advances = advances })
redis.call('SET', reservation, packed, 'PXAT', text(last + REMEMBERED + SPARE))
return answer(true, 0)
