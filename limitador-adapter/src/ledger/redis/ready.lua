-- Succeeds if the server can store something: a Redis without free memory rejects this function.

redis.register_function {
  function_name = LIBRARY .. '_ready',
  callback = function()
    return { 1 }
  end,
}
