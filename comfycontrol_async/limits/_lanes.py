"""Lanes: who waits for a permit, and who is next.

Three lanes, first come first served in each. The highest lane that has waiters goes first, but a lane that was passed
over 7 times in a row while it had waiters gets the next grant: under saturation from above, each lower lane still gets
one grant in 8, and a newcomer in the highest lane never waits for more than two others of lower lanes.

A request that the server refused comes back to the head of its lane, in the order of the original grants.
"""

import asyncio
from collections import deque
from enum import IntEnum
from heapq import heapify, heappop, heappush


class Priority(IntEnum):
    """Lanes of the limiter; the higher goes first, and none starves (see `limits._lanes`)."""

    BULK = 0
    NORMAL = 1
    INTERACTIVE = 2


# How often in a row a lane with waiters can be passed over.
MOST_PASSED_OVER = 7

_Waiter = asyncio.Future[None]


class Lane:
    """The waiters of one priority: those who came back first, by their old number, then first come first served."""

    __slots__ = ("cancelled", "passed_over", "queue", "returned")

    def __init__(self) -> None:
        self.queue: deque[_Waiter] = deque()
        self.returned: list[tuple[int, _Waiter]] = []
        self.cancelled = 0
        self.passed_over = 0

    def __len__(self) -> int:
        return len(self.queue) + len(self.returned) - self.cancelled

    def pop(self) -> _Waiter | None:
        """Remove and return the first waiter that is still waiting, None when there is none."""
        while self.returned or self.queue:
            waiter = heappop(self.returned)[1] if self.returned else self.queue.popleft()
            if not waiter.done():
                return waiter
            self.cancelled -= 1
        return None

    def forget(self) -> None:
        """Count one waiter in the lane as gone; sweep the gone ones out when they are the most of it."""
        self.cancelled += 1
        if self.cancelled * 2 > len(self.queue) + len(self.returned):
            self.queue = deque(waiter for waiter in self.queue if not waiter.done())
            self.returned = [entry for entry in self.returned if not entry[1].done()]
            heapify(self.returned)
            self.cancelled = 0


class Lanes:
    """The lanes of a limiter, indexed by `Priority`."""

    __slots__ = ("lanes",)

    def __init__(self) -> None:
        self.lanes = tuple(Lane() for _ in Priority)

    def __len__(self) -> int:
        return sum(map(len, self.lanes))

    def push(self, waiter: _Waiter, priority: int, number: int | None) -> None:
        """Put a newcomer at the end of its lane, or one who comes back (with its grant's number) at its head."""
        lane = self.lanes[priority]
        if number is None:
            lane.queue.append(waiter)
        else:
            heappush(lane.returned, (number, waiter))

    def pop(self) -> _Waiter | None:
        """Remove and return the waiter whose turn it is, None when nobody waits."""
        while waiting := [lane for lane in self.lanes if lane.queue or lane.returned]:
            chosen = next((lane for lane in waiting if lane.passed_over >= MOST_PASSED_OVER), waiting[-1])
            waiter = chosen.pop()
            if waiter is None:
                continue
            for lane in waiting:
                lane.passed_over += 1
            chosen.passed_over = 0
            return waiter
        return None

    def ahead(self, priority: int) -> int:
        """Count who goes before a newcomer of this priority, the shares of lower lanes left aside."""
        return sum(len(lane) for lane in self.lanes[priority:])
