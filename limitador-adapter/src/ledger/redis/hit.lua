-- Checks and charges without a hold. A call's own argument is the thresholds, followed for each bucket by: window,
-- required room, max, charge, whether it is charged in any case, and whether it refuses. Returns -1 and the time; or
-- whether all had room, the buckets' statuses, and the thresholds that were reached.

local OWN_KEYS, OWN_ARGUMENTS, FIELDS = 0, 1, 6

local function hit(key, field, count)
  set_rules(ARGV[field])
  field = field + OWN_ARGUMENTS
  local wants, admitted = {}, true
  for at = 1, count do
    local asked = KEYS[key + at - 1]
    local it, name = seat(asked)
    local want = {
      it = it, name = name, asked = asked, window = window_of(ARGV[field]), need = tonumber(ARGV[field + 1]),
      max = tonumber(ARGV[field + 2]), charge = tonumber(ARGV[field + 3]), always = ARGV[field + 4] == '1',
      refuses = ARGV[field + 5] == '1',
    }
    field = field + FIELDS
    wants[at] = want
    want.limited = it.used + it.held + (it.asked or 0) + want.need > want.max + it.granted
    if want.limited and want.refuses then
      admitted = false
    else
      sit(it, name)
      it.asked = (it.asked or 0) + want.need
    end
  end
  if elsewhere then return { -1, now } end
  for at, want in ipairs(wants) do
    if (admitted or want.always) and want.charge > 0 and want.window ~= 'Now' then
      sit(want.it, want.name)
      charge(want.it, want.window, want.charge)
      warn(want.it, want.asked, rules[at])
    end
  end
  save()
  local told = { admitted and 1 or 0 }
  for _, want in ipairs(wants) do
    status(told, want.it, want.window, want.need, want.max, want.limited, want.name ~= want.asked)
  end
  return report(told, key)
end

register('hit', batch_of(hit, OWN_KEYS, OWN_ARGUMENTS, FIELDS))
