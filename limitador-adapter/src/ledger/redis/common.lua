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

-- What is around the only hold in a packed reservation: before its bucket; after its ends; and after its time, if it has
-- no ends.
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

-- The name of a bucket is a JSON list: its limit, its unit, its window, and its counters. None of the first
-- three contains a quote.
local OVERFLOW = '[["","overflow"]]]'

local function limit_of(name)
  return string.match(name, '"([^"]*)"')
end

local function overflow_of(name)
  return string.match(name, '^[^"]*"[^"]*","[^"]*","[^"]*",') .. OVERFLOW
end

-- Returns the length of a bucket's sliding window, if it has one.
local function sliding_length(name)
  if not string.find(name, '-sliding"', 1, true) then return nil end
  local length = string.match(name, '^[^"]*"[^"]*","[^"]*","(%d+)%-sliding"')
  return length and tonumber(length)
end

-- Returns the key of a bucket's newest slot ("s"), or of its other slots ("o").
local function slots_of(name, which)
  return PREFIX .. which .. ':' .. string.sub(name, string.len(PREFIX) + 3)
end

local function cost_of(name)
  if string.sub(name, -string.len(OVERFLOW)) == OVERFLOW then return 0 end
  if each > 0 then return each end
  return BUCKET_BYTES + 2 * string.len(name) + (sliding_length(name) and SLOTS_BYTES or 0)
end

-- Returns the room of a bucket that has been removed.
local function give_back(name)
  local cost, limit = cost_of(name), limit_of(name)
  if cost > 0 and redis.call('HINCRBY', LIMITS, limit, -cost) <= 0 then redis.call('HDEL', LIMITS, limit) end
end

-- Returns all slots except the newest.
local function older_slots(it)
  if not it.older then
    it.older = (it.first > 0 and redis.call('GET', slots_of(it.name, 'o')) or '') .. (it.appended or '')
    if it.appended then it.older_changed, it.appended = true, nil end
  end
  return it.older
end

-- Drops older slots that have ended.
local function drop_old(it)
  local older, from, dropped = older_slots(it), 1, 0
  it.first = 0
  while true do
    local start, last, amount, after = string.match(older, '^(%d+) (%d+) (%d+);()', from)
    if not start then break end
    if start + last + it.length > now then
      it.first = start + last + it.length
      break
    end
    from, dropped = after, dropped + amount
  end
  it.older, it.older_changed = string.sub(older, from), true
  if it.used < MOST and it.older ~= '' then
    it.used = math.max(it.used - dropped, 0)
    return
  end
  -- The sum may have saturated.
  it.used = it.slot[3]
  for amount in string.gmatch(it.older, '%d+ %d+ (%d+);') do it.used = math.min(it.used + amount, MOST) end
end

-- Reads the slots of a sliding window.
local function read_slots(it)
  local record = redis.call('GET', slots_of(it.name, 's')) or ''
  local start, last, amount, first = string.match(record, '^(%d+) (%d+) (%d+) (%d+)$')
  if not start then
    it.used, it.ends = 0, 0
    return
  end
  it.slot, it.first, it.older = { tonumber(start), tonumber(last), tonumber(amount) }, tonumber(first), nil
  if it.first > 0 and it.first <= now then drop_old(it) end
end

-- Writes the slots of a sliding window.
local function save_slots(it, expires)
  local slot = it.slot
  local record = text(slot[1]) .. ' ' .. text(slot[2]) .. ' ' .. text(slot[3]) .. ' ' .. text(it.first)
  redis.call('SET', slots_of(it.name, 's'), record, 'PXAT', expires)
  if it.older_changed and it.older == '' then
    redis.call('DEL', slots_of(it.name, 'o'))
  elseif it.older_changed then
    redis.call('SET', slots_of(it.name, 'o'), it.older, 'PXAT', expires)
  elseif it.appended then
    redis.call('APPEND', slots_of(it.name, 'o'), it.appended)
    redis.call('PEXPIREAT', slots_of(it.name, 'o'), expires)
  end
  it.older_changed, it.appended = false, nil
end

local function forget(it)
  delete(it.name)
  if it.length then redis.call('DEL', slots_of(it.name, 's'), slots_of(it.name, 'o')) end
end

