-- Removes expired data. ARGV[2] is the room for counters, and [3] the maximum number of buckets to inspect.
-- Returns the time in ms, whether more may have expired, the numbers of buckets, reservations and holds, and the
-- totals of lapsed holds.

register('sweep', function()
  set_room(ARGV[2])
  -- Buckets are inspected when all holds that have expired are gone.
  local at_most = tonumber(ARGV[3])
  local due = {}
  if at_most > 0 and not more_lapses then
    due = redis.call('ZRANGEBYSCORE', BUCKETS, '-inf', text(now), 'LIMIT', 0, at_most)
  end
  for _, name in ipairs(due) do
    local it = bucket(name)
    if it.there and (it.holds > 0 or it.ends > 0) then
      redis.call('ZADD', BUCKETS, text(it.ends > 0 and it.ends or it.untils), name)
    else
      forget(it)
      redis.call('ZREM', BUCKETS, name)
      give_back(name)
    end
  end
  -- Adapters of another version may have left buckets uncounted.
  if redis.call('ZCARD', BUCKETS) == 0 then redis.call('DEL', LIMITS) end
  local more = at_most > 0 and (#due == at_most or more_lapses)
  local totals = redis.call('HMGET', LAPSED, 'released', 'charged', 'tokens', 'micro_usd')
  return {
    now, more and 1 or 0, redis.call('ZCARD', BUCKETS), redis.call('ZCARD', LAPSES),
    math.max(tonumber(redis.call('GET', HOLDS) or '0'), 0),
    tonumber(totals[1] or '0'), tonumber(totals[2] or '0'), tonumber(totals[3] or '0'), tonumber(totals[4] or '0'),
  }
end, ALSO_WHEN_FULL)
