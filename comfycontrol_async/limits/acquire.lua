-- One step of one process: note what became of its slots, take some if it is its turn, and tell when to ask again.
--
-- KEYS: state (hash), slots (sorted set: token -> moment at which the slot is free), members (hash: name -> lease,
-- how many wait, how many slots it has had). Every time is in microseconds, of this server's clock; whole numbers of
-- that size are exact. A slot in flight is charged to the end of its lease (`_joint.py`), turns are as in `_turns.py`.
--
-- ARGV: name, limit, period, span, lease, furthest, grace, pace, quiet, oversleep, keep, mode, want, known, doubt,
-- cooldown, first token, catch up, round trip, then pairs: token, how long its slot is still taken (0 or less: it is free).
-- known: 1 when the caller asked so lately that its state must be there. doubt: 1 when it could not be asked since,
-- 2 when requests went out without it.
--
-- Returns {-1, limit, period} when the state is for another rule, else {taken, ask again in, cooldown, spread, next
-- spread request in, window was charged, began to spread, number of rivals, what each of them wants ..., when each
-- taken slot comes free ...}.

local state, slots, members = KEYS[1], KEYS[2], KEYS[3]
local name, mode = ARGV[1], ARGV[12]
local arg = {}
for index = 2, 19 do arg[index] = tonumber(ARGV[index]) or 0 end
local limit, period, span, lease, furthest = arg[2], arg[3], arg[4], arg[5], arg[6]
local grace, pace, quiet, oversleep, keep = arg[7], arg[8], arg[9], arg[10], arg[11]
local want, known, doubt, cooldown, first = arg[13], arg[14], arg[15], arg[16], arg[17]
local catch_up, round_trip = arg[18], arg[19]

local function whole(number) return string.format('%.0f', number) end

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local old = redis.call('HMGET', state, 'limit', 'period', 'server', 'gate', 'smooth', 'pace', 'granted')
if old[1] and (tonumber(old[1]) ~= limit or tonumber(old[2]) ~= period) then
  return {-1, tonumber(old[1]), tonumber(old[2])}
end
local gate, smooth_until = tonumber(old[4] or 0), tonumber(old[5] or 0)
local pace_at, granted = tonumber(old[6] or 0), tonumber(old[7] or 0)

-- A server that was restarted has lost its state, or has an old one back.
local server, uptime = '', nil
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
  server = string.match(info, 'run_id:(%w+)') or ''
  uptime = tonumber(string.match(info, 'uptime_in_seconds:(%d+)'))
end
local charged_until = 0
if not old[1] then
  if known == 1 or doubt > 0 then
    charged_until = now + span
  elseif uptime then
    -- Nobody knows whether it served others before it was started.
    charged_until = now - uptime * 1000000 + lease + span
  end
elseif old[3] ~= server or (doubt == 1 and server == '') or doubt == 2 then
  charged_until = now + span
end
local charged = charged_until > now and 1 or 0
if charged == 1 then
  for index = 1, limit do redis.call('ZADD', slots, 'GT', whole(charged_until), 'charged:' .. index) end
end

for index = 20, #ARGV, 2 do
  local left = tonumber(ARGV[index + 1])
  local token = name .. ':' .. ARGV[index]
  if left > 0 then redis.call('ZADD', slots, whole(now + left), token) else redis.call('ZREM', slots, token) end
end
redis.call('ZREMRANGEBYSCORE', slots, '-inf', whole(now))
-- When the server's clock was put back, what was noted before lies too far in the future.
for _, token in ipairs(redis.call('ZRANGEBYSCORE', slots, '(' .. whole(now + furthest), '+inf')) do
  redis.call('ZADD', slots, whole(now + furthest), token)
end

-- The cooldown, and what it means for the pace.
local began = 0
if cooldown > 0 then
  if gate <= now and mode == 'auto' and (granted > limit or smooth_until > now) then
    if smooth_until <= now then began = 1 end
    smooth_until = now + quiet
  end
  gate = math.max(gate, now + cooldown)
  pace_at = math.max(pace_at, gate)
end
local smooth = mode == 'smooth' or (mode == 'auto' and smooth_until > now)

