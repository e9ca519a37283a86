-- The rules of `_pacing.py` and `_turns.py`, function by function, where they are explained; one table of cases holds
-- the two languages together. It comes before `acquire.lua`, as one script. Moments are numbers of any one unit.
--
-- rule: limit, period, span, pace, grace, pacing (mode), quiet; late and catch_up are plain numbers.
-- pacing: spread_until, ready_at, granted. member: had, name, demand, due.

local never, infinity = -math.huge, math.huge

local function is_spread(rule, pacing, now)
  return rule.pacing == 'smooth' or (rule.pacing == 'auto' and now < pacing.spread_until)
end

local function after_refusal(rule, pacing, gate, closed_until, now)
  local spread_until = pacing.spread_until
  if gate <= now and rule.pacing == 'auto' and (pacing.granted > rule.limit or now < spread_until) then
    spread_until = now + rule.quiet
  end
  local ready_at = math.max(pacing.ready_at, closed_until)
  return {spread_until = spread_until, ready_at = ready_at, granted = pacing.granted}
end

local function after_grants(rule, pacing, count, now)
  local ready_at = pacing.ready_at
  if count > 0 and is_spread(rule, pacing, now) then
    ready_at = math.max(ready_at, now - rule.late * rule.pace) + count * rule.pace
  end
  return {spread_until = pacing.spread_until, ready_at = ready_at, granted = pacing.granted + count}
end

local function spread_out(rule, pacing, moments, gate, now)
  local spread, ready_at, allowed = is_spread(rule, pacing, now), math.max(pacing.ready_at, gate), {}
  for place, moment in ipairs(moments) do
    allowed[place] = math.max(moment, spread and ready_at + (place - 1) * rule.pace or gate)
  end
  return allowed
end

-- The member whose turn is next; nil when none wants more.
local function next_in_turn(members)
  local nearest = nil
  for _, member in ipairs(members) do
    if member.demand > 0 and (not nearest or member.had < nearest.had
        or (member.had == nearest.had and member.name < nearest.name)) then
      nearest = member
    end
  end
  return nearest
end

local function own_turns(moments, now, me, rivals, grace)
  local members = {}
  for _, one in ipairs(rivals) do members[#members + 1] = {had = one.had, name = one.name, demand = one.demand} end
  members[#members + 1] = {had = me.had, name = me.name, demand = me.demand}
  local mine, before, began = 0, me.name, infinity
  for _, moment in ipairs(moments) do
    local nearest = next_in_turn(members)
    if not nearest then break end
    if nearest.name == me.name then
      if moment > now then return mine, math.min(moment, began + grace) end
      mine, before, began = mine + 1, me.name, infinity
    elseif nearest.name ~= before then
      before, began = nearest.name, math.max(moment, now)
    end
    nearest.had, nearest.demand = nearest.had + 1, nearest.demand - 1
  end
  return mine, began + grace
end

local function share_out(moments, now, me, rivals, grace)
  local present, available, overdue = {}, 0, 0
  for _, rival in ipairs(rivals) do
    if rival.demand > 0 and now < rival.due + grace then present[#present + 1] = rival end
  end
  for _, moment in ipairs(moments) do
    if moment <= now then available = available + 1 end
    if moment <= now - grace then overdue = overdue + 1 end
  end
  if #present == 0 then
    local mine = math.min(me.demand, available)
    return mine, me.demand > mine and moments[mine + 1] or infinity
  end
  local mine, wake = own_turns(moments, now, me, present, grace)
  mine = math.max(mine, math.min(me.demand, overdue))
  if me.demand <= mine then return mine, infinity end
  if mine < available then wake = math.min(wake, math.max(now, moments[mine + 1]) + grace) end
  return mine, wake
end

local function starting_count(recent, name, rivals, rule)
  local most, even = math.floor(rule.catch_up * rule.limit / (#rivals + 1)), nil
  for _, rival in ipairs(rivals) do
    local level = rival.had - math.min(recent[rival.name] or 0, most)
    even = math.min(even or level, level)
  end
  return (even or 0) + math.min(recent[name] or 0, most)
end
