-- Calls every command that Weir uses, with a key that nothing else uses. Fails if the server takes no writes,
-- lacks a command, or does not permit one to this user.

redis.register_function {
  function_name = LIBRARY .. '_probe',
  callback = function(keys)
    local key = keys[1]
    local now = tonumber(redis.call('TIME')[1]) * 1000
    redis.call('INFO', 'memory')
    redis.call('DEL', key)
    redis.call('SET', key, 1)
    redis.call('GET', key)
    redis.call('MGET', key)
    redis.call('EXISTS', key)
    redis.call('INCRBY', key, 1)
    redis.call('DECRBY', key, 1)
    redis.call('APPEND', key, '0')
    redis.call('PEXPIREAT', key, now + 60000)
    redis.call('PEXPIRETIME', key)
    redis.call('DEL', key)
    redis.call('ZADD', key, 1, 'a', 2, 'b', 3, 'c')
    redis.call('ZCARD', key)
    redis.call('ZSCAN', key, 0)
    redis.call('ZRANGEBYSCORE', key, 1, 2)
    redis.call('ZREM', key, 'a')
    redis.call('ZREMRANGEBYSCORE', key, 2, 2)
    redis.call('DEL', key)
    redis.call('HINCRBY', key, 'a', 1)
    redis.call('HGETALL', key)
    redis.call('HGET', key, 'a')
    redis.call('HMGET', key, 'a')
    redis.call('HDEL', key, 'a')
    return { 1 }
  end,
}
