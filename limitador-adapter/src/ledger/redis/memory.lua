-- Returns the bytes that the server stores, its maxmemory (0: unlimited), the memory of its machine, and a number
-- that identifies the server.

redis.register_function {
  function_name = LIBRARY .. '_memory',
  flags = ALSO_WHEN_FULL,
  callback = function()
    local info = redis.call('INFO', 'memory')
    local function number(name)
      return tonumber(string.match(info, name .. ':(%d+)') or '0')
    end
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '0'
    local server = tonumber(string.sub(run, 1, 12), 16)
    return { number('used_memory'), number('maxmemory'), number('total_system_memory'), server }
  end,
}
