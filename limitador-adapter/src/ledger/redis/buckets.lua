-- Buckets: their names and sizes, their slots and an operator's changes, and how they are read and written.

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
