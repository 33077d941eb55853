-- Asks and charges without a hold. KEYS[5]... the buckets; ARGV[2] the room for counters, then for each: window, room that
-- is needed, max, charge, whether it is charged in any case, whether it refuses.
-- Tells: -1 and the time, or whether all had room, then the buckets' statuses.

local FIELDS, FIRST = 6, 3
set_room(ARGV[2])
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
for _, want in ipairs(wants) do
  if (admitted or want.always) and want.charge > 0 and want.window ~= 'Now' then
    sit(want.it, want.name)
    charge(want.it, want.window, want.charge)
  end
end
save()
local told = { admitted and 1 or 0 }
for _, want in ipairs(wants) do
  status(told, want.it, want.window, want.need, want.max, want.limited, want.overflows)
end
return told
