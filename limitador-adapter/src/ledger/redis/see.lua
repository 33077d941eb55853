-- Records that a background result was seen. ARGV[2] is its id, [3] the room for counters and [4] the usage,
-- followed by the periods of its rates. Returns nothing if the result is unknown. Otherwise, returns the estimated
-- input; for each rate the bucket, the amount that was charged, and the amount charged so far; then an empty text,
-- and for each threshold that was reached its bucket and numbers. Or returns -1, the time, and the periods whose
-- bounds it needs.

register('see', function()
  local id, usage = ARGV[2], numbers(ARGV[4])
  set_room(ARGV[3])
  local result = known_of(stored_name(id))
  if not result then
    local known = redis.call('GET', early_name(id))
    local before = known and numbers(known)
    -- Same as Sighting::supersedes.
    local worth = function(it) return it[9] * 2 + 1 - it[1] end
    if not before or worth(usage) > worth(before) or worth(usage) == worth(before) and usage[8] >= before[8] then
      redis.call('SET', early_name(id), ARGV[4], 'PX', text(EARLY))
    end
    return {}
  end
  for at = 5, #ARGV do window_of(ARGV[at]) end
  local missing = { '-1', text(now) }
  for _, rate in ipairs(result.rates) do
    local window = rate[2]
    if is_period(window) and (elsewhere or not calendar[window]) then
      missing[#missing + 1] = window
    end
  end
  if #missing > 2 then return missing end
  local told = { text(result.input) }
  for at, more in ipairs(see(result, usage)) do
    local rate = result.rates[at]
    told[#told + 1] = rate[1]
    told[#told + 1] = text(more)
    told[#told + 1] = text(rate[3])
  end
  save()
  save_result(id, result)
  told[#told + 1] = ''
  for _, one in ipairs(crossed) do
    told[#told + 1] = one.asked
    for _, number in ipairs(one.numbers) do told[#told + 1] = text(number) end
  end
  return told
end, ALSO_WHEN_FULL)
