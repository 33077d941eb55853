-- Ends a reservation, which is the first key of a call (without an id: it is not remembered). Its own argument is the
-- background result that it created (empty: none): the estimated input and its id. Then follow for each bucket its
-- terms "WINDOW;RULE" and the amount. RULE is the thresholds. The amount is "AMOUNT" or "AMOUNT;LATER;DRAW". LATER is
-- the charges that wait until the result is seen (empty: none): the part that is charged now, and the cost. DRAW is
-- what leaves a lease if the reservation is unknown. Returns -1 and the time; or 0 if holds were released, 1 if there
-- were none, 2 if it was settled before, 3 if charges are deferred; then the shards of the reservation (0: all of it is
-- here, or it is unknown); then, for each deferred charge, the amount that an earlier read charged; then the thresholds
-- that were reached.

local OWN_KEYS, OWN_ARGUMENTS, FIELDS = 1, 1, 2

-- Releases the holds of a reservation, except those with deferred charges, which become the result's. Returns the
-- buckets where amounts are held that were requested from others.
local function release_holds(known, deferred, result)
  local redirected = {}
  for at = 1, #known.holds do
    local held = known.holds[at]
    if deferred[held[4] or held[1]] then
      result.holds[#result.holds + 1] = held
    else
      release_held(known, held)
      held_more = held_more - 1
    end
    if held[4] then redirected[held[4]] = held[1] end
  end
  return redirected
end

-- Returns the part of an amount that the charges before the commit do not cover. An excess is refunded if its window
-- is still running, since a later window never counted it.
local function beyond(known, asked, amount, rule)
  for at = 1, #known.advances do
    local advance = known.advances[at]
    if advance[1] == asked then
      local confirmed, it = math.min(amount, advance[2]), bucket(advance[4] or asked)
      refund(it, advance[3], advance[2] - confirmed)
      if known.attempt and confirmed > 0 then warn(it, asked, rule) end
      advance[2] = 0
      amount = amount - confirmed
    end
  end
  return amount
end

-- Replaces the result with this id. Appends to the reply what an earlier read charges for each deferred charge.
local function supersede(stored, result, told)
  local before = known_of(stored_name(stored))
  if before then
    for _, held in ipairs(before.holds) do release(bucket(held[1]), held[2]) end
    held_more = held_more - #before.holds
  end
  local early, seen = redis.call('GET', early_name(stored)), {}
  if early then
    redis.call('DEL', early_name(stored))
    seen = see(result, numbers(early))
  end
  for at = 1, #result.rates do told[#told + 1] = seen[at] or 0 end
end

local function delete_later(key)
  fetched[key], deleted[key] = false, true
end

local function parse_terms(text)
  local window, rule = string.match(text, '^([^;]*);([^;]*)$')
  return { window = window, rule = rule }
end

local function charges_of(key, field, count)
  local charges = {}
  for at = 1, count do
    local amount, later, drawn = tonumber(ARGV[field + 1]), '', ''
    if not amount then
      amount, later, drawn = string.match(ARGV[field + 1], '^(%d+);([^;]*);(.*)$')
      amount = tonumber(amount)
    end
    local terms = terms_of(ARGV[field], parse_terms)
    charges[at] = { asked = KEYS[key + at], terms = terms, amount = amount, later = later, drawn = drawn }
    field = field + FIELDS
  end
  return charges
end

local function commit(key, field, count)
  local reservation, id = KEYS[key], string.sub(KEYS[key], ID)
  local input, stored
  if ARGV[field] ~= '' then input, stored = string.match(ARGV[field], '^(%d+) (.*)$') end
  local charges = charges_of(key, field + OWN_ARGUMENTS, count)
  if elsewhere then return { -1, now } end
  local known = known_of(reservation)
  if known == 'settled' then return { 2, 0 } end
  local created = stored and creation(stored, id)
  if created == 'old' then return { 2, 0 } end
  -- The deferred charges by bucket.
  local result, deferred = nil, {}
  if created then
    input = tonumber(input)
    result = { live = true, holds = {}, advances = {}, rates = {}, creator = id, input = input, keep = now + UNSEEN }
    for _, one in ipairs(charges) do
      if one.later ~= '' then deferred[one.asked] = numbers(one.later) end
    end
  end

  local settled, redirected = 1, {}
  if not known then
    for at = 1, count do draw(charges[at].drawn, charges[at].asked) end
  end
  if known and known.live then
    settled, redirected = 0, release_holds(known, deferred, result)
    lapsed_ids[#lapsed_ids + 1] = id
  end

  -- If a bucket is not named, a charge at admission stays, and one at a lapse is refunded. A hold in the overflow
  -- bucket is charged there.
  local is_empty = true
  for at = 1, count do
    local one = charges[at]
    local asked, window, amount, rule = one.asked, one.terms.window, one.amount, one.terms.rule
    if amount > 0 and window ~= 'Now' then is_empty = false end
    local later = deferred[asked]
    if later then
      amount = 0
      local now_charged = table.remove(later, 1)
      local rate = { asked, window, 0, later, rule }
      result.rates[#result.rates + 1] = rate
      charge_up_to(result, rate, now_charged)
    end
    if known then amount = beyond(known, asked, amount, rule) end
    if amount > 0 and window ~= 'Now' then
      local it, name
      if redirected[asked] then
        it, name = bucket(redirected[asked]), redirected[asked]
      else
        it, name = seat(asked)
      end
      sit(it, name)
      charge(it, window, amount)
      warn(it, asked, rule)
    end
  end
  for at = 1, known and #known.advances or 0 do
    local advance = known.advances[at]
    if advance[5] then refund(bucket(advance[4] or advance[1]), advance[3], advance[2]) end
  end
  local told = { settled, known and known.shards or 0 }
  if result then
    told[1], is_empty = 3, false
    supersede(stored, result, told)
  end
  save()
  if result then save_result(stored, result) end
  if id == '' then
    delete_later(reservation)
  elseif is_empty then
    -- Repeating this commit changes nothing. It is remembered only for a reserve that may still arrive.
    set(reservation, 'over ' .. text(now + BRIEFLY), 'PX', text(BRIEFLY))
  else
    delete_later(reservation)
    settle(reservation)
  end
  return report(told, key + 1)
end

register('commit', batch_of(commit, OWN_KEYS, OWN_ARGUMENTS, FIELDS), ALSO_WHEN_FULL)
