-- Asks and charges without a hold. KEYS[4]... the buckets; ARGV[2] the most buckets, then for each: window, room that is
-- needed, max, charge, whether it is charged in any case.
-- Tells: whether all had room, how many charges found no place, then the buckets' statuses.

local FIELDS, FIRST = 5, 3
local most = tonumber(ARGV[2])
local wants, admitted, dropped = {}, true, 0
for at = 4, #KEYS do
  local field = FIRST + (at - 4) * FIELDS
  local it = bucket(KEYS[at])
  local want = {
    it = it, window = ARGV[field], need = tonumber(ARGV[field + 1]), max = tonumber(ARGV[field + 2]),
    charge = tonumber(ARGV[field + 3]), always = ARGV[field + 4] == '1',
  }
  wants[#wants + 1] = want
  want.limited = it.used + it.held + (it.asked or 0) + want.need > want.max
  if want.limited then admitted = false else it.asked = (it.asked or 0) + want.need end
end
local charged = {}
for _, want in ipairs(wants) do
  if (admitted or want.always) and want.charge > 0 and want.window ~= 'Now' then
    if has_place(want.it, most) then
      charged[#charged + 1] = want
    elseif want.always then
      dropped = dropped + 1
    else
      return redis.error_reply('WEIRFULL as many counters as allowed')
    end
  end
end
for _, want in ipairs(charged) do charge(want.it, want.window, want.charge) end
save()
local told = { admitted and 1 or 0, dropped }
for _, want in ipairs(wants) do status(told, want.it, want.window, want.max, want.limited) end
return told
