-- Tells: how many bytes the server has stored, how many it may (0: as many as it can), how many the machine has.

local info = redis.call('INFO', 'memory')
local function number(name)
  return tonumber(string.match(info, name .. ':(%d+)') or '0')
end
return { number('used_memory'), number('maxmemory'), number('total_system_memory') }
