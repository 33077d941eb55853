-- Raises the holds of a reservation, even if there is no room. KEYS[5] is the reservation, followed by the
-- buckets. ARGV[2...] are for each bucket: the total to hold, max, and whether lack of room is reported.
-- Returns 0 if there is room, 1 if a reported bucket has none, 2 if the reservation has no live hold.

register('raise', function()
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
  set(reservation, cmsgpack.pack(known), 'KEEPTTL')
  for _, one in ipairs(raised) do
    if one.matters and one.it.used + one.it.held > one.max + one.it.granted then return { 1 } end
  end
  return { 0 }
end, ALSO_WHEN_FULL)