-- When the slots come free that are not: one in flight, a span after it was taken and a usual round trip.
local scores = redis.call('ZRANGE', slots, 0, -1, 'WITHSCORES')
local taken, moments, busy = {}, {}, {}
for index = 1, #scores, 2 do
  local moment = tonumber(scores[index + 1])
  if moment > now + span and string.sub(scores[index], 1, 8) ~= 'charged:' then
    moment = math.max(now + math.max(grace, span / 8), moment - lease + round_trip)
  end
  taken[#taken + 1] = moment
end
table.sort(taken)
local free = limit - #taken
for place = 1, limit do
  local moment = now
  if place > free then
    moment = taken[place - free]
    busy[#busy + 1] = moment - now
  end
  moments[place] = moment
end
for place = 1, limit do
  moments[place] = math.max(moments[place], gate)
  if smooth then moments[place] = math.max(moments[place], pace_at + (place - 1) * pace) end
end

-- Who else waits.
local rivals, wants = {}, {}
local mine_before, waited = nil, false
local all = redis.call('HGETALL', members)
for index = 1, #all, 2 do
  local until_, demand, had = string.match(all[index + 1], '^(%d+):(%d+):(-?%d+)$')
  until_, demand, had = tonumber(until_), tonumber(demand), tonumber(had)
  if all[index] == name then
    mine_before, waited = had, demand > 0 and until_ > now
  elseif until_ > now and demand > 0 then
    rivals[#rivals + 1] = {had = had, name = all[index], demand = demand}
    wants[#wants + 1] = demand
  elseif until_ < now - 60000000 then
    redis.call('HDEL', members, all[index])
  end
end
local had = mine_before or 0
if not waited then
  local recent = {}
  for index = 1, #scores, 2 do
    local owner = string.match(scores[index], '^(%w+):')
    recent[owner] = (recent[owner] or 0) + 1
  end
  local most, even = math.floor(catch_up * limit / (#rivals + 1)), nil
  for _, rival in ipairs(rivals) do
    local level = rival.had - math.min(recent[rival.name] or 0, most)
    even = math.min(even or level, level)
  end
  had = (even or 0) + math.min(recent[name] or 0, most)
end

-- Turns.
local available, overdue = 0, 0
for place = 1, limit do
  if moments[place] <= now then available = available + 1 end
  if moments[place] <= now - grace then overdue = overdue + 1 end
end
local mine, wake = 0, nil
-- Turns that come so close after each other are asked for in one go.
local together = grace / 2
if #rivals == 0 then
  mine = math.min(want, available)
  for place = mine + 1, math.min(want, limit) do
    if wake and moments[place] > moments[mine + 1] + together then break end
    wake = moments[place]
  end
else
  local waiting = {{had = had, name = name, demand = want}}
  for _, rival in ipairs(rivals) do waiting[#waiting + 1] = rival end
  local soonest = nil
  for place = 1, limit do
    local nearest = nil
    for _, member in ipairs(waiting) do
      if member.demand > 0 and (not nearest or member.had < nearest.had
          or (member.had == nearest.had and member.name < nearest.name)) then
        nearest = member
      end
    end
    if not nearest then break end
    if nearest.name == name then
      if moments[place] <= now then
        mine = mine + 1
      else
        soonest = soonest or moments[place]
        if moments[place] > soonest + together then break end
        wake = moments[place]
      end
    end
    nearest.had = nearest.had + 1
    nearest.demand = nearest.demand - 1
  end
  -- A slot free for so long that whoever's turn it was does not come for it: when it was last taken does not matter.
  mine = math.max(mine, math.min(want, overdue))
  if want > mine and mine < limit and (mine < available or not wake) then
    wake = math.min(wake or moments[mine + 1] + grace, moments[mine + 1] + grace)
  end
end
if want > mine then wake = math.min(wake or now + span, now + span) end

for index = 0, mine - 1 do
  redis.call('ZADD', slots, whole(now + lease + span), name .. ':' .. whole(first + index))
end
if smooth and mine > 0 then pace_at = math.max(pace_at, now) + mine * pace end
redis.call('HSET', state, 'limit', limit, 'period', whole(period), 'server', server, 'gate', whole(gate),
  'smooth', whole(smooth_until), 'pace', whole(pace_at), 'granted', whole(granted + mine))
if want > mine or mine_before then
  local until_ = want > mine and wake + oversleep or now
  redis.call('HSET', members, name, whole(until_) .. ':' .. (want - mine) .. ':' .. whole(had + mine))
end
local rest = math.ceil((keep + math.max(0, gate - now, smooth_until - now)) / 1000)
redis.call('PEXPIRE', state, rest)
redis.call('PEXPIRE', slots, rest)
redis.call('PEXPIRE', members, rest)

local answer = {mine, (wake or now) - now, math.max(0, gate - now), smooth and 1 or 0, math.max(0, pace_at - now),
  charged, began, #wants}
for _, demand in ipairs(wants) do answer[#answer + 1] = demand end
for place = mine - math.max(0, free) + 1, #busy do
  if place >= 1 then answer[#answer + 1] = busy[place] end
end
for _ = 1, mine do answer[#answer + 1] = span end
return answer
