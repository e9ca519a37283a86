"""Lanes: who waits for a permit, and who is next.

Three lanes, first come first served in each. The highest lane that has waiters goes first, but a lane that was passed
over 7 times in a row while it had waiters gets the next grant: under saturation from above, each lower lane still gets
one grant in 8, and a newcomer in the highest lane never waits for more than two others of lower lanes.

A request that the server refused comes back to the head of its lane, in the order of the original grants.

A waiter is a future; one that is cancelled or refused stays in its lane as a shell, which `pop` skips and which is
swept out when shells are the most of the lane: O(1) a waiter, and no trace after a while.
"""

import asyncio
from collections import deque
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Any


class Priority(IntEnum):
    """Lanes of the limiter; the higher goes first, and none starves (see `limits._lanes`)."""

    BULK = 0
    NORMAL = 1
    INTERACTIVE = 2


PRIORITIES = frozenset(Priority)

# How often in a row a lane with waiters can be passed over.
MOST_PASSED_OVER = 7

Waiter = asyncio.Future[Any]


class Lane:
    """The waiters of one priority: those who came back first, by their old number, then first come first served."""

    __slots__ = ("passed_over", "queue", "returned", "size")

    def __init__(self) -> None:
        self.queue: deque[Waiter] = deque()
        self.returned: list[tuple[int, int, Waiter]] = []
        # How many wait, shells left aside.
        self.size = 0
        self.passed_over = 0

    def forget(self) -> None:
        """Count one waiter as a shell; sweep the shells out when they are the most of the lane."""
        self.size -= 1
        if self.size * 2 < len(self.queue) + len(self.returned):
            self.queue = deque(waiter for waiter in self.queue if not waiter.done())
            self.returned = [entry for entry in self.returned if not entry[2].done()]
            heapify(self.returned)


class Lanes:
    """The lanes of a limiter, indexed by `Priority`."""

    __slots__ = ("_falling", "lanes", "size")

    def __init__(self) -> None:
        self.lanes = tuple(Lane() for _ in Priority)
        self._falling = self.lanes[::-1]
        # How many wait in all lanes.
        self.size = 0

    def push(self, waiter: Waiter, priority: int, number: int | None = None) -> None:
        """Put a newcomer at the end of its lane, or one who comes back (with its grant's number) at its head."""
        lane = self.lanes[priority]
        if number is None:
            lane.queue.append(waiter)
        else:
            heappush(lane.returned, (number, id(waiter), waiter))
        lane.size += 1
        self.size += 1

    def pop(self) -> Waiter | None:
        """Remove and return the waiter whose turn it is, None when nobody waits."""
        while (lane := self._next_lane()) is not None:
            queue, returned = lane.queue, lane.returned
            while queue or returned:
                waiter = heappop(returned)[2] if returned else queue.popleft()
                if not waiter.done():
                    lane.size -= 1
                    self.size -= 1
                    return waiter
        return None

    def forget(self, priority: int) -> None:
        """Take note that a waiter in the lane of `priority` waits no longer, though it was not popped."""
        self.size -= 1
        self.lanes[priority].forget()

    def ahead(self, priority: int) -> int:
        """Count who goes before a newcomer of this priority, the shares of lower lanes left aside."""
        return sum(lane.size for lane in self.lanes[priority:])

    def _next_lane(self) -> Lane | None:
        """Choose the lane that gets the next grant, and count the others as passed over."""
        chosen = None
        for lane in self._falling:
            if lane.queue or lane.returned:
                if lane.size == self.size:
                    return lane  # nobody waits elsewhere
                if chosen is None:
                    chosen = lane
                elif lane.passed_over >= MOST_PASSED_OVER:
                    chosen.passed_over += 1
                    chosen = lane
                else:
                    lane.passed_over += 1
        if chosen is not None:
            chosen.passed_over = 0
        return chosen
