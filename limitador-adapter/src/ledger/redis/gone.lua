-- Ends the holds of the workers that are gone, of some reservations at a time. KEYS[5] workers by the time until which they
-- are taken to live; ARGV[2] the time that decides, in ms (0: now), [3] where to go on (0: at the beginning), [4] how many
-- reservations to look at.
-- Tells: the time that decides, where to go on (0: this was all), how many reservations ended.

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
save()
if page[1] == '0' then
  for worker in pairs(gone) do redis.call('ZREM', KEYS[5], worker) end
end
return { decides, tonumber(page[1]), ended }
