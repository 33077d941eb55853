-- The library of functions that the adapter calls: the time, and the records that all functions read and write.
-- Redis keeps the library, so what is defined here is defined once, and `begin` sets what belongs to one call.
--
-- KEYS[1] is the sorted set of reservations by the time of their next lapse, KEYS[2] the buckets by the time
-- of their next inspection, KEYS[3] the number of live holds, and KEYS[4] the room for counters that each
-- limit's buckets take. Further keys belong to each function. ARGV[1] is the time in ms; if it is empty, the
-- server's time applies.
--
-- A bucket is a text "USED END HELD HOLDS UNTIL": the usage of the window that ends at END (0: there is no
-- window), the amount and number of its holds, and the time when the last of them lapses. A reservation is
-- a packed table, or "over UNTIL" (settled without a charge, and remembered until then). The table
-- has a flag `live` (its holds may lapse), its holds {bucket, amount, until, asked, ends} and its charges
-- before the commit {asked, amount, window, bucket, at_lapse, began}. The bucket differs from the requested one
-- only if the amount is in the limit's overflow bucket, for want of room. Otherwise, the second name is absent
-- or false. A charge has `began` if a window began with it, and the reservation is in several shards. A hold
-- with `ends` is charged when it lapses: these are the ends of the calendar periods in which that may happen, in
-- ascending order; empty for other windows. A reservation in several shards also has the set of its shards, as
-- bits, and the attempt that took it. A lease has the flag `lease`, and what is left of all leases of a bucket is in
-- a hash of its own. A background result is a reservation with additional fields (stored.lua).
--
-- The usage of a sliding window is kept in slots, in records next to the bucket's record. A slot begins with
-- a charge and also takes the charges of the next sixtieth of the window. The whole slot counts until its
-- last charge is as old as the window is long. One record is the newest slot, "BEGINNING LAST AMOUNT FIRST":
-- LAST is the time from its beginning to its last charge, and FIRST is the time when the oldest of the other
-- slots ends (0: there are none). Another record has the other slots from oldest to newest, each as
-- "BEGINNING LAST AMOUNT;". It is read only when one of them ends, or to compute when there is room. USED is
-- the sum of all slots, and END is the time when the newest slot ends.
--
-- An operator's change of a bucket has a separate record, since few buckets have one: "EPOCH GRANTED END".
-- EPOCH counts the resets of the bucket. GRANTED is added to its maximum in the window that ends at END;
-- sliding windows have no grants. Such records exist only while the key `amended` exists.
--
-- A bucket that has reached thresholds has another record, "PERCENT UNTIL;" for each of them. A threshold is
-- reported again after UNTIL, which is the end of the window, or for a sliding window its length later.
--
-- Apart from lapses, a function writes only after all decisions are made, so one that refuses changes nothing.

-- The keys and the arguments of the call, and the time in ms.
local KEYS, ARGV, now

-- The names of the common records, the prefix of all keys, and where the id begins in the key of a reservation.
-- AMENDED exists while some bucket has an operator's change. LEASED is a hash with what is left of the leases of each
-- bucket; an adapter of an older version may end a lease without noting it there. LAPSED is a hash with the totals of
-- the holds that have lapsed. STORED is the sorted set of background results by the time until which they are
-- remembered. The names of the records of settled ids begin with NEWEST, and with PREVIOUS if they were settled in the
-- half hour before.
local LAPSES, BUCKETS, HOLDS, LIMITS, AMENDED, LEASED, LAPSED, STORED, NEWEST, PREVIOUS, PREFIX, ID

-- The names of the records of settled ids, by reservation and by what the ids of a record have in common.
local places, places_of_ids

-- Texts of numbers. The same times occur in most calls of a batch.
local texts

-- The terms of the batch's buckets by their text, because many calls have the same.
local known_terms

-- The records that a batch has read at its beginning, in one command. False: there is none, or it has been deleted.
local fetched

-- What the calls of a batch write at its end, in one command of each kind: the times of lapses and their ids, the ids
-- whose lapses are over, the records to delete, and how many more holds there are; and the names of the changed
-- records of settled ids.
local lapsing, lapsed_ids, deleted, held_more, settled_records

-- The ends of the calendar periods that the caller named, and whether `now` is outside one of them. In that
-- case the function changes nothing and returns -1 and the time, and the caller tries again.
local calendar, elsewhere

-- The room for counters, the room that one counter takes (0: depends on its size), the number of limits in force, and
-- what each limit's new buckets take.
local total, each, in_force, created

-- The buckets of the call by name, their names in the order in which they were read, and whether AMENDED exists (nil:
-- it has not been read).
local buckets, order, is_amended

