"""Pace: when the requests of a batch may leave, so that looks and other callers still get slots."""

import asyncio
import math
from collections import deque
from collections.abc import Callable

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.limits import RateLimitSnapshot

# How many may wait at the limiter before a batch holds its requests back, and for how many turns it does.
_CROWD = 2
_LONGEST_HOLD = 8


class Pace:
    """Lets the requests of a batch out one by one where the budget is short, outputs before submits.

    Slots that are taken in a burst come free in a burst, one period later: in between no poll and no other caller gets
    one. So half of the budget may be used at once, and after that one request leaves each `period / limit`, which is
    the same rate. The limiter's queue stays short, so that a single submit beside the batch does not wait behind it.

    The stages of the limiter do not replace this (1,000 workflows, benchmarks/batch.py): without it 5 submits beside a
    batch of 5,000 rows wait 1.0 window instead of 0.6 at the most, and results are known after 8 s instead of 1.3.
    """

    def __init__(self, limits: Callable[[], RateLimitSnapshot], clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._timer: Timer | None = None
        self._next_at = -math.inf
        self._step = 0.0
        self._held = 0
        # How many may still leave at once, by the snapshot that is good until `_known_until`.
        self._at_once = 0
        self._known_until = -math.inf

    async def turn(self, *, first: bool) -> None:
        """Wait until this request may leave; with `first`, before all others."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[0 if first else 1].append(waiter)
        if self._timer is None:
            self._let_out()
        await waiter

    def close(self) -> None:
        """Let no request out any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _let_out(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while lane := next((lane for lane in self._waiting if lane), None):
            if lane[0].done():
                lane.popleft()  # it was cancelled
            elif now < self._next_at:
                self._timer = self._clock.call_later(self._next_at - now, self._let_out)
                return
            elif self._must_hold(now):
                self._held += 1
                self._next_at = now + self._step
            else:
                self._held = 0
                lane.popleft().set_result(None)
                # A timer that fires late does not slow the rest down.
                self._next_at = (self._next_at if now - self._next_at < self._step else now) + self._step

    def _must_hold(self, now: float) -> bool:
        """Return True if other callers should go first; update how fast requests may leave."""
        if self._at_once <= 0 or now >= self._known_until:
            limits = self._limits()
            if now >= self._known_until:
                self._at_once = limits.available - limits.limit // 2
                self._known_until = now + limits.period / 4
            if self._at_once <= 0:
                self._step = limits.period / limits.limit
                return self._held < _LONGEST_HOLD and sum(limits.waiting.values()) >= _CROWD
        self._at_once -= 1
        self._step = 0.0
        return False
