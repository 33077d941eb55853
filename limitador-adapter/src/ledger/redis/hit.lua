-- Checks and charges without a hold. KEYS[5]... are the buckets. ARGV[2] is the room for counters and [3] the
-- thresholds, followed for each bucket by: window, required room, max, charge, whether it is charged in any
-- case, and whether it refuses. Returns -1 and the time; or whether all had room, the buckets' statuses, and
-- the thresholds that were reached.

local FIELDS, FIRST = 6, 4
set_room(ARGV[2])
set_rules(ARGV[3])
local wants, admitted = {}, true
for at = 5, #KEYS do
  local field = FIRST + (at - 5) * FIELDS
  local it, name = seat(KEYS[at])
  local want = {
    it = it, name = name, overflows = name ~= KEYS[at], window = window_of(ARGV[field]), need = tonumber(ARGV[field + 1]),
    max = tonumber(ARGV[field + 2]), charge = tonumber(ARGV[field + 3]), always = ARGV[field + 4] == '1',
    refuses = ARGV[field + 5] == '1',
  }
  wants[#wants + 1] = want
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
    warn(want.it, KEYS[at + 4], rules[at + 4])
  end
end
save()
local told = { admitted and 1 or 0 }
for _, want in ipairs(wants) do
  status(told, want.it, want.window, want.need, want.max, want.limited, want.overflows)
end
return report(told)
