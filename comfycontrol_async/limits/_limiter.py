"""LocalLimiter: the rate limit of one process, with lanes of waiters, one timer and one cooldown gate.

Window (`_window`), gate (`_gate`) and waiters (`_lanes`) are one queue with one decision, `_pump`: a permit that was
taken before waiting at the gate would be stale when the gate opens. A grant costs O(1); the way without waiting does
not suspend; there is no background task and no task or timer per waiter.
"""

import asyncio
import logging
import math
import os
import weakref
from asyncio import _get_running_loop
from heapq import heappop, heappush
from typing import Literal, Protocol

import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock, Timer
from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits._gate import CooldownGate
from comfycontrol_async.limits._lanes import Lanes, Priority
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._window import HOLD_CAP, LOST_TAIL, SlidingWindow

log = logging.getLogger("comfycontrol_async.limits")

PacingMode = Literal["auto", "burst", "smooth"]

# The timer aims this many seconds after the next free slot: slots that come free together are granted together, and a
# loop whose timers fire up to 1 ms early (uvloop) is still in time.
_TIMER_SLACK = 0.002

_OPEN = -math.inf
_PRIORITIES = frozenset(Priority)


@attrs.frozen(kw_only=True)
class RateLimitSnapshot:
    """The state of a limiter at one moment; durations in seconds.

    `used` + `available` = `limit`; `waiting` counts the waiters of each lane; `cooldown` is the time until the gate
    opens, 0.0 when it is open; `pacing` is the way in force now, "burst" or "smooth"; `next_free_in` is the estimated
    wait of a newcomer in the NORMAL lane, 0.0 when it would not wait.
    """

    limit: int
    period: float
    used: int
    available: int
    waiting: dict[Priority, int]
    cooldown: float
    pacing: str
    next_free_in: float


class Limiter(Protocol):
    """What the client asks of a rate limiter; one instance may serve many clients of one event loop."""

    async def acquire(self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None) -> "Permit":
        """Wait for a slot; refuse with `RateLimitWaitError` when that would take longer than `max_wait` seconds."""
        ...

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for `seconds` from now, after a 429; a cooldown is only ever extended."""

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment."""
        ...


