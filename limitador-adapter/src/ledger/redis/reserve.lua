-- Holds every amount of a call, or none. Its first key is the reservation. Its own argument is the attempt to reserve
-- in several shards: the shards and its number (empty: all buckets are here). Then follow for each bucket its terms
-- and the amount. The terms are "WINDOW;MAX;TTL;REFUSES;CHARGE;RULE": the ttl in ms, whether lack of room refuses (0 or
-- 1), when it is charged ("admission", "commit", or "lapse" if it is also charged when it lapses, followed by the ends
-- of calendar periods), and the thresholds. The amount is "AMOUNT", "AMOUNT;lease" if it is a lease, or "AMOUNT;" and
-- what comes out of a lease. Returns -1 and the time; or whether it was admitted, whether the id was known (0 no, 1
-- live, 2 over), the buckets' statuses, and the thresholds that were reached.

local OWN_KEYS, OWN_ARGUMENTS, FIELDS = 1, 1, 2

-- Returns the ends of the calendar periods in which a hold may lapse. Nil if it is not charged then.
local function lapse_ends(text)
  if text == 'lapse' then return {} end
  if string.sub(text, 1, 5) ~= 'lapse' then return nil end
  local ends = {}
  for number in string.gmatch(text, '%d+') do ends[#ends + 1] = tonumber(number) end
  return ends
end

local function parse_terms(text)
  local window, max, ttl, refuses, charges, rule =
    string.match(text, '^([^;]*);(%d+);(%d+);([01]);([^;]*);([^;]*)$')
  return {
    window = window, max = tonumber(max), untils = now + tonumber(ttl), refuses = refuses == '1',
    charges = charges == 'admission', ends = lapse_ends(charges), rule = rule, packed = false,
  }
end

local function wants_of(key, field, count)
  local wants = {}
  for at = 1, count do
    local amount, lease = tonumber(ARGV[field + 1]), ''
    if not amount then
      amount, lease = string.match(ARGV[field + 1], '^(%d+);(.*)$')
      amount = tonumber(amount)
    end
    wants[at] = {
      asked = KEYS[key + at], terms = terms_of(ARGV[field], parse_terms), amount = amount, lease = lease,
      it = false, name = false, limited = false, taken = false,
    }
    field = field + FIELDS
  end
  return wants
end

local function answer(wants, first, admitted, turn)
  -- The list has room for the status of a bucket, so it need not grow.
  local told = { admitted and 1 or 0, turn, nil, nil, nil, nil, nil, nil, nil }
  for at = 1, #wants do
    local want = wants[at]
    local it, name = want.it, want.name
    if not it then it, name = seat(want.asked) end
    status(told, it, want.terms.window, want.amount, want.terms.max, want.limited, name ~= want.asked)
  end
  return report(told, first)
end

-- Takes each amount before the next is checked, so that two amounts for the same bucket see each other. If one is
-- refused, gives all back and returns false.
local function take(wants)
  local admitted = true
  for at = 1, #wants do
    local want = wants[at]
    local it, name = seat(want.asked)
    local terms = want.terms
    want.it, want.name = it, name
    want.limited = it.used + it.held + want.amount > terms.max + it.granted
    if want.limited and terms.refuses then
      admitted = false
    else
      sit(it, name)
      hold(it, want.amount, terms.untils)
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
    local terms = want.terms
    if want.limited then
      excused = excused or {}
      excused[#excused + 1] = at
    end
    if want.lease == 'lease' then add_leased(want.name, want.amount) end
    local overflows = want.name ~= want.asked
    if terms.charges then
      release(want.it, want.amount)
      local advance = { want.asked, want.amount, charge(want.it, terms.window, want.amount) }
      -- Another shard may refuse the call. Then this charge is taken back, so the commit warns of it.
      if not attempt then warn(want.it, want.asked, terms.rule) end
      if overflows then advance[4] = want.name end
      if attempt and want.it.begun then
        advance[4], advance[5], advance[6] = advance[4] or false, false, true
      end
      advances[#advances + 1] = advance
    else
      local held = { want.name, want.amount, terms.untils }
      if overflows then held[4] = want.asked end
      if terms.ends then held[4], held[5] = held[4] or false, terms.ends end
      kept[#kept + 1] = held
    end
    first, last = math.min(first or terms.untils, terms.untils), math.max(last, terms.untils)
  end
  return { live = true, holds = kept, advances = advances, excused = excused }, first, last
end

-- Returns the packed record of a reservation with one hold in the requested bucket, which is charged when it lapses, or
-- nothing if it differs from that.
local function record_of_hold(wants, attempt)
  local want = wants[1]
  local terms = want.terms
  local differs = #wants > 1 or attempt or want.limited or want.name ~= want.asked or want.lease == 'lease'
  if differs or not terms.ends then return nil end
  terms.packed = terms.packed or pack_rest(terms.untils, terms.ends)
  return pack_hold(want.name, want.amount, terms.packed)
end

-- Returns the packed reservation, the number of its holds, and when the first and the last of its amounts lapse.
local function keep(wants, attempt, shards)
  local record, untils = record_of_hold(wants, attempt), wants[1].terms.untils
  if record then return record, 1, untils, untils end
  local reservation, first, last = charge_or_keep(wants, attempt)
  if attempt then reservation.attempt, reservation.shards = attempt, tonumber(shards) end
  if wants[1].lease == 'lease' then reservation.lease = true end
  return cmsgpack.pack(reservation), #reservation.holds, first, last
end

local function reserve(key, field, count)
  local reservation, first = KEYS[key], key + 1
  local shards, attempt
  if ARGV[field] ~= '' then shards, attempt = string.match(ARGV[field], '^(%d+) (%d+)$') end
  local wants = wants_of(key, field + OWN_ARGUMENTS, count)
  if elsewhere then return { -1, now } end

  local known = known_of(reservation)
  if known then
    -- A repetition gets the same answer as the first call.
    for _, at in ipairs(known ~= 'settled' and known.live and known.excused or {}) do
      if wants[at] then wants[at].limited = not wants[at].terms.refuses end
    end
    if attempt and known ~= 'settled' and known.live and known.attempt and known.attempt ~= attempt then
      -- This attempt decides now whether the holds stay.
      known.attempt, known.shards = attempt, bit.bor(known.shards, tonumber(shards))
      set(reservation, cmsgpack.pack(known), 'KEEPTTL')
    end
    return answer(wants, first, true, known ~= 'settled' and known.live and 1 or 2)
  end
  for at = 1, count do draw(wants[at].lease, wants[at].asked) end
  if not take(wants) then return answer(wants, first, false, 0) end
  if count == 0 then return answer(wants, first, true, 0) end

  local record, holds, lapses, ends = keep(wants, attempt, shards)
  save()
  held_more = held_more + holds
  lapsing[#lapsing + 1], lapsing[#lapsing + 2] = text(lapses), string.sub(reservation, ID)
  set(reservation, record, 'PXAT', text(ends + REMEMBERED + SPARE))
  return answer(wants, first, true, 0)
end

register('reserve', batch_of(reserve, OWN_KEYS, OWN_ARGUMENTS, FIELDS))
