-- Ends a reservation. KEYS[5] is the reservation, followed by the buckets. ARGV[2] is its id (empty: it is
-- not remembered), [3] the room for counters, [4] the background result that it created (empty: none), [5]
-- the estimated input and [6] the thresholds. Then follow for each bucket: window, amount, and the charges
-- that wait until the result is seen (empty: none): the part that is charged now, and the cost. Returns -1 and
-- the time; or 0 if holds were released, 1 if there were none, 2 if it was settled before, 3 if charges are
-- deferred; then the shards of the reservation (0: all of it is here, or it is unknown); then, for each
-- deferred charge, the amount that an earlier read charged; then the thresholds that were reached.

local FIELDS, FIRST = 3, 7
local reservation, id, stored = KEYS[5], ARGV[2], ARGV[4]
set_room(ARGV[3])
set_rules(ARGV[6])
local windows = {}
for at = 6, #KEYS do windows[at] = window_of(ARGV[FIRST + (at - 6) * FIELDS]) end
if elsewhere then return { -1, now } end
local known = known_of(reservation)
if known == 'settled' then return { 2, 0 } end
local created = stored ~= '' and creation(stored, id)
if created == 'old' then return { 2, 0 } end
local result
if created then
  result = { live = true, holds = {}, advances = {}, rates = {}, creator = id, input = tonumber(ARGV[5]), keep = now + UNSEEN }
end
-- The deferred charges by bucket.
local deferred = {}
for at = 6, #KEYS do
  local later = ARGV[FIRST + (at - 6) * FIELDS + 2]
  if result and later ~= '' then deferred[KEYS[at]] = numbers(later) end
end

local settled, advances, redirected = 1, {}, {}
if known then
  advances = known.advances
  if known.live then
    settled = 0
    local released = 0
    for _, held in ipairs(known.holds) do
      if deferred[held[4] or held[1]] then
        result.holds[#result.holds + 1] = held
      else
        release(bucket(held[1]), held[2])
        released = released + 1
      end
      if held[4] then redirected[held[4]] = held[1] end
    end
    if released > 0 then redis.call('DECRBY', HOLDS, released) end
    redis.call('ZREM', LAPSES, id)
  end
end

-- A bucket is charged the amount beyond its charges before the commit. An excess is refunded if its window is
-- still running, since a later window never counted it. If a bucket is not named, a charge at admission stays,
-- and one at a lapse is refunded. A hold in the overflow bucket is charged there.
local is_empty = true
for at = 6, #KEYS do
  local field = FIRST + (at - 6) * FIELDS
  local asked, window, amount = KEYS[at], windows[at], tonumber(ARGV[field + 1])
  if amount > 0 and window ~= 'Now' then is_empty = false end
  local later = deferred[asked]
  if later then
    amount = 0
    local now_charged = table.remove(later, 1)
    local rate = { asked, window, 0, later, rules[at] }
    result.rates[#result.rates + 1] = rate
    charge_up_to(result, rate, now_charged)
  end
  for _, advance in ipairs(advances) do
    if advance[1] == asked then
      local confirmed, it = math.min(amount, advance[2]), bucket(advance[4] or asked)
      refund(it, advance[3], advance[2] - confirmed)
      if known.attempt and confirmed > 0 then warn(it, asked, rules[at]) end
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
    warn(it, asked, rules[at])
  end
end
for _, advance in ipairs(advances) do
  if advance[5] then refund(bucket(advance[4] or advance[1]), advance[3], advance[2]) end
end
local told = { settled, known and known.shards or 0 }
if result then
  told[1], is_empty = 3, false
  local before = known_of(stored_name(stored))
  if before then
    for _, held in ipairs(before.holds) do release(bucket(held[1]), held[2]) end
    if #before.holds > 0 then redis.call('DECRBY', HOLDS, #before.holds) end
  end
  local early, seen = redis.call('GET', early_name(stored)), {}
  if early then
    redis.call('DEL', early_name(stored))
    seen = see(result, numbers(early))
  end
  for at = 1, #result.rates do told[#told + 1] = seen[at] or 0 end
end
save()
if result then save_result(stored, result) end
if id == '' then
  redis.call('DEL', reservation)
elseif is_empty then
  -- Repeating this commit changes nothing. It is remembered only for a reserve that may still arrive.
  redis.call('SET', reservation, 'over ' .. text(now + BRIEFLY), 'PX', text(BRIEFLY))
else
  redis.call('DEL', reservation)
  settle(id)
end
return report(told)
