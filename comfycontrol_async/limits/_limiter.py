"""LocalLimiter: the rate limit of one process, with lanes of waiters, one timer and one cooldown gate.

Window (`_window`), gate (`_gate`), pacing (`_pacing`) and waiters (`_queue`) are one queue with one decision, `_pump`:
a permit that was taken before waiting at the gate would be stale when the gate opens. A grant costs O(1); the way
without waiting does not suspend; there is no background task and no task or timer per waiter.
"""

import asyncio
import logging
import math
from contextlib import suppress
from threading import get_ident

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits._fork import watch_forks
from comfycontrol_async.limits._gate import CooldownGate
from comfycontrol_async.limits._lanes import PRIORITIES, Priority
from comfycontrol_async.limits._pacing import Pacing, PacingMode
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._protocol import RateLimitSnapshot
from comfycontrol_async.limits._queue import WaiterQueue, waits_on
from comfycontrol_async.limits._rule import Rule, is_number
from comfycontrol_async.limits._window import FREE, HELD, HOLD_CAP, LOST_TAIL, UNSHARED, SlidingWindow, getrefcount

log = logging.getLogger("comfycontrol_async.limits")

_NORMAL = Priority.NORMAL


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
        rule = Rule(limit, period, pacing)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._clock = clock
        self._monotonic = clock.monotonic
        self._window = SlidingWindow(rule.limit, rule.period, self._make_permit)
        self._slots, self._late, self._span = self._window.slots, self._window.late, self._window.span
        self._gate = CooldownGate()
        self._pacing = Pacing(pacing, rule.limit, rule.period)
        self._queue = WaiterQueue(clock, self._on_wake)
        # Whether the window alone decides: the gate is open, and requests are not spread.
        self._plain = pacing != "smooth"
        # How many permits were given: the number of a permit is its place in the order of all grants.
        self._granted = 0
        self._refunded = 0
        watch_forks(self)

    async def acquire(self, priority: Priority = _NORMAL, *, max_wait: float | None = None) -> Permit:
        """Wait for a slot, first come first served in the lane of `priority`.

        Raises:
            RateLimitWaitError: it would take longer than `max_wait` seconds; at once when that can be told.
            InvalidArgumentError: an unknown priority, or a `max_wait` that is negative or no number.
            ClientLoopError: the limiter belongs to another event loop that is still alive.
        """
        # Each local variable here costs 8 bytes per waiter.
        # The same as `_get_running_loop() is self._loop`, which asks the kernel for the process id on Python 3.11.
        if get_ident() == self._thread and self._loop.is_running():  # type: ignore[union-attr] # bound with the thread
            if (
                self._plain
                and self._slots
                and not self._queue.waiting
                and (priority is _NORMAL or priority in PRIORITIES)
                and max_wait is None
                and self._slots[0].free_at <= self._monotonic()
            ):
                # This is `SlidingWindow.take`, written out: a call would cost as much as all of it.
                permit = self._slots.popleft()
                if getrefcount(permit) > UNSHARED:
                    permit = self._make_permit()
                permit.free_at = HELD
                permit._priority = priority
                self._granted = permit._number = self._granted + 1
                return permit
        else:
            self._bind()
        waiter = self._join(priority, max_wait)
        try:
            permit = await waiter
        except BaseException:
            self._leave(waiter, priority)
            raise
        self._queue.waiting -= 1
        permit._priority = priority
        if self._plain or self._gate.passes(self._monotonic()):
            return permit
        permit.refund()  # the gate closed after the grant
        return await self._requeue(permit, max_wait)

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for `seconds` from now, after a 429; a cooldown is only ever extended.

        Raises:
            InvalidArgumentError: `seconds` is negative or not finite.
        """
        if not (is_number(seconds) and 0 <= seconds < math.inf):
            raise InvalidArgumentError(f"a cooldown must be a finite number of seconds from 0, not {seconds!r}")
        now = self._monotonic()
        self._plain = False
        if self._gate.close(now + seconds):
            log.warning("the server refused a request: nothing is sent for %.1f s", seconds)
            if self._pacing.refused(now, self._granted - self._refunded):
                log.warning("our own count cannot explain that: requests are spread from now on")
        if self._queue.waiting:
            self._queue.refuse(self._gate.until, self._left)
            self._wake_up(now)

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment."""
        now = self._monotonic()
        self._window.flush(now)
        used = self._window.used(now)
        return RateLimitSnapshot(
            limit=self._window.limit,
            period=self._window.period,
            used=used,
            available=self._window.limit - used,
            waiting={priority: self._queue.lanes.lanes[priority].size for priority in Priority},
            cooldown=self._gate.remaining(now),
            pacing="smooth" if self._pacing.smooth(now) else "burst",
            next_free_in=self._needed(now, self._queue.lanes.ahead(Priority.NORMAL)),
        )

    def __repr__(self) -> str:
        return f"<LocalLimiter {self._window.limit} per {self._window.period:g} s, {self._queue.waiting} waiting>"

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Tell whether it may be used from `loop`: it is bound to that one, or to none that is alive."""
        return self._loop is None or self._loop is loop or self._loop.is_closed()

    # Waiting

    def _join(self, priority: Priority, max_wait: float | None, number: int | None = None) -> "asyncio.Future[Permit]":
        """Queue a waiter: a newcomer, or one who comes back with the number of its grant."""
        queue = self._queue
        loop = self._loop
        assert loop is not None  # bound before
        waiter: asyncio.Future[Permit] = loop.create_future()
        if max_wait is None and number is None and queue.lanes.size and priority in PRIORITIES:
            # Whoever is first in line has set the timer, or waits for those in flight.
            queue.waiting += 1
            queue.lanes.push(waiter, priority)
            return waiter
        if priority not in PRIORITIES:
            raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
        now = self._monotonic()
        self._window.flush(now)
        if max_wait is not None:
            if not (is_number(max_wait) and max_wait >= 0):
                raise InvalidArgumentError(f"max_wait must be a number of seconds from 0, not {max_wait!r}")
            needed = self._needed(now, queue.lanes.ahead(priority) if number is None else 0)
            if needed > max_wait:
                raise RateLimitWaitError(needed, max_wait)
            queue.allow_until(waiter, now + max_wait, max_wait)
        queue.waiting += 1
        queue.lanes.push(waiter, priority, number)
        if queue.waiting == 1:
            self._pump(now)
        else:
            # Those who were granted before have not gone on yet: this one must not overtake them.
            loop.call_soon(self._on_wake)
        return waiter

    async def _requeue(self, permit: Permit, max_wait: float | None) -> Permit:
        """Wait at the head of the permit's lane; its order among those who come back is that of the first grants."""
        priority, number = permit._priority, permit._number
        self._bind()
        while True:
            waiter = self._join(priority, max_wait, number)
            try:
                permit = await waiter
            except BaseException:
                self._leave(waiter, priority)
                raise
            self._queue.waiting -= 1
            permit._priority, permit._number = priority, number
            if self._gate.passes(self._monotonic()):
                return permit
            permit.refund()

    def _bind(self) -> None:
        """Bind to the running loop, in the place of one that is closed."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if not self.serves(loop):
                raise ClientLoopError(
                    "this limiter belongs to another event loop that is still alive; "
                    "use one limiter for each loop, or close the first loop"
                )
            self._queue.clear()
            self._loop = loop
            # Requests in flight on the closed loop were cut off, and may still arrive.
            self._window.renew(self._monotonic() + LOST_TAIL)
        self._thread = get_ident()

    def _leave(self, waiter: "asyncio.Future[Permit]", priority: Priority) -> None:
        """Leave nothing behind of a waiter that was cancelled or refused, even after it had been granted."""
        loop = self._loop
        if loop is None or not waits_on(waiter, loop):
            return
        permit = self._queue.leave(waiter, priority)
        if permit is not None:
            self._refunded += 1
            self._window.refund(permit)
        if loop.is_running():
            self._pump(self._monotonic())

    def _needed(self, now: float, ahead: int) -> float:
        """Estimate the wait of someone with `ahead` others before it."""
        at = self._window.free_at(max(now, self._gate.until), ahead)
        return max(at, self._pacing.expected(now, ahead)) - now

    def _left(self, deadline: float) -> float:
        """Estimate how much longer than `deadline` whoever is refused now would have had to wait."""
        now = self._monotonic()
        return max(0.0, now + self._needed(now, 0) - deadline)

    # Granting

    def _pump(self, now: float) -> None:
        """Grant what can be granted now, first in line first, and set the timer for the rest."""
        if self._gate.open_if_due(now):
            log.info("the cooldown is over: requests are sent again")
        if self._gate.passes(now):
            smooth = self._pacing.smooth(now)
            self._plain = not smooth
            lanes = self._queue.lanes
            slots = self._slots
            while slots and slots[0].free_at <= now and not (smooth and self._pacing.ready_at(now) > now):
                waiter = lanes.pop()
                if waiter is None:
                    break
                permit = self._window.take()
                self._granted = permit._number = self._granted + 1
                if smooth:
                    self._pacing.granted(now)
                waiter.set_result(permit)
        self._wake_up(now)

    def _wake_up(self, now: float) -> None:
        """Set the one timer for the next moment at which something can be done."""
        # When every slot is in flight there is none: whoever settles one sets the timer.
        at = max(self._window.next_free(), self._gate.until, self._pacing.ready_at(now))
        self._queue.wake_at(at, now)

    def _on_wake(self) -> None:
        now = self._monotonic()
        self._window.flush(now)
        self._pump(now)
        self._queue.refuse(now, self._left)

    # Settling permits (`PermitOwner`)

    def _make_permit(self) -> Permit:
        # Slots of a limiter that is not bound yet are made anew when it binds, before any goes out.
        return Permit(self, self._loop)  # type: ignore[arg-type] # see above

    def _stamp(self, permit: Permit) -> None:
        if self._late or permit._loop is not self._loop:
            return self._stamp_slowly(permit)
        permit.free_at = free_at = self._monotonic() + self._span
        self._slots.append(permit)
        if self._queue.waiting and free_at < self._queue.timer_at:
            self._wake_up(free_at - self._span)
        return None

    def _stamp_slowly(self, permit: Permit) -> None:
        """Stamp a permit while others lie in wait for their stamps, or one whose loop is gone."""
        if permit._loop is not self._loop:
            permit.free_at = FREE  # charged when the next loop took over
            return
        now = self._monotonic()
        self._window.stamp(permit, now)
        self._expect(now, now + self._span)

    def _lose(self, permit: Permit) -> None:
        now = self._monotonic()
        self._window.lose(permit, now + LOST_TAIL)
        self._expect(now, now + LOST_TAIL + self._span)

    def _cap(self, permit: Permit) -> None:
        now = self._monotonic()
        self._window.cap(permit, now + HOLD_CAP)
        self._expect(now, now + HOLD_CAP + self._span)

    def _refund(self, permit: Permit) -> None:
        self._refunded += 1
        self._window.refund(permit)
        if self._queue.waiting:
            self._pump(self._monotonic())

    def _drop(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # a closed loop: charged when the next one takes over
            loop.call_soon_threadsafe(self._charge_dropped, loop)

    def _charge_dropped(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            now = self._monotonic()
            self._window.stamp(self._make_permit(), now)
            self._expect(now, now + self._span)

    def _expect(self, now: float, free_at: float) -> None:
        """Take note that a slot comes free at `free_at`: whoever waits may have no timer, or a later one."""
        if self._queue.lanes.size and free_at < self._queue.timer_at:
            self._wake_up(now)

    def _after_fork(self) -> None:
        """Start with the window charged, in a forked child: the parent shares the address."""
        self._loop = None
        self._thread = 0
        self._queue.clear()
        self._window.charge_all(self._monotonic())
