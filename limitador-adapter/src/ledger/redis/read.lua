-- Returns the state of buckets, and changes none. KEYS[5]... are the buckets. ARGV[2] is the room for counters,
-- followed by the window of each bucket. Returns -1 and the time; or for each bucket: whether its key is counted in
-- the overflow bucket, what is charged, held, leased and granted, and ms until the window ends, or one that would begin
-- now.

register('read', function()
  set_room(ARGV[2])
  local told = {}
  for at = 5, #KEYS do
    local it, name = seat(KEYS[at])
    local window = window_of(ARGV[at - 2])
    local reset = 1000
    if window ~= 'Now' then
      reset = (it.ends > 0 and it.ends or it.length and now + it.length or window_end(window)) - now
    end
    told[#told + 1] = name == KEYS[at] and 0 or 1
    told[#told + 1] = it.used
    told[#told + 1] = it.held
    told[#told + 1] = leased(it)
    told[#told + 1] = it.granted
    told[#told + 1] = reset
  end
  if elsewhere then return { -1, now } end
  return told
end, ALSO_WHEN_FULL)
