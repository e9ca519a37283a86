"""Turns: the same share for all that wait, and no dead process in the way."""

from collections import Counter

import pytest

from comfycontrol_async.limits._turns import Member, share_out, starting_count
from support.limiter_cases import ME, TURNS, Turn

GRACE = 0.05


@pytest.mark.parametrize("case", TURNS, ids=lambda case: case.id)
def test_table(case: Turn) -> None:
    """Each case of the table that the Lua script has to pass as well."""
    rivals = [Member(rival.had, float(ord(rival.name)), rival.demand, rival.due) for rival in case.rivals]
    me = Member(case.had, float(ord(ME)), case.demand)
    taken, wake = share_out(case.moments, 0.0, me, rivals, GRACE)
    assert taken == case.taken
    assert wake == pytest.approx(case.wake)


def test_worked_example() -> None:
    """The numbers of the module's docstring hold."""
    moments = [0.0, 0.0, 1.0, 2.0]
    first, second = Member(7, 1.0, 3), Member(5, 2.0, 9)
    assert share_out(moments, 0.0, second, [first], GRACE)[0] == 2
    assert share_out(moments, 0.0, first, [second], GRACE) == (0, 0.05)
    assert share_out(moments, 0.05, first, [second._replace(due=0.0)], GRACE)[0] == 2


def test_shares_are_even() -> None:
    """In whatever order they look, none takes another's turn, and all slots are given."""
    members = [Member(had, float(name), demand) for name, (had, demand) in enumerate([(3, 9), (5, 1), (0, 9), (3, 9)])]
    moments = [0.0] * 12
    taken = [share_out(moments, 0.0, me, [other for other in members if other is not me], GRACE)[0] for me in members]
    assert sum(taken) == 12
    assert taken[1] == 1
    levels = [member.had + got for member, got in zip(members, taken, strict=True) if member.demand == 9]
    assert max(levels) - min(levels) <= 1


def test_starting_count() -> None:
    """What is still taken counts, as far as others can catch up on it in four periods."""
    rivals = [Member(100, 1.0, 5), Member(102, 2.0, 5)]
    recent = Counter({1.0: 4, 2.0: 6, 3.0: 30, 4.0: 1000})
    assert starting_count(recent, 3.0, rivals, 40) == 96 + 30
    assert starting_count(recent, 4.0, rivals, 40) == 96 + 4 * 40 // 3
    assert starting_count(recent, 5.0, rivals, 40) == 96
    assert starting_count(recent, 3.0, [], 40) == 30
