"""Lanes: who waits for a permit, and who is next.

Three lanes by `Priority`. The highest lane that has waiters goes first, but a lane that was passed over 7 times in a
row while it had waiters gets the next grant: under saturation from above, each lower lane still gets one grant in 8,
and a newcomer in the highest lane never waits for more than two others of lower lanes.

Within a lane, what ends begun work goes first, by `Stage`: CANCEL before all; of the other grants each third goes to
CREATE while one waits, so that runners stay fed, the rest to FINISH, then OTHER, but an OTHER that was passed over 7
times goes next. Within a stage first come, first served. In letters, with all four waiting: F F C F F C F O F C.

A request that the server refused comes back to the head of its stage, in the order of the original grants.

A waiter is a future. One that is cancelled or refused stays in its line as a tombstone: `pop` skips it, and the line is
compacted when tombstones outnumber waiters: O(1) for each waiter, and no trace after a while.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from heapq import heapify, heappop, heappush
from typing import Any


class Priority(IntEnum):
    """Lanes of the limiter; the higher goes first, and none starves."""

    BULK = 0
    NORMAL = 1
    INTERACTIVE = 2


class Stage(IntEnum):
    """What a request does to the work behind it; decides the order within a lane."""

    CANCEL = 0
    FINISH = 1
    OTHER = 2
    CREATE = 3


# Tuples: `in` must not hash what users give.
PRIORITIES = tuple(Priority)
STAGES = tuple(Stage)

# How often in a row a lane, or the stage OTHER of a lane, can be passed over while it has waiters.
MOST_PASSED_OVER = 7
# How many grants go to FINISH and OTHER for one to CREATE.
BEFORE_CREATE = 2

Waiter = asyncio.Future[Any]


class Line:
    """The waiters of one stage: those who came back first, by their old number, then first come, first served."""

    __slots__ = ("queue", "returned", "size")

    def __init__(self) -> None:
        self.queue: deque[Waiter] = deque()
        self.returned: list[tuple[int, int, Waiter]] = []
        # Waiters, tombstones excluded.
        self.size = 0

    def push(self, waiter: Waiter, number: int | None) -> None:
        """Append a newcomer, or put one who comes back (with its grant's number) at the head."""
        if number is None:
            self.queue.append(waiter)
        else:
            heappush(self.returned, (number, id(waiter), waiter))
        self.size += 1

    def __bool__(self) -> bool:
        return bool(self.queue or self.returned)

    def pop(self) -> Waiter | None:
        """Remove and return the first waiter; None when there are only tombstones."""
        queue, returned = self.queue, self.returned
        while queue or returned:
            waiter = heappop(returned)[2] if returned else queue.popleft()
            if not waiter.done():
                self.size -= 1
                return waiter
        return None

    def forget(self) -> None:
        """Count one waiter as a tombstone; compact when tombstones outnumber waiters."""
        self.size -= 1
        if self.size * 2 < len(self.queue) + len(self.returned):
            self.queue = deque(waiter for waiter in self.queue if not waiter.done())
            self.returned = [entry for entry in self.returned if not entry[2].done()]
            heapify(self.returned)


class Lane:
    """The waiters of one priority, a line for each `Stage`."""

    __slots__ = ("lines", "other_passed_over", "passed_over", "since_create", "size")

    def __init__(self) -> None:
        self.lines = tuple(Line() for _ in Stage)
        self.size = 0
        self.passed_over = 0
        self.other_passed_over = 0
        # Grants to FINISH and OTHER since the last one to CREATE.
        self.since_create = 0

    def __bool__(self) -> bool:
        return any(self.lines)

    def next_line(self) -> Line | None:
        """Choose the line that gets the next grant of this lane; None when all are empty."""
        cancel, finish, other, create = self.lines
        if other.size == self.size and other:  # by far the most frequent case
            self.since_create += 1
            self.other_passed_over = 0
            return other
        if cancel:
            return cancel
        if other and self.other_passed_over >= MOST_PASSED_OVER:
            chosen = other
        elif create and (self.since_create >= BEFORE_CREATE or not (finish or other)):
            chosen = create
        else:
            chosen = finish or other
        self.since_create = 0 if chosen is create else self.since_create + 1
        self.other_passed_over = self.other_passed_over + 1 if other and chosen is not other else 0
        return chosen or None

    def ahead(self, stage: Stage) -> int:
        """Count the waiters that certainly go before a newcomer of this stage."""
        cancel, finish, other, create = (line.size for line in self.lines)
        if stage is Stage.CANCEL:
            return cancel
        if stage is Stage.FINISH:
            return cancel + finish
        if stage is Stage.CREATE:
            between = BEFORE_CREATE * (create + 1) - min(BEFORE_CREATE, self.since_create)
            return cancel + create + min(finish + other, between)
        between = MOST_PASSED_OVER * (other + 1) - min(MOST_PASSED_OVER, self.other_passed_over)
        return cancel + other + min(finish, between)


class Lanes:
    """The lanes of a limiter, indexed by `Priority`."""

    __slots__ = ("_falling", "lanes", "size")

    def __init__(self) -> None:
        self.lanes: tuple[Lane, ...] = tuple(Lane() for _ in Priority)
        self._falling = self.lanes[::-1]
        # Waiters in all lanes.
        self.size: int = 0

    def __iter__(self) -> Iterator[Waiter]:
        """Iterate over all waiters, tombstones included."""
        for lane in self.lanes:
            for line in lane.lines:
                yield from line.queue
                yield from (entry[2] for entry in line.returned)

    def push(self, waiter: Waiter, priority: int, stage: int = Stage.OTHER, number: int | None = None) -> None:
        """Put a newcomer at the end of its line, or one who comes back (with its grant's number) at its head."""
        lane = self.lanes[priority]
        lane.lines[stage].push(waiter, number)
        lane.size += 1
        self.size += 1

    def pop(self) -> Waiter | None:
        """Remove and return the waiter whose turn it is; None when none waits."""
        while (lane := self._next_lane()) is not None:
            while (line := lane.next_line()) is not None:
                waiter = line.pop()
                if waiter is not None:
                    lane.size -= 1
                    self.size -= 1
                    return waiter
        return None

    def forget(self, priority: int, stage: int = Stage.OTHER) -> None:
        """Count a waiter out that waits no longer, though it was not popped."""
        lane = self.lanes[priority]
        lane.lines[stage].forget()
        lane.size -= 1
        self.size -= 1

    def ahead(self, priority: int, stage: Stage = Stage.OTHER) -> int:
        """Count the waiters that certainly go before a newcomer: a lower bound, whatever comes later."""
        lane = self.lanes[priority]
        own = lane.ahead(stage)
        higher = sum(other.size for other in self.lanes[priority + 1 :])
        return own + min(higher, MOST_PASSED_OVER * (own + 1) - min(MOST_PASSED_OVER, lane.passed_over))

    def _next_lane(self) -> Lane | None:
        """Choose the lane that gets the next grant, and count the others as passed over."""
        chosen = None
        for lane in self._falling:
            if lane:
                if lane.size == self.size:
                    return lane  # no waiters elsewhere
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
