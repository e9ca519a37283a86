"""The rules of turns and pacing in Lua: the table of cases that the Python functions pass, and random ones.

The functions of `rules.lua` run in a real Valkey; the whole script is put before a budget that is laid out as the case
says.
"""

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from comfycontrol_async.limits._pacing import LATE, QUIET, Pacing, after_grants, after_refusal, is_spread, spread_out
from comfycontrol_async.limits._question import Question, parse_answer
from comfycontrol_async.limits._rule import PacingMode, Rule
from comfycontrol_async.limits._turns import CATCH_UP, Member, share_out, starting_count
from support.limiter_cases import ME, REFUSALS, SPREADS, TURNS, Refusal, Spread, Turn
from support.redis_server import RedisServer, servers

pytestmark = pytest.mark.skipif(not servers(), reason="no Redis or Valkey server here")

FOLDER = files("comfycontrol_async.limits")
RULES, STEP = (FOLDER.joinpath(name).read_text("utf-8") for name in ("rules.lua", "acquire.lua"))
GRACE = 0.05
# JSON has no infinity.
_ENDLESS = 1e300


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Connect to a server."""
    with RedisServer(next(iter(servers().values()))) as server, server.client() as connected:
        yield connected


def finite(value: Any) -> Any:
    """Replace the infinite numbers in lists and dicts."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return math.copysign(_ENDLESS, value) if isinstance(value, float) and math.isinf(value) else value


def lua(client: Any, calls: str, *arguments: Any) -> Any:
    """Run Lua after the rules, with `a` for the arguments, and return what it returns."""
    script = f"{RULES}\nlocal a = cjson.decode(ARGV[1])\n{calls}"
    script = script.replace("-math.huge, math.huge", "-1e300, 1e300")
    return json.loads(client.eval(script, 0, json.dumps(finite(arguments))))


def as_lua(rule: Rule) -> dict[str, Any]:
    """Return a rule as the script gets it, in seconds."""
    derived = {"span": rule.span, "pace": rule.pace, "grace": rule.grace, "quiet": QUIET, "late": LATE}
    return {"limit": rule.limit, "period": rule.period, "pacing": rule.pacing, "catch_up": CATCH_UP, **derived}


def member(one: Member) -> dict[str, Any]:
    """Return a member as the script has it; names are texts there, in the order of the numbers."""
    return {"had": one.had, "name": f"{int(one.name):09d}", "demand": one.demand, "due": one.due}


def in_lua(client: Any, moments: list[float], me: Member, rivals: list[Member]) -> tuple[int, float]:
    """Return what the script's `share_out` says at second 0."""
    calls = "return cjson.encode({share_out(a[1], 0, a[2], a[3], a[4])})"
    taken, wake = lua(client, calls, moments, member(me), [member(rival) for rival in rivals], GRACE)
    return taken, math.inf if wake > _ENDLESS / 2 else wake


@pytest.mark.parametrize("case", TURNS, ids=lambda case: case.id)
def test_turns(client: Any, case: Turn) -> None:
    """The function in Lua passes the table."""
    rivals = [Member(rival.had, float(ord(rival.name)), rival.demand, rival.due) for rival in case.rivals]
    taken, wake = in_lua(client, case.moments, Member(case.had, float(ord(ME)), case.demand), rivals)
    assert taken == case.taken
    assert wake == pytest.approx(case.wake)


def test_random_turns(client: Any) -> None:
    """Both functions agree on budgets that no table has."""
    chance = random.Random(9)
    for _ in range(300):
        moments = sorted(chance.choice([-1.0, -0.06, -0.01, 0.0, 0.5, 1.0, 1.02]) for _ in range(chance.randint(1, 9)))
        members = [
            Member(
                chance.randint(0, 6), float(name), chance.randint(0, 6), chance.choice([-0.06, -0.02, 1.0, math.inf])
            )
            for name in chance.sample(range(100), chance.randint(1, 5))
        ]
        me = members[0]._replace(demand=max(1, members[0].demand))
        expected = share_out(moments, 0.0, me, members[1:], GRACE)
        assert in_lua(client, moments, me, members[1:]) == pytest.approx(expected), (moments, me, members[1:])


def test_starting_counts(client: Any) -> None:
    """Both functions begin with the same count."""
    chance = random.Random(9)
    for _ in range(100):
        rivals = [Member(chance.randint(0, 300), float(name), 5) for name in range(chance.randint(1, 4))]
        recent = Counter({float(name): chance.randint(0, 99) for name in range(6)})
        named = {f"{int(name):09d}": count for name, count in recent.items()}
        calls = "return cjson.encode(starting_count(a[1], '000000005', a[2], a[3]))"
        got = lua(client, calls, named, [member(rival) for rival in rivals], as_lua(Rule(40, 10.0)))
        assert got == starting_count(recent, 5.0, rivals, 40)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_refusals(client: Any, case: Refusal) -> None:
    """The function in Lua passes the table."""
    rule = as_lua(Rule(40, 10.0, case.pacing))  # type: ignore[arg-type] # a mode
    pacing = {"spread_until": 1.0 if case.spread_before else -1.0, "ready_at": -math.inf, "granted": case.granted}
    calls = "local p = after_refusal(a[1], a[2], a[3], 10, 0) return cjson.encode({is_spread(a[1], p, 2), p.ready_at})"
    assert lua(client, calls, rule, pacing, case.gate) == [case.spread, 10]


