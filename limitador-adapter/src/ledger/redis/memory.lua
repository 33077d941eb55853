-- Returns the bytes that the server stores, its maxmemory (0: unlimited), and the memory of its machine.

local info = redis.call('INFO', 'memory')
local function number(name)
  return tonumber(string.match(info, name .. ':(%d+)') or '0')
end
return { number('used_memory'), number('maxmemory'), number('total_system_memory') }
