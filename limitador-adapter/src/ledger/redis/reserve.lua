-- Holds every amount, or none. KEYS[5] is the reservation, followed by the buckets. ARGV[2] is its id, [3] the
-- room for counters, [4] the thresholds and [5] the attempt to reserve in several shards: the shards and its
-- number (empty: all buckets are here). Then follow for each bucket: window, amount, max, ttl in ms, whether
-- lack of room refuses, and when it is charged: "admission", "commit", or "lapse" if it is also charged when it
-- lapses. The latter is followed by the ends of calendar periods. Returns -1 and the time; or whether it was
-- admitted, whether the id was known (0 no, 1 live, 2 over), the buckets' statuses, and the thresholds that were
-- reached.

local FIELDS, FIRST = 6, 6
local reservation, id = KEYS[5], ARGV[2]
set_room(ARGV[3])
set_rules(ARGV[4])
local shards, attempt = string.match(ARGV[5], '^(%d+) (%d+)$')

-- Returns the ends of the calendar periods in which a hold may lapse. Nil if it is not charged then.
local function lapse_ends(text)
  if string.sub(text, 1, 5) ~= 'lapse' then return nil end
  local ends = {}
  for number in string.gmatch(text, '%d+') do ends[#ends + 1] = tonumber(number) end
  return ends
end

local wants = {}
for at = 6, #KEYS do
  local field = FIRST + (at - 6) * FIELDS
  wants[#wants + 1] = {
    asked = KEYS[at], window = window_of(ARGV[field]), amount = tonumber(ARGV[field + 1]),
    max = tonumber(ARGV[field + 2]), untils = now + tonumber(ARGV[field + 3]), refuses = ARGV[field + 4] == '1',
    charges = ARGV[field + 5] == 'admission', ends = lapse_ends(ARGV[field + 5]),
  }
end

if elsewhere then return { -1, now } end

local function answer(admitted, turn)
  local told = { admitted and 1 or 0, turn }
  for _, want in ipairs(wants) do
    local it, name = want.it, want.name
    if not it then it, name = seat(want.asked) end
    status(told, it, want.window, want.amount, want.max, want.limited, name ~= want.asked)
  end
  return report(told)
end

local known = known_of(reservation)
if known then
  -- A repetition gets the same answer as the first call.
  for _, at in ipairs(known ~= 'settled' and known.live and known.excused or {}) do
    if wants[at] then wants[at].limited = not wants[at].refuses end
  end
  if attempt and known ~= 'settled' and known.live and known.attempt and known.attempt ~= attempt then
    -- This attempt decides now whether the holds stay.
    known.attempt, known.shards = attempt, bit.bor(known.shards, tonumber(shards))
    redis.call('SET', reservation, cmsgpack.pack(known), 'KEEPTTL')
  end
  return answer(true, known ~= 'settled' and known.live and 1 or 2)
end

-- Each amount is taken before the next is checked, so that two amounts for the same bucket see each other.
local admitted = true
for _, want in ipairs(wants) do
  want.it, want.name = seat(want.asked)
  local it = want.it
  want.limited = it.used + it.held + want.amount > want.max + it.granted
  if want.limited and want.refuses then
    admitted = false
  else
    sit(it, want.name)
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

local kept, advances, excused, first, last = {}, {}, {}, nil, 0
for at, want in ipairs(wants) do
  if want.limited then excused[#excused + 1] = at end
  local overflows = want.name ~= want.asked
  if want.charges then
    release(want.it, want.amount)
    local advance = { want.asked, want.amount, charge(want.it, want.window, want.amount) }
    -- Another shard may refuse the call. Then this charge is taken back, so the commit warns of it.
    if not attempt then warn(want.it, want.asked, rules[at + 5]) end
    if overflows then advance[4] = want.name end
    if attempt and want.it.begun then
      advance[4], advance[5], advance[6] = advance[4] or false, false, true
    end
    advances[#advances + 1] = advance
  else
    local held = { want.name, want.amount, want.untils }
    if overflows then held[4] = want.asked end
    if want.ends then held[4], held[5] = held[4] or false, want.ends end
    kept[#kept + 1] = held
  end
  first, last = math.min(first or want.untils, want.untils), math.max(last, want.untils)
end
save()
if #kept > 0 then redis.call('INCRBY', HOLDS, #kept) end
redis.call('ZADD', LAPSES, text(first), id)
local record = { live = true, holds = kept, advances = advances }
if #excused > 0 then record.excused = excused end
if attempt then record.attempt, record.shards = attempt, tonumber(shards) end
local packed = cmsgpack.pack(record)
redis.call('SET', reservation, packed, 'PXAT', text(last + REMEMBERED + SPARE))
return answer(true, 0)
