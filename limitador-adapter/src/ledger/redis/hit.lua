-- Checks and charges without a hold. The arguments of a call are for each bucket its terms, the required room, and the
-- charge. The terms are "WINDOW;MAX;ALWAYS;REFUSES;RULE": whether it is charged in any case, whether lack of room
-- refuses (0 or 1 each), and the thresholds. Returns -1 and the time; or whether all had room, the buckets' statuses,
-- and the thresholds that were reached.

local OWN_KEYS, OWN_ARGUMENTS, FIELDS = 0, 0, 3

local function parse_terms(text)
  local window, max, always, refuses, rule = string.match(text, '^([^;]*);(%d+);([01]);([01]);([^;]*)$')
  return { window = window, max = tonumber(max), always = always == '1', refuses = refuses == '1', rule = rule }
end

local function hit(key, field, count)
  local wants, admitted = {}, true
  for at = 1, count do
    local asked = KEYS[key + at - 1]
    local it, name = seat(asked)
    local want = {
      it = it, name = name, asked = asked, terms = terms_of(ARGV[field], parse_terms),
      need = tonumber(ARGV[field + 1]), charge = tonumber(ARGV[field + 2]), limited = false,
    }
    field = field + FIELDS
    wants[at] = want
    want.limited = it.used + it.held + (it.asked or 0) + want.need > want.terms.max + it.granted
    if want.limited and want.terms.refuses then
      admitted = false
    else
      sit(it, name)
      it.asked = (it.asked or 0) + want.need
    end
  end
  if elsewhere then return { -1, now } end
  for _, want in ipairs(wants) do
    local terms = want.terms
    if (admitted or terms.always) and want.charge > 0 and terms.window ~= 'Now' then
      sit(want.it, want.name)
      charge(want.it, terms.window, want.charge)
      warn(want.it, want.asked, terms.rule)
    end
  end
  save()
  -- The list has room for the status of a bucket, so it need not grow.
  local told = { admitted and 1 or 0, nil, nil, nil, nil, nil, nil, nil }
  for _, want in ipairs(wants) do
    status(told, want.it, want.terms.window, want.need, want.terms.max, want.limited, want.name ~= want.asked)
  end
  return report(told, key)
end

register('hit', batch_of(hit, OWN_KEYS, OWN_ARGUMENTS, FIELDS))
