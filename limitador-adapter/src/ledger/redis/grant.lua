-- Raises the maximum of a bucket until its window ends, and starts the window if none is running. KEYS[5] is
-- the bucket, and KEYS[6] the record of the grant's id. ARGV[2] is the room for counters, [3] the window, [4]
-- the amount, and [5] how long the id is remembered after the window, in ms. Returns -1 and the time; or 0 if
-- the amount is granted, 1 if the id is known, 2 if there is no room for another counter; then the charged,
-- held, leased and granted amounts, and ms until the window ends (0: none is running).

register('grant', function()
  set_room(ARGV[2])
  local window = window_of(ARGV[3])
  if elsewhere then return { -1, now } end
  local settled, it, name = 0, seat(KEYS[5])
  if tonumber(redis.call('GET', KEYS[6]) or '0') > now then
    settled, it = 1, bucket(KEYS[5])
  elseif name ~= KEYS[5] then
    return { 2, 0, 0, 0, 0, 0 }
  else
    sit(it, name)
    if it.ends == 0 then it.ends, it.begun = window_end(window), true end
    it.granted, it.changed = math.min(it.granted + tonumber(ARGV[4]), MOST), true
    save_amendment(name, it, it.ends)
    local remembered = text(it.ends + tonumber(ARGV[5]))
    redis.call('SET', KEYS[6], remembered, 'PXAT', remembered)
    save()
  end
  return { settled, it.used, it.held, leased(it), it.granted, it.ends > 0 and it.ends - now or 0 }
end, ALSO_WHEN_FULL)
