-- The beginning of each call of the library.

-- Sets what belongs to one call of a batch.
local function begin_call()
  calendar, elsewhere, crossed, created, buckets, order = {}, false, {}, {}, {}, {}
end

-- Sets what belongs to this call of the library. Expired holds end before anything else happens. If there are too
-- many, the others still count until later calls end them. The sweep repeats until none is left.
local function begin(keys, arguments)
  if not INTEGER then set_constants() end
  KEYS, ARGV = keys, arguments
  LAPSES, BUCKETS, HOLDS, LIMITS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  PREFIX = string.sub(LAPSES, 1, -string.len('lapses') - 1)
  AMENDED, LEASED = PREFIX .. 'amended', PREFIX .. 'leased'
  LAPSED, STORED = PREFIX .. 'lapsed', PREFIX .. 'stored'
  ID = string.len(PREFIX) + 3
  now = tonumber(ARGV[1])
  if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  places, places_of_ids, known_terms, texts = {}, {}, {}, {}
  fetched, lapsing, lapsed_ids, deleted, held_more, settled_records = {}, {}, {}, {}, 0, {}
  lapsed, total, each, in_force, is_amended = {}, 0, 0, 1, nil
  begin_call()

  local period = math.floor(now / REMEMBERED)
  NEWEST, PREVIOUS = PREFIX .. 'i:' .. text(period) .. ':', PREFIX .. 'i:' .. text(period - 1) .. ':'

  local due = redis.call('ZRANGEBYSCORE', LAPSES, '-inf', text(now), 'LIMIT', 0, LAPSES_AT_ONCE)
  for _, id in ipairs(due) do lapse_one(id) end
  more_lapses = #due == LAPSES_AT_ONCE
  save_lapsed()
end

-- Registers a function of the library. Functions that release holds or charge usage also run when the server's memory
-- is full. Otherwise it would stay full.
local ALSO_WHEN_FULL = { 'allow-oom' }

local function register(name, run, flags)
  redis.register_function {
    function_name = LIBRARY .. '_' .. name,
    flags = flags,
    callback = function(keys, arguments)
      begin(keys, arguments)
      return run()
    end,
  }
end
