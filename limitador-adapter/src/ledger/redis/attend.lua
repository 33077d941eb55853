-- Records which workers are alive. KEYS[5] is the sorted set of workers by the time when they count as gone.
-- ARGV[2] is the time from now in ms, followed by the workers' names.

register('attend', function()
  for at = 3, #ARGV do redis.call('ZADD', KEYS[5], text(now + tonumber(ARGV[2])), ARGV[at]) end
  return { 1 }
end, ALSO_WHEN_FULL)
