-- One step of one process: note what became of its slots, take some if it is its turn, and say when to ask again.
-- `rules.lua` comes before it. All times are microseconds of this server's clock; whole numbers of that size are exact.
--
-- KEYS  state     hash: limit, period, server (its run), gate, smooth and pace (`_pacing`), granted
--       slots     sorted set: token (name:number) -> moment at which the slot is free; a token stays until its slot is
--                 taken again. One in flight is charged to the end of its lease and a span.
--       members   hash: name -> due:demand:had (`_turns`)
-- ARGV  one JSON object, the fields of `_question.Question`; all durations in microseconds
--
-- Returns a JSON object, the fields of `_question.Answer`, or {other: [limit, period]} when the key is for another rule.

local state_key, slots_key, members_key = KEYS[1], KEYS[2], KEYS[3]
local ask = cjson.decode(ARGV[1])
local rule, name = ask.rule, ask.name
local limit, span = rule.limit, rule.span

local function whole(number) return string.format('%.0f', number) end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local soon, furthest = now + span, now + span + ask.furthest

-- What is stored: junk in a field counts as if it were not there, what lies too far ahead as a span from now.

local old = redis.call('HMGET', state_key, 'limit', 'period', 'server', 'gate', 'smooth', 'pace', 'granted')
local old_limit, old_period = tonumber(old[1] or nil), tonumber(old[2] or nil)
if old_limit and old_period and (old_limit ~= limit or old_period ~= rule.period) then
  return cjson.encode({other = {old_limit, old_period}})
end

local function stored(text, most, instead)
  local number = tonumber(text or nil)
  if not number or number < 0 then return 0 end
  return number <= most and number or instead
end

local gate = stored(old[4], now + ask.longest_gate, soon)
local pacing = {
  spread_until = stored(old[5], now + rule.quiet + rule.period, now + rule.quiet),
  ready_at = stored(old[6], math.max(now, gate) + span + rule.period, soon),
  granted = stored(old[7], 2 ^ 52, 0),
}

-- A server that was restarted has lost its state, or has an old one back: the window counts as spent.

local server, uptime = '', nil
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
  server = string.match(info, 'run_id:(%w+)') or ''
  uptime = tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or nil)
end
local charged_until = 0
if not (old_limit and old_period) then
  if ask.known or ask.doubt ~= 'none' or old[1] then
    charged_until = soon
  elseif uptime then
    -- It may have served others before it was started.
    charged_until = now - uptime * 1000000 + ask.lease + span
  end
elseif old[3] ~= server or ask.doubt == 'sent' or (ask.doubt == 'unreachable' and server == '') then
  charged_until = soon
end
if charged_until > now then
  for index = 1, limit do redis.call('ZADD', slots_key, 'GT', whole(charged_until), 'charged:' .. index) end
end

-- What became of the slots of this process.

for _, news in ipairs(ask.told) do
  local token, left, final = name .. ':' .. whole(news[1]), news[2], news[3]
  if left <= 0 then
    redis.call('ZREM', slots_key, token)
  elseif final then
    redis.call('ZADD', slots_key, whole(now + left), token)
  else
    redis.call('ZADD', slots_key, 'XX', whole(now + left), token)
  end
end
for _, token in ipairs(redis.call('ZRANGEBYSCORE', slots_key, '(' .. whole(furthest), '+inf')) do
  redis.call('ZADD', slots_key, whole(soon), token)
end

local began = false
if ask.cooldown > 0 then
  local before = is_spread(rule, pacing, now)
  pacing = after_refusal(rule, pacing, gate, now + ask.cooldown, now)
  gate = math.max(gate, now + ask.cooldown)
  began = is_spread(rule, pacing, now) and not before
end

-- When the slots can be taken. One in flight is estimated: a usual round trip and a span after it was taken.

local tokens = redis.call('ZRANGE', slots_key, 0, -1, 'WITHSCORES')
local held, expired, recent, taken, others, spent = #tokens / 2, 0, {}, {}, {}, {}
for index = 1, #tokens, 2 do
  local token, moment = tokens[index], tonumber(tokens[index + 1])
  local owner = string.match(token, '^(.*):') or ''
  if moment <= now then
    expired = expired + 1
  else
    recent[owner] = (recent[owner] or 0) + 1
    local known = owner == 'charged' and spent or others
    if owner ~= name then known[#known + 1] = moment - now end
  end
  if moment > soon and owner ~= 'charged' then
    moment = math.max(now + math.max(rule.grace, span / 8), moment - ask.lease + ask.round_trip)
  end
  taken[index / 2 + 0.5] = moment
end
table.sort(taken)
local moments = {}
for place = 1, limit do moments[place] = taken[held - limit + place] or never end
moments = spread_out(rule, pacing, moments, math.max(gate, 0), now)

-- Who else waits.

local rivals, me = {}, nil
local fields, registered = redis.call('HGETALL', members_key), false
for index = 1, #fields, 2 do
  local due, demand, had = string.match(fields[index + 1], '^(%d+):(%d+):(-?%d+)$')
  local member = {name = fields[index], due = tonumber(due), demand = tonumber(demand), had = tonumber(had)}
  local waits = due and member.demand > 0 and now < member.due + rule.grace
    and member.due < furthest + ask.longest_gate and member.demand < 2 ^ 40 and math.abs(member.had) < 2 ^ 40
  if member.name == name then
    registered = true
    if waits then me = member end
  elseif waits then
    rivals[#rivals + 1] = member
  elseif not due or member.due < now - 60000000 or member.due > furthest + ask.longest_gate then
    redis.call('HDEL', members_key, member.name)
  end
end
me = me or {name = name, had = #rivals > 0 and starting_count(recent, name, rivals, rule) or 0}
me.demand = ask.want

-- Take what is this process's turn. What comes free soon after the next look is asked for in the same question.

local mine, wake = share_out(moments, now, me, rivals, rule.grace)
if ask.want > mine then
  wake = math.min(wake, math.max(now, gate) + span)
  local last, together = wake, math.min(rule.grace / 4, span / 200)
  for _, moment in ipairs(moments) do
    if moment > last and moment <= wake + together then last = moment end
  end
  wake = last
end
local surplus = math.min(expired, held + mine - limit)
if surplus > 0 then redis.call('ZREMRANGEBYRANK', slots_key, 0, surplus - 1) end
for index = 0, mine - 1 do
  redis.call('ZADD', slots_key, whole(now + ask.lease + span), name .. ':' .. whole(ask.first + index))
end
pacing = after_grants(rule, pacing, mine, now)
redis.call('HSET', state_key, 'limit', limit, 'period', whole(rule.period), 'server', server, 'gate', whole(gate),
  'smooth', whole(pacing.spread_until), 'pace', whole(pacing.ready_at), 'granted', whole(pacing.granted))
if ask.want > mine then
  redis.call('HSET', members_key, name, whole(wake) .. ':' .. whole(ask.want - mine) .. ':' .. whole(me.had + mine))
elseif registered then
  redis.call('HDEL', members_key, name)
end
local rest = math.ceil((ask.keep + math.max(0, gate - now, pacing.spread_until - now)) / 1000)
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, whole(rest)) end

return cjson.encode({
  taken = mine, wake = ask.want > mine and wake - now or 0, gate = math.max(0, gate - now),
  spread = is_spread(rule, pacing, now), pace = math.max(0, pacing.ready_at - now), began = began,
  charged = charged_until > now, rivals = #rivals, others = others, spent = spent,
})
