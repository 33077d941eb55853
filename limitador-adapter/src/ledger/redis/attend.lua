-- Some workers live. KEYS[5] workers by the time until which they are taken to live; ARGV[2] for how long that is now, in ms,
-- then their names.

for at = 3, #ARGV do redis.call('ZADD', KEYS[5], text(now + tonumber(ARGV[2])), ARGV[at]) end
return { 1 }
