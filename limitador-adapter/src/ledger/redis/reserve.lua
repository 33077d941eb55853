-- Holds every amount of a call, or none. Its first key is the reservation. Its own arguments are the thresholds and
-- the attempt to reserve in several shards: the shards and its number (empty: all buckets are here). Then follow
-- for each bucket: window, amount, max, ttl in ms, whether lack of room refuses, when it is charged: "admission",
-- "commit", or "lapse" if it is also charged when it lapses, followed by the ends of calendar periods; and "lease" if
-- it is a lease, or what comes out of one. Returns -1 and the time; or whether it was admitted, whether the id was
-- known (0 no, 1 live, 2 over), the buckets' statuses, and the thresholds that were reached.

local OWN_KEYS, OWN_ARGUMENTS, FIELDS = 1, 2, 7

-- Returns the ends of the calendar periods in which a hold may lapse. Nil if it is not charged then.
local function lapse_ends(text)
  if text == 'lapse' then return {} end
  if string.sub(text, 1, 5) ~= 'lapse' then return nil end
  local ends = {}
  for number in string.gmatch(text, '%d+') do ends[#ends + 1] = tonumber(number) end
  return ends
end

local function wants_of(key, field, count)
  local wants = {}
  for at = 1, count do
    wants[at] = {
      asked = KEYS[key + at], window = window_of(ARGV[field]), amount = tonumber(ARGV[field + 1]),
      max = tonumber(ARGV[field + 2]), untils = now + tonumber(ARGV[field + 3]), refuses = ARGV[field + 4] == '1',
      charges = ARGV[field + 5] == 'admission', ends = lapse_ends(ARGV[field + 5]), lease = ARGV[field + 6],
      it = false, name = false, limited = false, taken = false,
    }
    field = field + FIELDS
  end
  return wants
end

local function answer(wants, first, admitted, turn)
  local told = { admitted and 1 or 0, turn }
  for _, want in ipairs(wants) do
    local it, name = want.it, want.name
    if not it then it, name = seat(want.asked) end
    status(told, it, want.window, want.amount, want.max, want.limited, name ~= want.asked)
  end
  return report(told, first)
end

-- Takes each amount before the next is checked, so that two amounts for the same bucket see each other. If one is
-- refused, gives all back and returns false.
local function take(wants)
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
  if admitted then return true end
  for _, want in ipairs(wants) do
    if want.taken then release(want.it, want.amount) end
  end
  return false
end

-- Charges what is charged at admission. Returns the reservation's record, and when the first and the last of its
-- amounts lapse.
local function charge_or_keep(wants, attempt)
  local kept, advances, excused, first, last = {}, {}, nil, nil, 0
  for at, want in ipairs(wants) do
    if want.limited then
      excused = excused or {}
      excused[#excused + 1] = at
    end
    if want.lease == 'lease' then add_leased(want.name, want.amount) end
    local overflows = want.name ~= want.asked
    if want.charges then
      release(want.it, want.amount)
      local advance = { want.asked, want.amount, charge(want.it, want.window, want.amount) }
      -- Another shard may refuse the call. Then this charge is taken back, so the commit warns of it.
      if not attempt then warn(want.it, want.asked, rules[at]) end
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
  return { live = true, holds = kept, advances = advances, excused = excused }, first, last
end

local function reserve(key, field, count)
  local reservation, first = KEYS[key], key + 1
  local id = string.sub(reservation, ID)
  set_rules(ARGV[field])
  local shards, attempt = string.match(ARGV[field + 1], '^(%d+) (%d+)$')
  local wants = wants_of(key, field + OWN_ARGUMENTS, count)
  if elsewhere then return { -1, now } end

  local known = known_of(reservation)
  if known then
    -- A repetition gets the same answer as the first call.
    for _, at in ipairs(known ~= 'settled' and known.live and known.excused or {}) do
      if wants[at] then wants[at].limited = not wants[at].refuses end
    end
    if attempt and known ~= 'settled' and known.live and known.attempt and known.attempt ~= attempt then
      -- This attempt decides now whether the holds stay.
      known.attempt, known.shards = attempt, bit.bor(known.shards, tonumber(shards))
      set(reservation, cmsgpack.pack(known), 'KEEPTTL')
    end
    return answer(wants, first, true, known ~= 'settled' and known.live and 1 or 2)
  end
  for _, want in ipairs(wants) do draw(want.lease, want.asked) end
  if not take(wants) then return answer(wants, first, false, 0) end
  if count == 0 then return answer(wants, first, true, 0) end

  local record, lapses, ends = charge_or_keep(wants, attempt)
  if attempt then record.attempt, record.shards = attempt, tonumber(shards) end
  if wants[1].lease == 'lease' then record.lease = true end
  save()
  held_more = held_more + #record.holds
  lapsing[#lapsing + 1], lapsing[#lapsing + 2] = text(lapses), id
  set(reservation, cmsgpack.pack(record), 'PXAT', text(ends + REMEMBERED + SPARE))
  return answer(wants, first, true, 0)
end

register('reserve', batch_of(reserve, OWN_KEYS, OWN_ARGUMENTS, FIELDS))
