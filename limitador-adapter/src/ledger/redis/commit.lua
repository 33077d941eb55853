-- Ends a reservation. KEYS[5] the reservation, then the buckets; ARGV[2] its id (empty: not to be remembered), [3] the
-- room for counters, then for each bucket: window, amount.
-- Tells: 0 its holds are let go, 1 there were none, 2 it was settled before.

local FIELDS, FIRST = 2, 4
local reservation, id = KEYS[5], ARGV[2]
set_room(ARGV[3])
local known = known_of(reservation)
if known == 'settled' then return { 2 } end

local settled, advances, redirected = 1, {}, {}
if known then
  advances = known.advances
  if known.live then
    settled = 0
    for _, held in ipairs(known.holds) do
      release(bucket(held[1]), held[2])
      if held[4] then redirected[held[4]] = held[1] end
    end
    if #known.holds > 0 then redis.call('DECRBY', HOLDS, #known.holds) end
    redis.call('ZREM', LAPSES, id)
  end
end

-- What goes beyond the admission's own charges is charged, and what those had too much is given back, unless their
-- window is over: another never had it. A bucket that is not named keeps its advance. What was held in the overflow
-- bucket is charged there.
local is_empty = true
for at = 6, #KEYS do
  local field = FIRST + (at - 6) * FIELDS
  local asked, window, amount = KEYS[at], ARGV[field], tonumber(ARGV[field + 1])
  if amount > 0 and window ~= 'Now' then is_empty = false end
  for _, advance in ipairs(advances) do
    if advance[1] == asked then
      local confirmed, it = math.min(amount, advance[2]), bucket(advance[4] or asked)
      if it.ends == advance[3] and it.ends > 0 then
        it.used, it.changed = math.max(it.used - (advance[2] - confirmed), 0), true
      end
      advance[2] = 0
      amount = amount - confirmed
    end
  end
  if amount > 0 and window ~= 'Now' then
    local it, name
    if redirected[asked] then
      it, name = bucket(redirected[asked]), redirected[asked]
    else
      it, name = seat(asked)
    end
    sit(it, name)
    charge(it, window, amount)
  end
end
save()
if id == '' then
  redis.call('DEL', reservation)
elseif is_empty then
  -- Repeating it changes nothing: it only has to be known to a reserve that is still on its way.
  redis.call('SET', reservation, 'over ' .. text(now + BRIEFLY), 'PX', text(BRIEFLY))
else
  redis.call('SET', reservation, 'settled', 'PX', text(REMEMBERED))
end
return { settled }
