-- Ends a reservation. KEYS[4] the reservation, then the buckets; ARGV[2] its id (empty: not to be remembered), [3] the
-- most buckets, then for each bucket: window, amount.
-- Tells: 0 its holds are let go, 1 there were none, 2 it was settled before; how many charges found no place.

local FIELDS, FIRST = 2, 4
local reservation, id, most = KEYS[4], ARGV[2], tonumber(ARGV[3])
local record = redis.call('GET', reservation)
if record == 'settled' then return { 2, 0 } end

local settled, advances = 1, {}
if record then
  local known = cmsgpack.unpack(record)
  advances = known.advances
  if known.live then
    settled = 0
    for _, held in ipairs(known.holds) do release(bucket(held[1]), held[2]) end
    if #known.holds > 0 then redis.call('DECRBY', HOLDS, #known.holds) end
    redis.call('ZREM', LAPSES, id)
  end
end

-- What goes beyond the admission's own charges is charged, and what those had too much is given back, unless their
-- window is over: another never had it. A bucket that is not named keeps its advance.
local dropped = 0
for at = 5, #KEYS do
  local field = FIRST + (at - 5) * FIELDS
  local name, it, window, amount = KEYS[at], bucket(KEYS[at]), ARGV[field], tonumber(ARGV[field + 1])
  for _, advance in ipairs(advances) do
    if advance[1] == name then
      local confirmed = math.min(amount, advance[2])
      if it.ends == advance[3] and it.ends > 0 then
        it.used, it.changed = math.max(it.used - (advance[2] - confirmed), 0), true
      end
      advance[2] = 0
      amount = amount - confirmed
    end
  end
  if amount > 0 and window ~= 'Now' and not has_place(it, most) then
    dropped = dropped + 1
  else
    charge(it, window, amount)
  end
end
save()
if id == '' then
  redis.call('DEL', reservation)
else
  redis.call('SET', reservation, 'settled', 'PX', text(REMEMBERED))
end
return { settled, dropped }
