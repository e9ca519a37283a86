"""WaiterQueue: the waiters of one event loop, how long each may wait, and the one timer of the limiter.

It knows nothing of slots: the scheduler decides when the next waiter may go, takes it from `lanes`, which decide who
is next, and resolves it.
"""

import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.errors import RateLimitWaitError
from comfycontrol_async.limits._lanes import Lanes, Priority, Stage, Waiter

# The timer aims this many seconds after the moment that is wanted: slots that come free together are granted together,
# and a loop whose timers fire up to 1 ms early (uvloop) is still in time.
TIMER_SLACK = 0.002
# What is still needed at a deadline, at the least: a slot that would come free just then has others before it.
_LEAST_LEFT = 0.01


class WaiterQueue:
    """The waiters of one event loop. `wake` is called when the moment given to `wake_at` has come, never on its own."""

    __slots__ = ("_clock", "_deadlines", "_timer", "_wake", "lanes", "timer_at", "waiting")

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self.clear()

    def clear(self) -> None:
        """Forget everything, since the event loop is gone."""
        self.lanes: Lanes = Lanes()
        # Waiters whose task has not resumed, including those already granted: a newcomer queues behind them.
        self.waiting: int = 0
        self.timer_at: float = math.inf
        self._timer: Timer | None = None
        # (deadline, tie-breaker, waiter, seconds allowed).
        self._deadlines: list[tuple[float, int, Waiter, float]] = []

    @property
    def next_deadline(self) -> float:
        """The first moment at which a waiter has to be refused, inf when there is none."""
        return self._deadlines[0][0] if self._deadlines and self.lanes.size else math.inf

    def allow_until(self, waiter: Waiter, deadline: float, allowed: float) -> None:
        """Let the waiter wait until `deadline`, `allowed` seconds after it came."""
        deadlines = self._deadlines
        if len(deadlines) > 2 * self.lanes.size + 64:
            deadlines[:] = [entry for entry in deadlines if not entry[2].done()]
            heapify(deadlines)
        heappush(deadlines, (deadline, id(waiter), waiter, allowed))

    def leave(self, waiter: Waiter, priority: Priority, stage: Stage) -> Any:
        """Forget a waiter whose task goes on without a permit; return the one that it had been granted, if any."""
        self.waiting -= 1
        waiter.cancel()
        if waiter.cancelled() or waiter.exception() is not None:
            self.lanes.forget(priority, stage)
            return None
        return waiter.result()

    def refuse(self, until: float, remaining_wait: Callable[[float], float]) -> None:
        """Refuse those who may not wait until then; `remaining_wait` estimates what is left at a deadline."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= until:
            deadline, _, waiter, allowed = heappop(deadlines)
            if not waiter.done():
                left = max(remaining_wait(deadline), _LEAST_LEFT)
                waiter.set_exception(RateLimitWaitError(allowed + left, allowed))

    def wake_at(self, at: float, now: float) -> None:
        """Ensure that `wake` is called at `at`, or before; inf: never."""
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
