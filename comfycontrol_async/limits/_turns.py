"""Turns: how processes that all wait for slots of one budget divide them.

Every process that has waiters registers how many there are and when it will look next, and keeps a count of the slots
that it has had. The next slot is for the process with the lowest count, then its count goes up by one, and so on: each
gets the same share, or what it asks for if that is less. As all compute the same, each knows which slot will be its
own, and wakes for that.

What a process had before it began to wait counts as far as it is still taken, and as far as the others can catch up on
it in four periods: one that came first and took all does not go on to get as much as the others on top of it, and
none saves up.

A process that misses its turn by `grace` (50 ms), because it died or is busy, is out until it asks again. The process
that comes after it wakes at that moment and looks, so a death delays the others by one grace. A slot that stays free
for a grace, whatever the reason, is for any process that is awake.

In numbers: A (had 7, 3 wait) and B (had 5, 9 wait), slots free at seconds 0, 0, 1 and 2. B has the first two and
reaches 7; a tie goes by name, so A has the one at 1 and B the one at 2. A takes none at second 0 and sleeps for 50 ms:
if B has not come for its two by then, B is out and A takes both.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from typing import NamedTuple

# In how many periods others can catch up on what a process had before.
CATCH_UP = 4


class Member(NamedTuple):
    """A process that waits: the slots it has had since it began to, its name, how many it wants, when it looks next."""

    had: float
    name: float
    demand: int
    due: float = math.inf


def share_out(
    moments: Sequence[float], now: float, me: Member, rivals: Sequence[Member], grace: float
) -> tuple[int, float]:
    """Return how many slots `me` may take now, and when to look again (inf when there is nothing to wait for).

    `moments` says in ascending order when each slot can be taken.
    """
    available = bisect_right(moments, now)
    present = [rival for rival in rivals if rival.demand > 0 and now < rival.due + grace]
    if not present:
        mine = min(me.demand, available)
        more = me.demand > mine and mine < len(moments)
        return mine, moments[mine] if more else math.inf
    mine, wake = _own_turns(moments, now, me, present, grace)
    mine = max(mine, min(me.demand, bisect_right(moments, now - grace)))
    if mine < available and me.demand > mine:
        wake = min(wake, max(now, moments[mine]) + grace)
    return mine, wake if me.demand > mine else math.inf


def starting_count(recent: Mapping[float, int], name: float, rivals: Sequence[Member], limit: int) -> float:
    """Return the count with which the process `name` begins to wait; `recent` counts the slots each has taken."""
    most = CATCH_UP * limit // (len(rivals) + 1)
    even = min((rival.had - min(recent.get(rival.name, 0), most) for rival in rivals), default=0.0)
    return even + min(recent.get(name, 0), most)


def _own_turns(
    moments: Sequence[float], now: float, me: Member, rivals: Sequence[Member], grace: float
) -> tuple[int, float]:
    """Count the turns of `me` that have come, and return when to look next.

    That is the next turn, or a grace after the turns before it began, which are another process's: if it does not come
    for them, `me` is next.
    """
    heap = [me, *rivals]
    heapify(heap)
    mine = 0
    before, began = me.name, math.inf  # whose turns come right before, and when the first of them comes
    for moment in moments:
        if not heap:
            break
        had, name, demand, due = heap[0]
        if name == me.name:
            if moment > now:
                return mine, min(moment, began + grace)
            mine += 1
            before, began = me.name, math.inf
        elif name != before:
            before, began = name, max(moment, now)
        if demand > 1:
            heapreplace(heap, Member(had + 1, name, demand - 1, due))
        else:
            heappop(heap)
    return mine, began + grace
