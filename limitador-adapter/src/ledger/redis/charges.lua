-- Holds and charges in buckets: leases, room for new buckets, windows, and the status of a bucket.

local function leased(it)
  return math.max(math.min(tonumber(redis.call('HGET', LEASED, it.name) or '0'), it.held), 0)
end

local function add_leased(name, amount)
  if amount == 0 then return end
  if redis.call('HINCRBY', LEASED, name, text(amount)) <= 0 then redis.call('HDEL', LEASED, name) end
end

local function hold(it, amount, untils)
  it.held, it.holds = math.min(it.held + amount, MOST), it.holds + 1
  if untils > it.untils then it.untils = untils end
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
