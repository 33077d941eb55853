-- Resets buckets: removes their charges, grants and reached thresholds, and starts their windows anew.
-- KEYS[5]... are the buckets. Returns for each bucket whether it had a charge or a grant.

register('reset', function()
  local told = {}
  for at = 5, #KEYS do
    local it = bucket(KEYS[at])
    told[#told + 1] = (it.used > 0 or it.granted > 0) and 1 or 0
    redis.call('DEL', warned_of(KEYS[at]))
    if it.ends > 0 then
      local ends = it.ends
      it.used, it.ends, it.granted, it.epoch, it.changed = 0, 0, 0, it.epoch + 1, true
      it.slot, it.first, it.older, it.appended = nil, 0, '', nil
      save_amendment(KEYS[at], it, ends)
    end
  end
  save()
  return told
end, ALSO_WHEN_FULL)
