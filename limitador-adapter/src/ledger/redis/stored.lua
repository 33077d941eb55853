-- Background results. A result is a reservation without a worker. Its id is "stored:" and a hash of the
-- provider's id, and its holds lapse like all others. It has additional fields: creator (a reservation's id),
-- input (the estimate), seen, keep (until when it is remembered), and rates {asked, window, charged, cost,
-- thresholds}. A cost is a list: base, then the cost of a million tokens of input, cached, cache_write, cache_write_1h,
-- output, reasoning. A usage is a list: whether it is partial, input, cached, cache_write, cache_write_1h,
-- output, reasoning, total, and whether the result is complete.

-- Same as in ledger/stored.rs.
local UNSEEN, SEEN, EARLY = 24 * 60 * 60 * 1000, 30 * 60 * 1000, 60 * 1000
local MAX_STORED = 131072

local function stored_name(id)
  return PREFIX .. 'r:' .. id
end

local function early_name(id)
  return PREFIX .. 'e:' .. id
end

-- Parses the numbers in a text.
local function numbers(of)
  local list = {}
  for number in string.gmatch(of, '%d+') do list[#list + 1] = tonumber(number) end
  return list
end

-- Same as UsageCost::of.
local function cost_of_usage(cost, input, usage)
  local cached = math.min(usage[3], input)
  local fresh = input - cached
  local written = math.min(usage[4], fresh)
  local hour = math.min(usage[5], written)
  local output = math.max(usage[8] - input, usage[6])
  local reasoning = math.min(usage[7], usage[6])
  local sum = (fresh - written) * cost[2] + cached * cost[3] + (written - hour) * cost[4] + hour * cost[5]
    + math.max(output - reasoning, 0) * cost[6] + reasoning * cost[7]
  return math.min(cost[1] + math.ceil(sum / 1000000), MOST)
end

-- Charges a rate up to this amount, and reduces its hold accordingly. Returns the difference that was
-- charged.
local function charge_up_to(result, rate, amount)
  local more = math.max(amount - rate[3], 0)
  if more == 0 then return 0 end
  rate[3] = amount
  for _, held in ipairs(result.holds) do
    if (held[4] or held[1]) == rate[1] then
      local it = bucket(held[1])
      sit(it, held[1])
      charge(it, rate[2], more)
      warn(it, rate[1], rate[5])
      local less = math.min(more, held[2] - 1)
      it.held, held[2] = math.max(it.held - less, 0), held[2] - less
      return more
    end
  end
  local it, name = seat(rate[1])
  sit(it, name)
  charge(it, rate[2], more)
  warn(it, rate[1], rate[5])
  return more
end

-- Refunds what lapses have charged beyond the usage of a complete result.
local function refund_lapsed(result, input, usage)
  for _, advance in ipairs(result.advances) do
    for _, rate in ipairs(result.rates) do
      if rate[1] == advance[1] then
        local excess = math.min(advance[2], math.max(rate[3] - cost_of_usage(rate[4], input, usage), 0))
        refund(bucket(advance[4] or advance[1]), advance[3], excess)
        rate[3] = rate[3] - excess
      end
    end
  end
  result.advances = {}
end

-- Records that a result was seen. Returns how much that charges, for each of its rates in order.
local function see(result, usage)
  local input = usage[2]
  if usage[1] == 1 then
    input = math.max(input, result.input)
    usage[8] = math.max(usage[8], input + usage[6])
  end
  local charged = {}
  for at, rate in ipairs(result.rates) do
    charged[at] = charge_up_to(result, rate, cost_of_usage(rate[4], input, usage))
  end
  if usage[9] == 1 then
    refund_lapsed(result, input, usage)
    for _, held in ipairs(result.holds) do release(bucket(held[1]), held[2]) end
    if #result.holds > 0 then redis.call('DECRBY', HOLDS, #result.holds) end
    result.holds, result.live, result.seen, result.keep = {}, false, true, now + SEEN
  end
  return charged
end

local function save_result(id, result)
  local next_lapse, last = nil, result.keep
  for _, held in ipairs(result.holds) do
    next_lapse, last = math.min(next_lapse or held[3], held[3]), math.max(last, held[3])
  end
  if next_lapse then
    redis.call('ZADD', LAPSES, text(next_lapse), id)
  else
    redis.call('ZREM', LAPSES, id)
  end
  set(stored_name(id), cmsgpack.pack(result), 'PXAT', text(last))
  redis.call('ZADD', STORED, text(last), id)
end

-- Decides about a result that this reservation creates: "new" if it is to be remembered, "old" if this
-- reservation created it before, false if another unread result has the id or there is no room.
local function creation(id, creator)
  local known = known_of(stored_name(id))
  if known then return known.creator == creator and 'old' or known.seen and 'new' end
  redis.call('ZREMRANGEBYSCORE', STORED, '-inf', text(now))
  return redis.call('ZCARD', STORED) < MAX_STORED and 'new'
end