class LocalLimiter:
    """At most `limit` requests in any `period` seconds at the server, for one process.

    Args:
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit).
        pacing: how grants are spread; see `limits._pacing`.
        clock: where time comes from.

    May be made without an event loop and binds to the first one that acquires. When that loop has been closed the
    next one takes over, with what was in flight charged; after `fork` the child starts with the window charged.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
    """

    def __init__(
        self, limit: int = 40, period: float = 10.0, *, pacing: PacingMode = "auto", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        if not (_is_number(limit) and float(limit).is_integer() and limit >= 1):
            raise InvalidArgumentError(f"limit must be a whole number of requests, at least 1, not {limit!r}")
        if not (_is_number(period) and math.isfinite(period) and period > 0):
            raise InvalidArgumentError(f"period must be a positive, finite number of seconds, not {period!r}")
        if pacing not in ("auto", "burst", "smooth"):
            raise InvalidArgumentError(f"pacing must be 'auto', 'burst' or 'smooth', not {pacing!r}")
        self._window = SlidingWindow(int(limit), float(period))
        self._gate = CooldownGate()
        self._pacing = pacing
        self._clock = clock
        self._monotonic = clock.monotonic
        # How many permits were given: the number of a permit is its place in the order of all grants.
        self._granted = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start_over()
        _charge_after_fork(self)

    def _start_over(self) -> None:
        """Forget everything that belongs to an event loop."""
        self._lanes = Lanes()
        # Waiters that have not gone on yet, granted or not: while there are any, a newcomer queues behind them.
        self._waiting = 0
        self._timer: Timer | None = None
        self._timer_at = math.inf
        # Permits whose request headers were written, in that order, with the moment at which they lose their slot.
        self._capped: dict[Permit, float] = {}
        # Who may wait until when: (moment, tie-breaker, waiter, seconds allowed).
        self._deadlines: list[tuple[float, int, asyncio.Future[None], float]] = []

    async def acquire(self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None) -> Permit:
        """Wait for a slot, first come first served in the lane of `priority`.

        Raises:
            RateLimitWaitError: it would take longer than `max_wait` seconds; at once when that can be told.
            InvalidArgumentError: an unknown priority, or a `max_wait` that is negative or no number.
            ClientLoopError: the limiter belongs to another event loop that is still alive.
        """
        loop = _get_running_loop()
        slots = self._window.slots
        if (
            not self._waiting
            and loop is not None
            and loop is self._loop
            and slots
            and slots[0] <= self._monotonic()
            and self._gate.until == _OPEN
            and priority in _PRIORITIES
        ):
            slots.popleft()
            return Permit(self, loop, priority)
        waiter = self._enqueue(priority, max_wait, None)
        try:
            await waiter
        except BaseException:
            self._abandon(waiter, priority)
            raise
        return await self._admit(priority, max_wait)

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for `seconds` from now, after a 429; a cooldown is only ever extended.

        Raises:
            InvalidArgumentError: `seconds` is negative or not finite.
        """
        if not (_is_number(seconds) and math.isfinite(seconds) and seconds >= 0):
            raise InvalidArgumentError(f"a cooldown must be a finite number of seconds from 0, not {seconds!r}")
        now = self._monotonic()
        if self._gate.close(now + seconds):
            log.warning("the server refused a request: nothing is sent for %.1f s", seconds)
        if self._waiting:
            self._refuse_overdue(self._gate.until)
            self._arm(now)

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment."""
        now = self._monotonic()
        self._release_capped(now)
        used = self._window.used(now)
        return RateLimitSnapshot(
            limit=self._window.limit,
            period=self._window.period,
            used=used,
            available=self._window.limit - used,
            waiting={priority: len(self._lanes.lanes[priority]) for priority in Priority},
            cooldown=self._gate.remaining(now),
            pacing="smooth" if self._pacing == "smooth" else "burst",
            next_free_in=self._needed(now, self._lanes.ahead(Priority.NORMAL)),
        )

    def __repr__(self) -> str:
        return f"<LocalLimiter {self._window.limit} per {self._window.period:g} s, {self._waiting} waiting>"

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Tell whether it may be used from `loop`: it is bound to that one, or to none that is alive."""
        return self._loop is None or self._loop is loop or self._loop.is_closed()

    # Waiters

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                raise ClientLoopError(
                    "this limiter belongs to another event loop that is still alive; "
                    "use one limiter for each loop, or close the first loop"
                )
            # Requests in flight on the closed loop were cut off, and may still arrive.
            self._window.charge_held(self._monotonic() + LOST_TAIL)
            self._start_over()
            self._loop = loop
        return loop

    def _enqueue(self, priority: Priority, max_wait: float | None, number: int | None) -> asyncio.Future[None]:
        """Queue a waiter: a newcomer, or one who comes back with the number of its grant."""
        loop = self._bind()
        if priority not in _PRIORITIES:
            raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
        now = self._monotonic()
        self._release_capped(now)
        waiter = loop.create_future()
        if max_wait is not None:
            if not (_is_number(max_wait) and max_wait >= 0):
                raise InvalidArgumentError(f"max_wait must be a number of seconds from 0, not {max_wait!r}")
            needed = self._needed(now, self._lanes.ahead(priority) if number is None else 0)
            if needed > max_wait:
                raise RateLimitWaitError(needed, max_wait)
            heappush(self._deadlines, (now + max_wait, id(waiter), waiter, max_wait))
        self._lanes.push(waiter, priority, number)
        self._waiting += 1
        self._pump(now)
        return waiter

    def _abandon(self, waiter: asyncio.Future[None], priority: Priority) -> None:
        """Leave nothing behind of a waiter that was cancelled or refused, even after it had been granted."""
        if self._loop is not _get_running_loop():
            return
        self._waiting -= 1
        if waiter.cancelled() or waiter.exception() is not None:
            self._lanes.lanes[priority].forget()
        else:
            self._window.refund()
        self._pump(self._monotonic())

    async def _admit(self, priority: Priority, max_wait: float | None) -> Permit:
        """Give a waiter that was granted its permit, unless the gate closed before it went on."""
        self._waiting -= 1
        permit = Permit(self, asyncio.get_running_loop(), priority)
        if self._gate.until == _OPEN:
            return permit
        permit.refund()
        return await self._reacquire(permit, max_wait)

    async def _reacquire(self, permit: Permit, max_wait: float | None) -> Permit:
        waiter = self._enqueue(permit._priority, max_wait, permit._number)
        try:
            await waiter
        except BaseException:
            self._abandon(waiter, permit._priority)
            raise
        return await self._admit(permit._priority, max_wait)

    def _needed(self, now: float, ahead: int) -> float:
        """Estimate the wait of someone with `ahead` others before it."""
        start = max(now, self._gate.until)
        return self._window.free_at(start, ahead) - now

    # Granting

    def _pump(self, now: float) -> None:
        """Grant what can be granted now, first in line first, and set the timer for the rest."""
        if self._gate.open_if_due(now):
            log.info("the cooldown is over: requests are sent again")
        if self._gate.passes(now):
            slots = self._window.slots
            while slots and slots[0] <= now:
                waiter = self._lanes.pop()
                if waiter is None:
                    break
                slots.popleft()
                waiter.set_result(None)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Set the one timer for the next moment at which something can be done, if anybody waits."""
        at = self._next_event() if len(self._lanes) else math.inf
        if self._timer is not None:
            if self._timer_at <= at < math.inf:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            self._timer_at = at
            self._timer = self._clock.call_later(max(0.0, at - now) + _TIMER_SLACK, self._on_timer)

    def _next_event(self) -> float:
        """Return when the next slot comes free, or the next waiter has waited as long as it may."""
        if self._window.slots:
            at = max(self._window.slots[0], self._gate.until)
        elif self._capped:
            at = max(next(iter(self._capped.values())) + self._window.span, self._gate.until)
        else:
            at = math.inf  # every slot is in flight: whoever settles one sets the timer
        return min(at, self._deadlines[0][0]) if self._deadlines else at

    def _on_timer(self) -> None:
        self._timer = None
        now = self._monotonic()
        self._release_capped(now)
        self._pump(now)
        self._refuse_overdue(now)

    def _refuse_overdue(self, until: float) -> None:
        """Refuse the waiters that may not wait until then."""
        while self._deadlines and self._deadlines[0][0] <= until:
            deadline, _, waiter, allowed = heappop(self._deadlines)
            if not waiter.done():
                needed = allowed + max(0.0, self._window.free_at(max(until, self._gate.until)) - deadline)
                waiter.set_exception(RateLimitWaitError(needed, allowed))

    # Settling permits

    def _stamp(self, permit: Permit, tail: float) -> None:
        if permit._loop is not self._loop:
            return  # charged when the next loop took over
        now = self._monotonic()
        if self._capped:
            self._release_capped(now)
            self._capped.pop(permit, None)
        self._window.stamp(now + tail)
        if self._waiting and self._timer is None and not permit._loop.is_closed():
            self._arm(now)

    def _refund(self, permit: Permit) -> None:
        self._capped.pop(permit, None)
        self._window.refund()
        if self._waiting:
            self._pump(self._monotonic())

    def _cap(self, permit: Permit) -> None:
        if permit not in self._capped:
            now = self._monotonic()
            self._capped[permit] = now + HOLD_CAP
            if self._waiting and self._timer is None:
                self._arm(now)

    def _release_capped(self, now: float) -> None:
        """Free the slots of requests that were sent longer ago than the hold cap and are not answered yet."""
        while self._capped:
            permit, until = next(iter(self._capped.items()))
            if until > now:
                return
            del self._capped[permit]
            permit.cap()
            self._window.stamp(until)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_live_limiters: "weakref.WeakSet[LocalLimiter]" = weakref.WeakSet()


def _charge_after_fork(limiter: LocalLimiter) -> None:
    """See to it that in a forked child the limiter starts with the window charged: the parent shares the address."""
    if not _live_limiters and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_charge_all)
    _live_limiters.add(limiter)


def _charge_all() -> None:
    for limiter in list(_live_limiters):
        limiter._loop = None
        limiter._start_over()
        limiter._window.charge_all(limiter._monotonic())