@pytest.mark.parametrize("case", SPREADS, ids=lambda case: case.id)
def test_spreads(client: Any, case: Spread) -> None:
    """The function in Lua passes the table."""
    rule = as_lua(Rule(12, 10.0, "smooth" if case.smooth else "burst"))
    pacing = {"spread_until": -math.inf, "ready_at": case.ready_at, "granted": 0}
    calls = "return cjson.encode(spread_out(a[1], a[2], a[3], a[4], 0))"
    assert lua(client, calls, rule, pacing, case.moments, case.gate) == case.allowed


@pytest.mark.parametrize("mode", ["auto", "burst", "smooth"])
def test_random_pacing(client: Any, mode: PacingMode) -> None:
    """Grants and refusals in any order leave both with the same pacing."""
    chance, rule = random.Random(9), Rule(4, 10.0, mode)
    calls = """
    local p = {spread_until = -1e300, ready_at = -1e300, granted = 0}
    for _, step in ipairs(a[2]) do
      if step[1] == 'refused' then p = after_refusal(a[1], p, step[3], step[4], step[2])
      else p = after_grants(a[1], p, step[3], step[2]) end
    end
    return cjson.encode({p.granted, p.ready_at, is_spread(a[1], p, a[3])})"""
    for _ in range(50):
        now, gate, pacing, steps = 0.0, -1.0, Pacing(), []
        for _ in range(12):
            now += chance.choice([0.0, 0.3, 5.0, 1000.0])
            if chance.random() < 0.3:
                until = now + 10.0
                steps.append(["refused", now, gate, until])
                pacing, gate = after_refusal(rule, pacing, gate, until, now), max(gate, until)
            else:
                count = chance.randint(0, 3)
                steps.append(["granted", now, count, 0])
                pacing = after_grants(rule, pacing, count, now)
        granted, ready_at, spread = lua(client, calls, as_lua(rule), steps, now)
        assert (granted, spread) == (pacing.granted, is_spread(rule, pacing, now))
        assert ready_at == pytest.approx(finite(pacing.ready_at))
        assert spread_out(rule, pacing, [now], gate, now) == pytest.approx([max(now, gate, ready_at if spread else 0)])


# Lays out the budget of a case: moments and dues are microseconds from now, in the one `now` of the script.
LAY_OUT = """
do
  local case, clock = cjson.decode(ARGV[2]), redis.call('TIME')
  local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
  local function at(offset) return string.format('%.0f', now + offset) end
  redis.call('DEL', unpack(KEYS))
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  redis.call('HSET', KEYS[1], 'limit', case.limit, 'period', case.period, 'server', run)
  for number, moment in ipairs(case.moments) do redis.call('ZADD', KEYS[2], at(moment), 'x:' .. number) end
  for _, one in ipairs(case.members) do
    redis.call('HSET', KEYS[3], one.name, at(one.due) .. ':' .. one.demand .. ':' .. one.had)
  end
end
"""


@pytest.mark.parametrize("case", TURNS, ids=lambda case: case.id)
def test_turns_of_the_script(client: Any, case: Turn) -> None:
    """The whole script passes the table, with the budget and the members in the server."""
    limit = len(case.moments)
    rule = Rule(limit, 100.0, "burst")
    members = [(rival.name, rival.had, rival.demand, min(rival.due, 50.0)) for rival in case.rivals]
    members.append((ME, case.had, case.demand, 50.0))
    layout = {
        "limit": limit,
        "period": 100_000_000,
        "moments": [round(moment * 1e6) for moment in case.moments],
        "members": [
            {"name": name, "had": had, "demand": demand, "due": round(due * 1e6)} for name, had, demand, due in members
        ],
    }
    question = Question(
        name=ME, rule=rule, want=case.demand, first=1, told={}, known=True, doubt="none", cooldown=0.0, round_trip=0.0
    )
    keys = [f"{{rules}}:{part}" for part in ("state", "slots", "members")]
    text = client.eval(RULES + LAY_OUT + STEP, 3, *keys, question.to_json(), json.dumps(layout))
    answer = parse_answer(text, question, "rules")
    assert answer.taken == case.taken
    if case.demand > case.taken:
        assert answer.wake == pytest.approx(min(case.wake, rule.span), abs=0.02)
