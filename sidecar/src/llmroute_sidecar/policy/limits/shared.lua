-- Limits that several gateways count together. Runs in Valkey or Redis; shared.py says what it is given and what it
-- answers. One call of it is one step: nobody sees half of it. Times are the server's, in microseconds.
--
-- A window (requests, tokens) is a string of counters: the total, the newest bucket's number, then BUCKETS + 1 buckets
-- in a ring. A bucket leaves when its last moment is a whole window old: never too early, and up to a BUCKETS-th of the
-- window too late. Slots are a sorted set, member by expiry. Money is a hash (spent, reserved, charged) and a sorted set
-- of what is reserved, member by expiry. A member ends in the amount that it stands for.
local BUCKETS = 256
local HEAD_BITS = 128
local SETTLING = 1000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local operation, ttl = ARGV[1], tonumber(ARGV[2])
local place, key_place = 2, 0

local function argument()
  place = place + 1
  return ARGV[place]
end

local function number()
  return tonumber(argument())
end

local function key()
  key_place = key_place + 1
  return KEYS[key_place]
end

-- windows -----------------------------------------------------------------------------------------------------------

local function offset(window, bucket)
  return HEAD_BITS + bucket % (BUCKETS + 1) * window.bits
end

local function write_head(window)
  redis.call('BITFIELD', window.key, 'SET', 'i64', 0, window.total, 'SET', 'i64', 64, window.bucket)
end

