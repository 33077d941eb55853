-- Reservations, and the ids of those that are settled.

-- Returns the names of the records of a settled id, and the byte that stands for the id there. Ids that differ only in
-- their last two hexadecimal digits have a record for each half hour. Workers number their requests, so a record fills
-- up before the next one begins. Other ids have a record each. `name` is the name of the reservation.
local function place_of(name)
  local byte, place = BYTES[string.sub(name, -2)], places[name]
  if place then return place, byte or '1' end
  local record = byte and 'all:' .. string.sub(name, ID, -3) or 'one:' .. string.sub(name, ID)
  place = places_of_ids[record]
  if not place then
    place = { newest = NEWEST .. record, previous = PREVIOUS .. record, asked = false }
    places_of_ids[record] = place
  end
  places[name] = place
  return place, byte or '1'
end

-- Remembers that a reservation is settled. The batch writes the record.
local function settle(name)
  local place, byte = place_of(name)
  fetched[place.newest] = (get(place.newest) or '') .. byte
  settled_records[place.newest] = true
end

local function is_settled(name)
  local place, byte = place_of(name)
  local newest, previous = get(place.newest), get(place.previous)
  return newest and string.find(newest, byte, 1, true) or previous and string.find(previous, byte, 1, true)
end

-- Packs what follows the amount in the record of the most common reservation. That has one hold, in the requested
-- bucket, which is charged when it lapses.
local function pack_rest(untils, ends)
  return cmsgpack.pack(untils, false, ends) .. AFTER_HOLD
end

-- Packs the most common reservation. The pieces are those that cmsgpack.pack makes of a table in three times the time.
local function pack_hold(name, amount, rest)
  return BEFORE_HOLD .. cmsgpack.pack(name, amount) .. rest
end

-- Unpacks a reservation, and the most common one from its pieces.
local function unpack_reservation(record)
  if string.sub(record, 1, #BEFORE_HOLD) == BEFORE_HOLD then
    local offset, name, amount, untils = cmsgpack.unpack_limit(record, 3, #BEFORE_HOLD)
    if string.sub(record, offset + 1) == WITHOUT_ENDS then
      return { live = true, holds = { { name, amount, untils, false, {} } }, advances = {} }
    end
  end
  return cmsgpack.unpack(record)
end

-- Returns the record of a reservation: a table, "settled", or nil.
local function known_of(name)
  local record = get(name)
  if not record then return is_settled(name) and 'settled' or nil end
  -- Earlier versions remembered settled ids like this.
  if record == 'settled' then return record end
  local untils = string.match(record, '^over (%d+)$')
  if untils then return tonumber(untils) > now and 'settled' or nil end
  return unpack_reservation(record)
end

-- Takes an amount for a bucket out of a lease, or what is left of it. `part` is "AMOUNT LEASE" (empty: nothing).
local function draw(part, asked)
  if part == '' then return end
  local amount, lease = string.match(part, '^(%d+) (.*)$')
  if not amount then return end
  local name = PREFIX .. 'r:' .. lease
  local known = known_of(name)
  if not known or known == 'settled' or not known.live or not known.lease then return end
  for _, held in ipairs(known.holds) do
    if (held[4] or held[1]) == asked then
      local drawn, it = math.min(tonumber(amount), held[2]), bucket(held[1])
      held[2] = held[2] - drawn
      it.held, it.changed = math.max(it.held - drawn, 0), true
      add_leased(held[1], -drawn)
      set(name, cmsgpack.pack(known), 'KEEPTTL')
    end
  end
end
