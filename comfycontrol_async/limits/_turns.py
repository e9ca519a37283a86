"""Turns: how processes that all wait for slots of one budget divide them.

Every process that has waiters says so, with how many there are, and keeps a count of the slots that it has had. The
next slot is for the process with the lowest count, then its count goes up by one, and so on: each gets the same share,
or what it asks for if that is less. As everybody reckons the same, each knows which slot will be its own, and wakes for
that.

What a process had before it began to wait counts as far as it is still taken, and as far as the others can catch up on
it in four periods: one that came first and took all does not go on to get as much as the others on top of it, and
nobody saves up.

Whoever does not come for its slot within `grace` loses it to whoever is awake: a process that died while it waited, or
that is busy, delays the others by that much and no more. What it missed it may catch up on.

In numbers: A (had 7, 3 wait) and B (had 5, 9 wait), slots free at seconds 0, 0, 1 and 2. B has the first two and
reaches 7; a tie goes by name, so A has the one at 1 and B the one at 2. A at second 0 takes none and sleeps for 1 s.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

# In how many periods others can catch up on what a process had before.
CATCH_UP = 4


class Member(NamedTuple):
    """A process that waits: the slots it has had since it began to, its name, and how many it wants."""

    had: float
    name: float
    demand: int


def share_out(
    moments: Sequence[float], now: float, me: Member, rivals: Sequence[Member], grace: float
) -> tuple[int, float]:
    """Return how many slots `me` may take now, and when to look again (inf when there is nothing to wait for).

    `moments` says in ascending order when each slot comes free.
    """
    available = bisect_right(moments, now)
    if not rivals:
        mine = min(me.demand, available)
        more = me.demand > mine and mine < len(moments)
        return mine, moments[mine] if more else math.inf
    mine, wake = _own_turns(moments, now, me, rivals)
    mine = max(mine, min(me.demand, bisect_right(moments, now - grace)))
    if me.demand > mine and mine < len(moments) and (mine < available or wake == math.inf):
        wake = min(wake, moments[mine] + grace)
    return mine, wake


def starting_count(recent: Mapping[float, int], name: float, rivals: Sequence[Member], limit: int) -> float:
    """Return the count with which the process `name` begins to wait; `recent` says who has how many slots taken."""
    most = CATCH_UP * limit // (len(rivals) + 1)
    even = min((rival.had - min(recent.get(rival.name, 0), most) for rival in rivals), default=0.0)
    return even + min(recent.get(name, 0), most)


def _own_turns(moments: Sequence[float], now: float, me: Member, rivals: Sequence[Member]) -> tuple[int, float]:
    """Count the turns of `me` that have come, and tell when the next one comes."""
    heap = [me, *rivals]
    heapify(heap)
    mine = 0
    for moment in moments:
        if not heap:
            break
        had, name, demand = heap[0]
        if name == me.name:
            if moment > now:
                return mine, moment
            mine += 1
        if demand > 1:
            heapreplace(heap, Member(had + 1, name, demand - 1))
        else:
            heappop(heap)
    return mine, math.inf