local function open_window(name, bits, length)
  local window = {key = name, bits = bits, length = length, size = length / BUCKETS}
  window.type = bits == 32 and 'u32' or 'i64'
  local head = redis.call('BITFIELD', name, 'GET', 'i64', 0, 'GET', 'i64', 64)
  local newest = head[2]
  window.total = head[1]
  window.bucket = math.floor(now / window.size)
  if newest > window.bucket then -- the server's clock has gone back: it stands still, or all that is there is of now
    if newest - window.bucket <= BUCKETS then
      window.bucket = newest
    else
      redis.call('DEL', name)
      redis.call('BITFIELD', name, 'SET', window.type, offset(window, window.bucket), window.total)
      write_head(window)
      redis.call('PEXPIRE', name, math.ceil((length + window.size) / 1000) + 1000)
    end
  elseif window.bucket - newest > BUCKETS then
    if window.total ~= 0 or newest ~= 0 then redis.call('DEL', name) end
    window.total = 0
  elseif window.bucket > newest then
    local clear = {'BITFIELD', name}
    for bucket = newest + 1, window.bucket do
      clear[#clear + 1], clear[#clear + 2] = 'SET', window.type
      clear[#clear + 1], clear[#clear + 2] = offset(window, bucket), 0
    end
    for _, gone in ipairs(redis.call(unpack(clear))) do window.total = window.total - gone end
    write_head(window)
  end
  return window
end

local function count(window, amount)
  window.total = window.total + amount
  redis.call('BITFIELD', window.key, 'INCRBY', window.type, offset(window, window.bucket), amount)
  write_head(window)
  redis.call('PEXPIRE', window.key, math.ceil((window.length + window.size) / 1000) + 1000)
end

-- How long until `surplus` has left. Read in one piece: a flood of refusals asks for nothing else.
local function wait_for(window, surplus)
  local bytes = window.bits / 8
  local form = '>I' .. bytes
  local text = redis.call('GETRANGE', window.key, HEAD_BITS / 8, -1)
  for bucket = window.bucket - BUCKETS, window.bucket do
    local from = bucket % (BUCKETS + 1) * bytes + 1
    if from + bytes - 1 <= #text then -- beyond its end there is nothing yet
      surplus = surplus - struct.unpack(form, text, from)
      if surplus <= 0 then return math.ceil((bucket + BUCKETS + 1) * window.size - now) end
    end
  end
  return window.length
end

local function give_back(window, bucket, amount)
  if bucket > window.bucket or window.bucket - bucket > BUCKETS then return end
  local there = redis.call('BITFIELD', window.key, 'GET', window.type, offset(window, bucket))[1]
  amount = math.min(amount, there) -- less, where the server has lost what it had
  if amount <= 0 then return end
  window.total = window.total - amount
  redis.call('BITFIELD', window.key, 'INCRBY', window.type, offset(window, bucket), -amount)
  write_head(window)
end

-- money -------------------------------------------------------------------------------------------------------------

local function charge(account, amount)
  local spent = redis.call('HINCRBY', account.key, 'spent', amount)
  if spent < 0 then redis.call('HSET', account.key, 'spent', 0) end
  redis.call('HSET', account.key, 'charged', now)
end

local function free(account, amount)
  if amount == '0' then return end -- the server takes no '-0' for a number
  local reserved = redis.call('HINCRBY', account.key, 'reserved', '-' .. amount)
  if reserved < 0 then redis.call('HSET', account.key, 'reserved', 0) end
end

-- The four starts are those of the periods before, of, and after the gateway's now; which one it is, this clock says.
local function open_account(name, held)
  local account = {key = name, held = held}
  local starts = {number(), number(), number(), number()}
  local start = starts[1]
  account.finish = starts[2]
  for period = 2, 3 do
    if starts[period] * 1000000 <= now then start, account.finish = starts[period], starts[period + 1] end
  end
  local charged = redis.call('HGET', name, 'charged')
  if charged and tonumber(charged) < start * 1000000 then redis.call('HSET', name, 'spent', 0, 'charged', now) end
  -- Of gateways that have died: the call was probably made, and is taken to have cost what was thought.
  local gone = redis.call('ZRANGEBYSCORE', held, '-inf', now)
  for _, member in ipairs(gone) do
    local amount = member:match('(%d+)$')
    free(account, amount)
    charge(account, amount)
    redis.call('ZREM', held, member)
  end
  local sums = redis.call('HMGET', name, 'spent', 'reserved')
  account.spent, account.reserved = tonumber(sums[1] or 0), tonumber(sums[2] or 0)
  return account
end

local function keep(account)
  local till = math.ceil(math.max(account.finish * 1000, (now + 2 * ttl) / 1000))
  redis.call('PEXPIREAT', account.key, till)
  redis.call('PEXPIREAT', account.held, till)
end

-- operations ----------------------------------------------------------------------------------------------------------

-- All or none. Answers whether, then for each: its wait (-1: it has room), what remains, and where it was counted.
local function admit()
  local found, room = {}, true
  while place < #ARGV do
    local kind = argument()
    local one = {kind = kind, limit = number(), wait = -1, mark = 0}
    if kind == 'w' then
      local bits, length, name = number(), number(), key()
      one.amount = number()
      one.window = open_window(name, bits, length)
      one.left = one.limit - one.window.total
      if one.left < one.amount then one.wait = wait_for(one.window, one.amount - one.left) end
    elseif kind == 's' then
      one.key, one.member = key(), argument()
      redis.call('ZREMRANGEBYSCORE', one.key, '-inf', now)
      one.amount, one.left = 1, one.limit - redis.call('ZCARD', one.key)
      if one.left < 1 then one.wait = SETTLING end
    else
      one.text, one.member = argument(), argument()
      one.amount = tonumber(one.text)
      one.account = open_account(key(), key())
      local spent = one.account.spent
      one.left = one.limit - spent - one.account.reserved
      if one.left <= 0 or one.left < one.amount then
        one.wait = one.account.finish * 1000000 - now
        if spent < one.limit and spent + one.amount <= one.limit then one.wait = math.min(one.wait, SETTLING) end
      end
    end
    if one.wait >= 0 then room = false end
    found[#found + 1] = one
  end
  local answer = {room and 1 or 0}
  for _, one in ipairs(found) do
    if room then
      one.left = one.left - one.amount
      if one.window then
        count(one.window, one.amount)
        one.mark = one.window.bucket
      elseif one.account then
        redis.call('HINCRBY', one.account.key, 'reserved', one.text)
        redis.call('ZADD', one.account.held, now + ttl, one.member)
        keep(one.account)
      else
        redis.call('ZADD', one.key, now + ttl, one.member)
        redis.call('PEXPIRE', one.key, math.ceil(2 * ttl / 1000))
      end
    end
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = one.wait, math.max(0, one.left), one.mark
  end
  return answer
end

-- What was taken, settled by what it came to.
local function settle()
  while place < #ARGV do
    local kind = argument()
    if kind == 'w' then
      local bits, length = number(), number()
      local window = open_window(key(), bits, length)
      local bucket, taken, used = number(), number(), number()
      if used > taken then count(window, used - taken) else give_back(window, bucket, taken - used) end
    elseif kind == 's' then
      redis.call('ZREM', key(), argument())
    else
      local member, taken, cost = argument(), argument(), argument()
      local account = open_account(key(), key())
      if redis.call('ZREM', account.held, member) == 1 then
        free(account, taken)
        if cost ~= '0' then charge(account, cost) end
      elseif cost ~= taken then -- it had run out, and was charged as it was thought; or nothing had been taken
        charge(account, tonumber(cost) - tonumber(taken))
      end
      keep(account)
    end
  end
  return 1
end

-- What calls in flight hold lives on.
local function renew()
  while place < #ARGV do
    local kind, member = argument(), argument()
    local name = key()
    if kind == 's' then
      redis.call('ZADD', name, now + ttl, member)
    else
      redis.call('ZADD', name, 'XX', now + ttl, member)
    end
    if redis.call('PTTL', name) < 2 * ttl / 1000 then redis.call('PEXPIRE', name, math.ceil(2 * ttl / 1000)) end
  end
  return 1
end

-- A breaker has opened in one gateway, which is named; it stays so for this long.
local function open_breaker()
  redis.call('SET', key(), argument(), 'PX', argument())
  return 1
end

-- For each breaker: who opened it, and for how many milliseconds it stays so; nothing where it is not open.
local function open_breakers()
  local answer = {}
  for _, name in ipairs(KEYS) do
    answer[#answer + 1] = redis.call('GET', name) or ''
    answer[#answer + 1] = redis.call('PTTL', name)
  end
  return answer
end

-- Whether the server takes writes, from this user, now.
local function probe()
  redis.call('SET', key(), 1, 'PX', math.ceil(ttl / 1000))
  return 1
end

if operation == 'admit' then return admit() end
if operation == 'settle' then return settle() end
if operation == 'renew' then return renew() end
if operation == 'open' then return open_breaker() end
if operation == 'opened' then return open_breakers() end
return probe()
