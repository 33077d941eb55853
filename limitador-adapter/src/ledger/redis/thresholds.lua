-- The thresholds that charges reach.

local function warned_of(name)
  return PREFIX .. 'w:' .. name
end

-- Remembers each threshold that a bucket has reached for the first time in its window. `rule` is the maximum and the
-- percentages.
local function warn(it, asked, rule)
  if not rule or it.used == 0 then return end
  local max, percents = string.match(rule, '^(%d+) (.*)$')
  max = tonumber(max) + it.granted
  local is_new = false
  for percent in string.gmatch(percents, '%d+') do
    if it.used * 100 >= max * tonumber(percent) then
      if not it.warned then
        it.warned = {}
        for known, untils in string.gmatch(redis.call('GET', warned_of(it.name)) or '', '(%d+) (%d+);') do
          if tonumber(untils) > now then it.warned[known] = tonumber(untils) end
        end
      end
      if not it.warned[percent] then
        it.warned[percent], is_new = it.length and now + it.length or it.ends, true
        local numbers = { it.name ~= asked and 1 or 0, tonumber(percent), max, it.used, it.ends - now }
        crossed[#crossed + 1] = { asked = asked, numbers = numbers }
      end
    end
  end
  if not is_new then return end
  local record, last = '', 0
  for percent, untils in pairs(it.warned) do
    record, last = record .. percent .. ' ' .. text(untils) .. ';', math.max(last, untils)
  end
  redis.call('SET', warned_of(it.name), record, 'PXAT', text(last))
end

-- Appends the reached thresholds to a reply of numbers: the position of the bucket in the call, and the numbers.
-- `first` is the position of the call's first bucket in KEYS.
local function report(told, first)
  for of = 1, #crossed do
    local one, at = crossed[of], first
    while KEYS[at] and KEYS[at] ~= one.asked do at = at + 1 end
    told[#told + 1] = at - first + 1
    for _, number in ipairs(one.numbers) do told[#told + 1] = number end
  end
  return told
end