-- The thresholds that this call's charges have reached: the requested bucket; and whether its overflow bucket
-- was charged, the percentage, the maximum, the charged amount, and ms until the window ends.
local crossed

-- The holds that this call has ended, in the fields of LAPSED: the numbers of those that were `released` or
-- `charged`, and the charged `tokens` and `micro_usd`; and whether more have expired.
local lapsed, more_lapses

-- The largest integer that Lua represents exactly. Sums saturate at this value.
local MOST = 9007199254740991
local REMEMBERED = 30 * 60 * 1000
-- The number of reservations whose holds one call ends at most, so that it blocks other calls only briefly.
local LAPSES_AT_ONCE = 100
-- Same as REMEMBERED_BRIEFLY in ledger.rs.
local BRIEFLY = 10 * 1000
-- The size of a bucket in bytes without its name, which is stored twice.
local BUCKET_BYTES = 250
-- The number of slots in a sliding window, as in sliding.rs, and their size in bytes.
local SLOTS, SLOTS_BYTES = 60, 2200
-- Redis deletes a record this long after it can matter, in case no adapter is running to delete it in time.
local SPARE = 60 * 60 * 1000

local function get(key)
  local record = fetched[key]
  if record == nil then return redis.call('GET', key) end
  return record
end

local function set(key, record, ...)
  redis.call('SET', key, record, ...)
  deleted[key] = nil
  if fetched[key] ~= nil then fetched[key] = record end
end

local function delete(key)
  redis.call('DEL', key)
  if fetched[key] ~= nil then fetched[key] = false end
end

-- How one number and five numbers are written, and the byte of each pair of hexadecimal digits.
local INTEGER, FIVE_INTEGERS, BYTES

-- What is around the only hold in a packed reservation: before its bucket; after its ends; and after its time, if it
-- has no ends.
local BEFORE_HOLD, AFTER_HOLD, WITHOUT_ENDS

-- The first call sets these constants, because a library has no access to `string` and `cmsgpack` while it is loaded.
local function set_constants()
  -- A map of three, a list of one, and a list of five.
  BEFORE_HOLD = '\131' .. cmsgpack.pack('holds') .. '\145\149'
  AFTER_HOLD = cmsgpack.pack('advances', {}, 'live', true)
  WITHOUT_ENDS = cmsgpack.pack(false, {}) .. AFTER_HOLD
  BYTES = {}
  for byte = 0, 255 do BYTES[string.format('%02x', byte)] = string.char(byte) end
  -- '%d' is twice as fast as '%.0f', but not exact in a Redis for 32 bits.
  INTEGER = string.format('%d', MOST) == '9007199254740991' and '%d' or '%.0f'
  FIVE_INTEGERS = string.sub(string.rep(INTEGER .. ' ', 5), 1, -2)
end

local function text(number)
  local known = texts[number]
  if not known then
    known = string.format(INTEGER, number)
    texts[number] = known
  end
  return known
end

-- The name of a window: a length in ms, followed by "-sliding" for a sliding window; a period's name; or
-- "Now" for a gauge. A period is followed by its bounds in ms: "Month-Europe/Berlin 1793487600000
-- 1796079600000". Returns the name and the bounds.
local function parse_window(argument)
  if not string.find(argument, ' ', 1, true) then return argument end
  local name, from, to = string.match(argument, '^(%S+) (%d+) (%d+)$')
  return name, tonumber(from), tonumber(to)
end

-- Notes the bounds of a period for this call.
local function note_period(name, from, to)
  if now < from or now >= to then elsewhere = true end
  calendar[name] = to
end

local function window_of(argument)
  local name, from, to = parse_window(argument)
  if from then note_period(name, from, to) end
  return name
end

-- Returns the terms of a bucket, which `parse` parses. They include the window, and the thresholds (empty: none).
local function terms_of(argument, parse)
  local known = known_terms[argument]
  if not known then
    known = parse(argument)
    known.window, known.from, known.to = parse_window(known.window)
    if known.rule == '' then known.rule = nil end
    known_terms[argument] = known
  end
  if known.from then note_period(known.window, known.from, known.to) end
  return known
end

-- Returns when a window ends that starts now.
local function window_end(window)
  local length = tonumber(window)
  return length and now + length or calendar[window]
end

-- Returns whether the window is a calendar period.
local function is_period(window)
  return window ~= 'Now' and not string.match(window, '^%d')
end

local function set_room(text)
  local of_total, of_each, limits = string.match(text, '^(%d+) (%d+) (%d+)$')
  total, each, in_force = tonumber(of_total), tonumber(of_each), tonumber(limits)
end
