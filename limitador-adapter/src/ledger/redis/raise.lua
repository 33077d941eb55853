-- Holds more for a reservation that has come to use more, whether there is room or not. KEYS[5] the reservation, then the
-- buckets; for each bucket ARGV[2...]: what to hold in all, max, whether it matters that there is no room.
-- Tells: 0 there is room, 1 one that matters has none, 2 no hold of this id lives.

local FIELDS, FIRST = 3, 2
local reservation = KEYS[5]
local known = known_of(reservation)
if not known or known == 'settled' or not known.live then return { 2 } end

local raised = {}
for at = 6, #KEYS do
  local field = FIRST + (at - 6) * FIELDS
  local total, max, matters = tonumber(ARGV[field]), tonumber(ARGV[field + 1]), ARGV[field + 2] == '1'
  for _, held in ipairs(known.holds) do
    if (held[4] or held[1]) == KEYS[at] then
      local it = bucket(held[1])
      if total > held[2] then
        it.held, it.changed = math.min(it.held + total - held[2], MOST), true
        held[2] = total
      end
      raised[#raised + 1] = { it = it, max = max, matters = matters }
      break
    end
  end
end
save()
redis.call('SET', reservation, cmsgpack.pack(known), 'KEEPTTL')
for _, one in ipairs(raised) do
  if one.matters and one.it.used + one.it.held > one.max + one.it.granted then return { 1 } end
end
return { 0 }
