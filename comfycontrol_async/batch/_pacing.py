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

    Requests that leave in a burst come free in a burst, a period later, and so on for ever: in between there is no slot
    for a look at what has ended, nor for anybody else. Half of the budget may go at once; after that there is one
    request each `period / limit`, which is as many. And the line before the limiter is kept short, so that one who runs
    a single workflow beside the batch does not stand behind it.
    """

    def __init__(self, limits: Callable[[], RateLimitSnapshot], clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = (deque(), deque())
        self._timer: Timer | None = None
        self._next_at = -math.inf
        self._step = 0.0
        self._held = 0
        # How many may still go at once, as was found a moment ago.
        self._at_once = 0
        self._known_until = -math.inf

    async def turn(self, *, first: bool) -> None:
        """Wait for one's turn; who goes first goes before all others."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[0 if first else 1].append(waiter)
        if self._timer is None:
            self._let_out()
        await waiter

    def close(self) -> None:
        """Let no row out any more."""
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
        """Tell whether others should go first, and find out how fast requests may leave."""
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