local function amendment_of(name)
  return PREFIX .. 'a:' .. name
end

-- Adds an operator's changes to a bucket.
local function amend(name, it)
  local record = redis.call('GET', amendment_of(name))
  if not record then return end
  local epoch, granted, ends = string.match(record, '^(%d+) (%d+) (%d+)')
  it.epoch = tonumber(epoch)
  if it.ends > 0 and it.ends == tonumber(ends) then it.granted = tonumber(granted) end
end

-- Writes an operator's changes of a bucket, for as long as they can matter.
local function save_amendment(name, it, ends)
  local until_ms = math.max(ends, now) + SPARE
  local record = text(it.epoch) .. ' ' .. text(it.granted) .. ' ' .. text(it.ends)
  redis.call('SET', amendment_of(name), record, 'PXAT', text(until_ms))
  if until_ms > redis.call('PEXPIRETIME', AMENDED) then redis.call('SET', AMENDED, '1', 'PXAT', text(until_ms)) end
end

-- Identifies the window of a bucket. After a reset, a period has a new window with the same end.
local function window_id(it)
  return it.ends + (it.epoch % 32) / 32
end

-- Returns the current state of the bucket with this name. Changes are written by save().
local function bucket(name)
  local known = buckets[name]
  if known then return known end
  -- If the batch has read nothing, there may be a value of another type. For that, GET has an error.
  local record = fetched[name] or redis.call('GET', name)
  local used, ends, held, holds, untils, expires = 0, 0, 0, 0, 0, 0
  if record then
    used, ends, held, holds, untils = string.match(record, '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
    -- An addition converts a text in half the time of tonumber.
    used, ends, held, holds, untils = used + 0, ends + 0, held + 0, holds + 0, untils + 0
    expires = math.max(ends, untils) + SPARE
    if ends <= now then used, ends = 0, 0 end
  end
  known = {
    used = used, ends = ends, held = held, holds = holds, untils = untils, expires = expires, there = record and true,
    name = name, length = sliding_length(name), first = 0, older = '', epoch = 0, granted = 0,
  }
  if known.length and ends > 0 then read_slots(known) end
  if is_amended == nil then is_amended = get(AMENDED) ~= false end
  if is_amended then amend(name, known) end
  buckets[name] = known
  order[#order + 1] = name
  return known
end

local function save_one(name, it)
  it.changed = false
  if it.holds == 0 and it.ends == 0 then
    if it.there then
      forget(it)
      if redis.call('ZREM', BUCKETS, name) == 1 then give_back(name) end
      it.there, it.expires = false, 0
    end
    return
  end
  local record = string.format(FIVE_INTEGERS, it.used, it.ends, it.held, it.holds, it.untils)
  local expires = math.max(it.ends, it.untils) + SPARE
  if it.there and expires <= it.expires then
    set(name, record, 'KEEPTTL')
  else
    set(name, record, 'PXAT', text(expires))
    it.expires = expires
  end
  if it.slot and (it.slot_changed or it.older_changed) then
    save_slots(it, text(expires))
    it.slot_changed = false
  end
  if not it.there or it.begun then
    local is_new = redis.call('ZADD', BUCKETS, text(it.ends > 0 and it.ends or it.untils), name) == 1
    if is_new and cost_of(name) > 0 then redis.call('HINCRBY', LIMITS, limit_of(name), text(cost_of(name))) end
    it.there, it.begun = true, false
  end
end

-- Writes every changed bucket.
local function save()
  for at = 1, #order do
    local it = buckets[order[at]]
    if it.changed then save_one(it.name, it) end
  end
end

local function leased(it)
  return math.max(math.min(tonumber(redis.call('HGET', LEASED, it.name) or '0'), it.held), 0)
end

local function add_leased(name, amount)
  if amount == 0 then return end
  if redis.call('HINCRBY', LEASED, name, text(amount)) <= 0 then redis.call('HDEL', LEASED, name) end
end

local function hold(it, amount, untils)
  it.held, it.holds = math.min(it.held + amount, MOST), it.holds + 1
  it.untils = math.max(it.untils, untils)
  it.changed = true
end

local function release(it, amount)
  it.held, it.holds = math.max(it.held - amount, 0), math.max(it.holds - 1, 0)
  -- The sum may have saturated at the maximum.
  if it.holds == 0 then it.held, it.untils = 0, 0 end
  it.changed = true
end

-- Releases a hold of a reservation.
local function release_held(reservation, held)
  release(bucket(held[1]), held[2])
  if reservation.lease then add_leased(held[1], -held[2]) end
end

-- Returns whether there is room for another bucket of a limit, including those that this call adds. Same as
-- in shares.rs.
local function has_room(name)
  local limit, cost = limit_of(name), cost_of(name)
  local taken, is_new = {}, true
  local known = redis.call('HGETALL', LIMITS)
  for at = 1, #known, 2 do taken[known[at]] = tonumber(known[at + 1]) end
  for of, more in pairs(created) do taken[of] = (taken[of] or 0) + more end
  local limits, before = 0, taken[limit] or 0
  taken[limit] = before
  for _ in pairs(taken) do limits = limits + 1 end
  limits = math.max(limits, in_force)
  local guaranteed = math.floor(math.floor(total / 2) / limits)
  local more = math.max(before + cost - math.max(before, guaranteed), 0)
  if more == 0 then return true end
  local beyond = 0
  for _, of_limit in pairs(taken) do beyond = beyond + math.max(of_limit - guaranteed, 0) end
  return beyond + more <= total - guaranteed * limits
end

-- Returns the bucket that counts a key: its own bucket, if it exists or there is room for it, else its
-- limit's overflow bucket.
local function seat(name)
  local it = bucket(name)
  if it.there or it.counted or has_room(name) then return it, name end
  local overflow = overflow_of(name)
  return bucket(overflow), overflow
end

-- Takes room for a bucket that is about to be created.
local function sit(it, name)
  if it.there or it.counted then return end
  it.counted = true
  local limit = limit_of(name)
  created[limit] = (created[limit] or 0) + cost_of(name)
end

-- Charges the current slot. Returns what refund() needs to find the charge: the beginning of the slot, and
-- the number of resets.
local function charge_slot(it, amount)
  local slot = it.slot
  if slot and now < slot[1] + math.ceil(it.length / SLOTS) then
    slot[2], slot[3] = math.max(now - slot[1], slot[2]), math.min(slot[3] + amount, MOST)
  else
    if slot then
      local ended = text(slot[1]) .. ' ' .. text(slot[2]) .. ' ' .. text(slot[3]) .. ';'
      if it.first == 0 then it.first = slot[1] + slot[2] + it.length end
      if it.older then
        it.older, it.older_changed = it.older .. ended, true
      else
        it.appended = (it.appended or '') .. ended
      end
    else
      -- Left over from another window.
      it.older, it.older_changed = '', true
    end
    slot = { now, 0, amount }
    it.slot = slot
  end
  if it.ends == 0 then it.begun = true end
  it.ends = slot[1] + slot[2] + it.length
  it.used, it.changed, it.slot_changed = math.min(it.used + amount, MOST), true, true
  return slot[1] + (it.epoch % 32) / 32
end

-- Charges the current window, and starts one if none is running. Returns what refund() needs to find the
-- charge.
local function charge(it, window, amount)
  if amount == 0 or window == 'Now' then return 0 end
  if it.length then return charge_slot(it, amount) end
  if it.ends == 0 then
    it.ends, it.begun = window_end(window), true
  end
  it.used, it.changed = math.min(it.used + amount, MOST), true
  return window_id(it)
end

-- Refunds a charge if its window or slot still counts. A later window never counted it.
local function refund(it, charged, amount)
  if amount == 0 or it.ends == 0 then return end
  if not it.length then
    if window_id(it) == charged then it.used, it.changed = math.max(it.used - amount, 0), true end
    return
  end
  local of_epoch = charged % 1
  if of_epoch ~= (it.epoch % 32) / 32 then return end
  charged = charged - of_epoch
  if it.slot[1] == charged then
    it.slot[3] = math.max(it.slot[3] - amount, 0)
  else
    local older = older_slots(it)
    local at = string.find(';' .. older, ';' .. text(charged) .. ' ', 1, true)
    if not at then return end
    local start, last, had, after = string.match(older, '^(%d+) (%d+) (%d+);()', at)
    it.older, it.older_changed = string.sub(older, 1, at - 1) .. start .. ' ' .. last .. ' '
      .. text(math.max(tonumber(had) - amount, 0)) .. ';' .. string.sub(older, after), true
  end
  it.used, it.changed, it.slot_changed = math.max(it.used - amount, 0), true, true
end

-- Returns when the usage of a sliding window has fallen to this amount, which is when a slot ends.
local function leaves(it, at_most)
  local used = it.used
  for start, last, amount in string.gmatch(older_slots(it), '(%d+) (%d+) (%d+);') do
    used = used - amount
    if used <= at_most then return start + last + it.length end
  end
  return it.ends
end

-- Appends the status of a bucket to the reply: whether it had no room, the remaining amount, ms until its
-- window ends, the charged amount, whether it is the overflow bucket, the granted amount, and what is leased.
local function status(told, it, window, amount, max, limited, overflows)
  local reset
  if window == 'Now' then
    reset = 1000
  elseif it.length then
    local ends = limited and leaves(it, math.max(max - amount, 0)) or it.ends
    reset = it.ends > 0 and ends - now or it.length
  else
    reset = (it.ends > 0 and it.ends or window_end(window)) - now
  end
  local at = #told
  told[at + 1], told[at + 2] = limited and 1 or 0, math.max(max + it.granted - it.used - it.held, 0)
  told[at + 3], told[at + 4], told[at + 5] = reset, it.used, overflows and 1 or 0
  told[at + 6], told[at + 7] = it.granted, limited and leased(it) or 0
end

local function count_lapsed(field, more)
  lapsed[field] = (lapsed[field] or 0) + more
end

-- Charges a hold that lapses, if it is to be charged and its window is not over. Returns the charge.
local function charge_lapsed(held)
  if not held[5] then return end
  local unit, window = string.match(held[1], '^[^"]*"[^"]*","([^"]*)","([^"]*)"')
  local length, lapses = tonumber(string.match(window, '^%d+')), math.min(held[3], now)
  if window == 'Now' or length and lapses + length <= now then return end
  if not length then
    local at = 1
    while held[5][at] and held[5][at] <= lapses do at = at + 1 end
    local ends = held[5][at]
    if not ends or ends <= now then return end
    calendar[window] = ends
  end
  local it = bucket(held[1])
  sit(it, held[1])
  local charged = { held[4] or held[1], held[2], charge(it, window, held[2]), held[4] and held[1], true }
  calendar[window] = nil
  count_lapsed(unit == 'usd' and 'micro_usd' or 'tokens', held[2])
  return charged
end

local function warned_of(name)
  return PREFIX .. 'w:' .. name
end

-- Remembers each threshold that a bucket has reached for the first time in its window. `rule` is the maximum and the
-- percentages.
local function warn(it, asked, rule)
  if not rule or it.used == 0 then return end
  local max, percents = string.match(rule, '^(%d+) (.*)$')
  max = tonumber(max) + it.granted
  local is_new = false
  for percent in string.gmatch(percents, '%d+') do
    if it.used * 100 >= max * tonumber(percent) then
      if not it.warned then
        it.warned = {}
        for known, untils in string.gmatch(redis.call('GET', warned_of(it.name)) or '', '(%d+) (%d+);') do
          if tonumber(untils) > now then it.warned[known] = tonumber(untils) end
        end
      end
      if not it.warned[percent] then
        it.warned[percent], is_new = it.length and now + it.length or it.ends, true
        local numbers = { it.name ~= asked and 1 or 0, tonumber(percent), max, it.used, it.ends - now }
        crossed[#crossed + 1] = { asked = asked, numbers = numbers }
      end
    end
  end
  if not is_new then return end
  local record, last = '', 0
  for percent, untils in pairs(it.warned) do
    record, last = record .. percent .. ' ' .. text(untils) .. ';', math.max(last, untils)
  end
  redis.call('SET', warned_of(it.name), record, 'PXAT', text(last))
end

-- Appends the reached thresholds to a reply of numbers: the position of the bucket in the call, and the numbers.
-- `first` is the position of the call's first bucket in KEYS.
local function report(told, first)
  for of = 1, #crossed do
    local one, at = crossed[of], first
    while KEYS[at] and KEYS[at] ~= one.asked do at = at + 1 end
    told[#told + 1] = at - first + 1
    for _, number in ipairs(one.numbers) do told[#told + 1] = number end
  end
  return told
end

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

-- Adds a charge at a lapse to a reservation or a result.
local function add_lapsed(reservation, charged)
  reservation.advances[#reservation.advances + 1] = charged
  for _, rate in ipairs(reservation.rates or {}) do
    if rate[1] == charged[1] then rate[3] = math.min(rate[3] + charged[2], MOST) end
  end
end

-- Ends all expired holds of a reservation, or all its holds.
local function lapse_one(id, all)
  local name = PREFIX .. 'r:' .. id
  local reservation = known_of(name)
  if not reservation or reservation == 'settled' then
    redis.call('ZREM', LAPSES, id)
    return
  end
  local left, over, next_lapse = {}, 0, nil
  for _, held in ipairs(reservation.holds) do
    if all or held[3] <= now then
      release_held(reservation, held)
      local charged = charge_lapsed(held)
      if charged then add_lapsed(reservation, charged) end
      count_lapsed(charged and 'charged' or 'released', 1)
      over = over + 1
    else
      left[#left + 1] = held
      next_lapse = math.min(next_lapse or held[3], held[3])
    end
  end
  if over > 0 then redis.call('DECRBY', HOLDS, over) end
  reservation.holds = left
  if next_lapse then
    redis.call('ZADD', LAPSES, text(next_lapse), id)
    set(name, cmsgpack.pack(reservation), 'KEEPTTL')
  else
    reservation.live = false
    -- Reading a bucket fails while a cluster moves it. Until all have been read, the next call tries again.
    redis.call('ZREM', LAPSES, id)
    set(name, cmsgpack.pack(reservation), 'PXAT', text(math.max(now + REMEMBERED, reservation.keep or 0)))
  end
end

-- Writes the changes of lapsed reservations.
local function save_lapsed()
  save()
  for field, more in pairs(lapsed) do redis.call('HINCRBY', LAPSED, field, text(more)) end
  lapsed = {}
end

-- Sets what belongs to one call of a batch.
local function begin_call()
  calendar, elsewhere, crossed, created, buckets, order = {}, false, {}, {}, {}, {}
end

-- Sets what belongs to this call of the library. Expired holds end before anything else happens. If there are too
-- many, the others still count until later calls end them. The sweep repeats until none is left.
local function begin(keys, arguments)
  if not INTEGER then set_constants() end
  KEYS, ARGV = keys, arguments
  LAPSES, BUCKETS, HOLDS, LIMITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  PREFIX = string.sub(LAPSES, 1, -string.len('lapses') - 1)
  AMENDED, LEASED = PREFIX .. 'amended', PREFIX .. 'leased'
  LAPSED, STORED = PREFIX .. 'lapsed', PREFIX .. 'stored'
  ID = string.len(PREFIX) + 3
  now = tonumber(ARGV[1])
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  places, places_of_ids, known_terms, texts = {}, {}, {}, {}
  fetched, lapsing, lapsed_ids, deleted, held_more, settled_records = {}, {}, {}, {}, 0, {}
  lapsed, total, each, in_force, is_amended = {}, 0, 0, 1, nil
  begin_call()

  local period = math.floor(now / REMEMBERED)
  NEWEST, PREVIOUS = PREFIX .. 'i:' .. text(period) .. ':', PREFIX .. 'i:' .. text(period - 1) .. ':'

  local due = redis.call('ZRANGEBYSCORE', LAPSES, '-inf', text(now), 'LIMIT', 0, LAPSES_AT_ONCE)
  for _, id in ipairs(due) do lapse_one(id) end
  more_lapses = #due == LAPSES_AT_ONCE
  save_lapsed()
end

-- Registers a function of the library. Functions that release holds or charge usage also run when the server's memory
-- is full. Otherwise it would stay full.
local ALSO_WHEN_FULL = { 'allow-oom' }

local function register(name, run, flags)
  redis.register_function {
    function_name = LIBRARY .. '_' .. name,
    flags = flags,
    callback = function(keys, arguments)
      begin(keys, arguments)
      return run()
    end,
  }
end
