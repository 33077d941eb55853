-- Takes back what an attempt to reserve in several shards has taken here, even if it has lapsed meanwhile.
-- KEYS[5] is the reservation, followed by buckets. ARGV[2] is its id, [3] the room for counters, and [4] the
-- attempt. If the reservation is settled, or if a later attempt has taken it over, nothing changes. Returns for
-- each bucket the charged and the held amount, and ms until its window ends (0 if none is running).

register('cancel', function()
  local reservation, id = KEYS[5], ARGV[2]
  set_room(ARGV[3])
  local known = known_of(reservation)
  if known and known ~= 'settled' and known.attempt == ARGV[4] then
    for _, held in ipairs(known.holds) do release_held(known, held) end
    for _, advance in ipairs(known.advances) do
      local it = bucket(advance[4] or advance[1])
      refund(it, advance[3], advance[2])
      -- If the window began with this charge and counts nothing else, it has never begun.
      if advance[6] and it.used == 0 and it.granted == 0 and not it.length then it.ends, it.changed = 0, true end
    end
    save()
    if #known.holds > 0 then redis.call('DECRBY', HOLDS, #known.holds) end
    redis.call('ZREM', LAPSES, id)
    delete(reservation)
  end
  local told = {}
  for at = 6, #KEYS do
    local it = seat(KEYS[at])
    told[#told + 1] = it.used
    told[#told + 1] = it.held
    told[#told + 1] = it.ends > 0 and it.ends - now or 0
  end
  return told
end, ALSO_WHEN_FULL)
