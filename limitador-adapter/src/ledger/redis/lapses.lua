-- The ends of holds that no commit has ended.

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
