"""WaiterQueue: those who wait for a limiter's permits, how long each may wait, and the one timer for all of them.

It knows nothing of slots: the limiter decides when whoever is next may go, takes it from `lanes` and resolves it, and
says with `wake_at` when it wants to be woken. So limiters that keep their slots elsewhere can use it as it is.
"""

import asyncio
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeVar

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.errors import RateLimitWaitError
from comfycontrol_async.limits._lanes import Lanes, Priority

if TYPE_CHECKING:
    from comfycontrol_async.limits._old_permit import Permit

# The timer aims this many seconds after the moment that is wanted: slots that come free together are granted together,
# and a loop whose timers fire up to 1 ms early (uvloop) is still in time.
TIMER_SLACK = 0.002

T = TypeVar("T")


def waits_on(waiter: "asyncio.Future[Permit]", loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether a waiter that leaves is still counted: it is not once its loop is closed, and another one bound."""
    return waiter.get_loop() is loop and not loop.is_closed()


class WaiterQueue:
    """The waiters of one event loop. `wake` is called when the moment given to `wake_at` has come, never on its own."""

    __slots__ = ("_clock", "_deadlines", "_timer", "_wake", "lanes", "timer_at", "waiting")

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self.clear()

    def clear(self) -> None:
        """Forget everything, since the event loop is gone."""
        self.lanes = Lanes()
        # Waiters that have not gone on yet, granted or not: while there are any, a newcomer queues behind them.
        self.waiting = 0
        self.timer_at = math.inf
        self._timer: Timer | None = None
        # Who may wait until when: (moment, tie-breaker, waiter, seconds allowed).
        self._deadlines: list[tuple[float, int, asyncio.Future[Permit], float]] = []

    def allow_until(self, waiter: "asyncio.Future[Permit]", deadline: float, allowed: float) -> None:
        """Let the waiter wait until `deadline`, `allowed` seconds after it came."""
        deadlines = self._deadlines
        if len(deadlines) > 2 * self.lanes.size + 64:
            deadlines[:] = [entry for entry in deadlines if not entry[2].done()]
            heapify(deadlines)
        heappush(deadlines, (deadline, id(waiter), waiter, allowed))

    def leave(self, waiter: "asyncio.Future[Permit]", priority: Priority) -> "Permit | None":
        """Forget a waiter whose task goes on without a permit; return the one that it had been granted, if any."""
        self.waiting -= 1
        waiter.cancel()
        if waiter.cancelled() or waiter.exception() is not None:
            self.lanes.forget(priority)
            return None
        return waiter.result()

    def refuse(self, until: float, needed: Callable[[float], float]) -> None:
        """Refuse those who may not wait until then; `needed` estimates the wait that is left at a deadline."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= until:
            deadline, _, waiter, allowed = heappop(deadlines)
            if not waiter.done():
                waiter.set_exception(RateLimitWaitError(allowed + needed(deadline), allowed))

    def wake_at(self, at: float, now: float) -> None:
        """See to it that `wake` is called at `at`, or when the next deadline passes, if anybody waits."""
        if self.lanes.size <= 0:
            at = math.inf
        elif self._deadlines:
            at = min(at, self._deadlines[0][0])
        if self._timer is not None:
            if self.timer_at <= at < math.inf:
                return
            self._timer.cancel()
            self._timer, self.timer_at = None, math.inf
        if at < math.inf:
            self.timer_at = at
            self._timer = self._clock.call_later(max(0.0, at - now) + TIMER_SLACK, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self.timer_at = None, math.inf
        self._wake()
