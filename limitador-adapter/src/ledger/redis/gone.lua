-- Ends the holds of gone workers, for a part of the reservations. KEYS[5] is the sorted set of workers by the
-- time when they count as gone. ARGV[2] is the deciding time in ms (0: now), [3] where to continue (0: at the
-- beginning), and [4] the number of reservations to inspect. Returns the deciding time, where to continue (0:
-- all are done), and the number of ended reservations.

register('gone', function()
  local decides = tonumber(ARGV[2])
  if decides == 0 then decides = now end
  local gone, any = {}, false
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', text(decides))) do
    gone[worker], any = true, true
  end
  if not any then return { decides, 0, 0 } end

  local page = redis.call('ZSCAN', LAPSES, ARGV[3], 'COUNT', ARGV[4])
  local ended = 0
  for at = 1, #page[2], 2 do
    local id = page[2][at]
    if gone[string.match(id, '^(%x+)%-')] then
      lapse_one(id, true)
      ended = ended + 1
    end
  end
  save_lapsed()
  if page[1] == '0' then
    for worker in pairs(gone) do redis.call('ZREM', KEYS[5], worker) end
  end
  return { decides, tonumber(page[1]), ended }
end, ALSO_WHEN_FULL)
