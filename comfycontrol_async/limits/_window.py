"""SlidingWindow: the slots of the rate limit, as plain arithmetic over `now`.

The server counts arrivals; a client knows only when it sent and when the answer's headers came. So:

    A slot is taken when a request may leave, and becomes free `period` + guard after its response headers arrived.

Proof that no window of `period` seconds ever holds more than `limit` arrivals, whatever the latency. Let s, a and h be
the moments of sending, arriving and receiving the headers: s <= a <= h for every request. Of any `limit` + 1 requests
two share a slot. The later of the two was sent at s2 >= h1 + period + guard, so a2 >= s2 >= h1 + period + guard >=
a1 + period + guard: their arrivals are more than a period apart, and no half-open window of `period` holds both.
Nothing is assumed about clocks (only one is read), jitter or tails. The price is the mean round trip over the period:
1 % at 100 ms and 10 s. A request without an answer is stamped at the last moment at which it can have arrived.

In numbers, limit 1, period 10, guard 0.002: sent at 0.0, arrived at 0.09 (unknown to us), headers at 0.1. The slot is
free at 10.102, so the next arrival is later than 10.102, while the server frees its count at 10.09.

The slots that are not in flight wait in a queue, ascending by the moment at which each becomes free: taking one is a
comparison and a `popleft`, stamping one an `append`, both O(1). Stamps that lie in the future (a lost request that may
still arrive, a request that may hold its slot no longer) wait in a heap, and join the queue when their moment comes;
that is before any later stamp, so the queue stays in order.

A slot is an object, which goes out to whoever sends the request and comes back. One that somebody still refers to is
not given out again: another takes its place, so that whoever kept it cannot touch the new holder's.
"""

import sys
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, TypeVar

# Seconds added to every period: clocks tick in steps, and the server may round its own stamps.
GUARD = 0.002
# Seconds for which a request that was sent and lost may still be on its way to the server.
LOST_TAIL = 1.0
# Seconds after its request headers were written for which a request can hold a slot without an answer.
HOLD_CAP = 3.0

# Marks in `Slot.free_at` beside moments: in flight, given back while its holder still has it, free since ever.
HELD = float("inf")
LAPSED = float("-inf")
FREE = -sys.float_info.max


class Slot:
    """One unit of the limit: `free_at` is the moment at which it is free, or one of the marks above."""

    __slots__ = ("free_at",)

    def __init__(self) -> None:
        self.free_at: float = FREE


def _own_references() -> int:
    slot = Slot()
    return getrefcount(slot)


# PyPy counts no references: there every slot is taken for one that is still referred to.
getrefcount: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: 1 << 30)
# What `getrefcount` says of an object that only one local variable refers to: 2, and 1 from Python 3.14 on.
UNSHARED = min(_own_references(), 2)

S = TypeVar("S", bound=Slot)


class SlidingWindow(Generic[S]):
    """`limit` slots, each free again `span` = `period` + guard seconds after its stamp; `make` makes one."""

    __slots__ = ("_late_count", "_make", "late", "limit", "period", "slots", "span")

    def __init__(self, limit: int, period: float, make: Callable[[], S]) -> None:
        self.limit = limit
        self.period = period
        self.span = period + GUARD
        self._make = make
        # Both are changed in place only: the limiter's fast path refers to them.
        self.slots: deque[S] = deque(make() for _ in range(limit))
        self.late: list[tuple[float, int, S]] = []
        self._late_count = 0

    @property
    def held(self) -> int:
        """How many slots are in flight, or wait for a stamp that lies in the future."""
        return self.limit - len(self.slots)

    def take(self) -> S:
        """Take the slot at the head of the queue, which the caller has seen to be free."""
        slot = self.slots.popleft()
        if getrefcount(slot) > UNSHARED:
            slot = self._make()
        slot.free_at = HELD
        return slot

    def stamp(self, slot: S, now: float) -> None:
        """Free a held slot one span from `now`, the last moment at which its request can have arrived."""
        self.flush(now)
        if slot.free_at == LAPSED:  # just now: its successor is in the queue
            slot.free_at = FREE
            return
        slot.free_at = now + self.span
        self.slots.append(slot)

    def refund(self, slot: S) -> None:
        """Give a held slot back as if it had not been taken: its request certainly never left."""
        slot.free_at = FREE
        self.slots.appendleft(slot)

    def lose(self, slot: S, at: float) -> None:
        """Free a held slot one span after `at`, which may lie in the future; its holder has settled it."""
        slot.free_at = FREE
        stand_in = self._make()
        stand_in.free_at = HELD
        self.cap(stand_in, at)

    def cap(self, slot: S, at: float) -> None:
        """Free a held slot one span after `at`, unless its holder settles it before `at`."""
        self._late_count += 1
        heappush(self.late, (at, self._late_count, slot))

    def flush(self, now: float) -> None:
        """Queue the slots whose future stamps have come to pass."""
        late = self.late
        while late and late[0][0] <= now:
            at, _, slot = heappop(late)
            if slot.free_at == HELD:
                slot.free_at = LAPSED
                successor = self._make()
                successor.free_at = at + self.span
                self.slots.append(successor)

    def renew(self, at: float) -> None:
        """Stamp every slot in flight `at`, since whoever held it is gone, and make all slots anew."""
        held = self.held
        stamps = [slot.free_at for slot in self.slots]
        self.slots.clear()
        self.late.clear()
        for free_at in stamps:
            slot = self._make()
            slot.free_at = free_at
            self.slots.append(slot)
        for _ in range(held):
            self.lose(self._make(), at)

    def charge_all(self, now: float) -> None:
        """Take the window as spent `now`, when nobody knows what was sent before."""
        self.slots.clear()
        self.late.clear()
        for _ in range(self.limit):
            self.stamp(self._make(), now)

    def used(self, now: float) -> int:
        """How many slots are in flight or not free yet."""
        free = 0
        for slot in self.slots:
            if slot.free_at > now:
                break
            free += 1
        return self.limit - free

    def next_free(self) -> float:
        """Return when the first slot comes free that is not in flight, inf when all are."""
        at = self.slots[0].free_at if self.slots else HELD
        return min(at, self.late[0][0] + self.span) if self.late else at

    def free_at(self, now: float, ahead: int = 0) -> float:
        """Estimate when a slot will be free for a newcomer with `ahead` others before it.

        Slots in flight count as answered `now`, and every grant as answered at once: what comes out is the earliest
        moment, late only by the round trips in between.
        """
        rounds, place = divmod(ahead, self.limit)
        first = self.slots[place].free_at if place < len(self.slots) else now + self.span
        return max(first, now) + rounds * self.span
