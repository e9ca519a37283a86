"""SlidingWindow: the slots of the rate limit, as plain arithmetic over `now`.

The server counts arrivals; a client knows only when it sent and when the answer's headers came. So:

    A slot is taken when a request may leave, and becomes free `period` + guard after its response headers arrived.

Proof that no window of `period` seconds ever holds more than `limit` arrivals, whatever the latency. Let s, a and h be
the moments of sending, arriving and receiving the headers: s <= a <= h for every request. Of any `limit` + 1 requests
two share a slot. The later of the two was sent at s2 >= h1 + period + guard, so a2 >= s2 >= h1 + period + guard >=
a1 + period + guard: their arrivals are more than a period apart, and no half-open window of `period` holds both.
Nothing is assumed about clocks (only one is read), jitter or tails. The price is the mean round trip over the period:
1 % at 100 ms and 10 s.

In numbers, limit 1, period 10, guard 0.002: sent at 0.0, arrived at 0.09 (unknown to us), headers at 0.1. The slot is
free at 10.102, so the next arrival is later than 10.102, while the server frees its count at 10.09.

The slots are a queue of the moments at which each becomes free; a slot that is in flight is not in the queue. Taking
one is a comparison and a `popleft`, freeing one an `append`: O(1), for stamps come in order but for rare lost requests.
"""

from bisect import insort
from collections import deque

# Seconds added to every period: clocks tick in steps, and the server may round its own stamps.
GUARD = 0.002
# Seconds for which a request that was sent and lost may still be on its way to the server.
LOST_TAIL = 1.0
# Seconds after its request headers were written for which a request can hold a slot without an answer.
HOLD_CAP = 3.0


class SlidingWindow:
    """`limit` slots, each free again `span` = `period` + guard seconds after its stamp."""

    __slots__ = ("limit", "period", "slots", "span")

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period
        self.span = period + GUARD
        self.slots = deque([float("-inf")] * limit)

    @property
    def held(self) -> int:
        """How many slots are in flight."""
        return self.limit - len(self.slots)

    def take(self, now: float) -> bool:
        """Take a slot if one is free."""
        slots = self.slots
        if slots and slots[0] <= now:
            slots.popleft()
            return True
        return False

    def stamp(self, at: float) -> None:
        """Free a held slot one span after `at`, the last moment at which its request can have arrived."""
        free_at = at + self.span
        slots = self.slots
        if slots and slots[-1] > free_at:
            insort(slots, free_at)
        else:
            slots.append(free_at)

    def refund(self) -> None:
        """Give a held slot back as if it had not been taken: its request certainly never left."""
        self.slots.appendleft(float("-inf"))

    def charge_held(self, now: float) -> None:
        """Stamp every slot in flight `now`: whoever held them is gone."""
        for _ in range(self.held):
            self.stamp(now)

    def charge_all(self, now: float) -> None:
        """Take the window as spent `now`, when nobody knows what was sent before."""
        self.slots.clear()
        self.charge_held(now)

    def used(self, now: float) -> int:
        """How many slots are in flight or not free yet."""
        free = 0
        for free_at in self.slots:
            if free_at > now:
                break
            free += 1
        return self.limit - free

    def free_at(self, now: float, ahead: int = 0) -> float:
        """Estimate when a slot will be free for a newcomer with `ahead` others before it.

        Slots in flight count as answered `now`, and every grant as answered at once: what comes out is the earliest
        moment, late only by the round trips in between.
        """
        rounds, place = divmod(ahead, self.limit)
        first = self.slots[place] if place < len(self.slots) else now + self.span
        return max(first, now) + rounds * self.span
