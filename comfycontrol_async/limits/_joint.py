"""JointLimiter: the part of a limiter that is the same wherever the slots are kept that processes share.

Inside the process there is the queue of LocalLimiter: lanes, deadlines, one timer (`_queue`). The slots are elsewhere;
a subclass takes as many as it has waiters for, in one step, and hands them out.

A slot that is taken is charged beforehand, as if its answer came at the end of a *lease*; the answer makes that
earlier. So a process that is killed gives its slots back by itself, a lease + period later. The lease is as long as a
request can hold its slot once it was written (`HOLD_CAP`), and a little: as a rule the answer comes before anything
else has to be noted. A permit that is not sent for long has its lease extended while it waits.

In numbers, period 10: taken at 0 and charged until 3.25 + 10.002. Answered at 0.1: free at 10.102. Killed: 13.252.
"""

import asyncio
import copy
import logging
import math
from abc import ABC, abstractmethod
from asyncio import _get_running_loop
from collections.abc import Sequence
from threading import get_ident

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.errors import ClientLoopError, ComfyControlError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits._fork import watch_forks
from comfycontrol_async.limits._gate import CooldownGate
from comfycontrol_async.limits._grant import Grant
from comfycontrol_async.limits._lanes import PRIORITIES, STAGES, Priority
from comfycontrol_async.limits._old_permit import Permit
from comfycontrol_async.limits._old_queue import WaiterQueue, waits_on
from comfycontrol_async.limits._protocol import RateLimitSnapshot
from comfycontrol_async.limits._rule import Rule, is_number
from comfycontrol_async.limits._view import View
from comfycontrol_async.limits._window import HELD, HOLD_CAP, LOST_TAIL

log = logging.getLogger("comfycontrol_async.limits")

# Seconds between taking a permit and writing its request within which nothing has to be noted about the latter.
SEND_SOON = 0.25
LEASE = HOLD_CAP + SEND_SOON
# Leases are looked after this often: a request that leaves right before is on its way for less than the rest of one.
LEASE_CHECK = LEASE / 2


class JointLimiter(ABC):
    """Queue, permits and leases of one process; see the module. One instance serves one event loop at a time."""

    # Whether it costs next to nothing to note something.
    _notes_at_once = False

    def __init__(self, rule: Rule, clock: Clock) -> None:
        self._rule = rule
        self._span = rule.span
        self._clock = clock
        self._monotonic = clock.monotonic
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._queue = WaiterQueue(clock, self._on_wake)
        # What this process knows of the cooldown.
        self._gate = CooldownGate()
        self._held: set[Grant] = set()
        self._lease_timer: Timer | None = None
        self._granted = 0
        watch_forks(self)

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: object = 2
    ) -> Permit:
        """Wait for a slot, first come first served in the lane of `priority`.

        Raises:
            RateLimitWaitError: it would take longer than `max_wait` seconds; at once when that can be told.
            ConfigurationError: the slots are kept in a place that cannot be used.
            InvalidArgumentError: an unknown priority, or a `max_wait` that is negative or no number.
            ClientLoopError: the limiter belongs to another event loop that is still alive.
        """
        if stage not in STAGES:
            raise InvalidArgumentError(f"stage must be a Stage, not {stage!r}")
        if get_ident() != self._thread or not self._loop.is_running():  # type: ignore[union-attr] # bound with the thread
            self._bind()
        if not self._queue.waiting and max_wait is None and priority in PRIORITIES:
            grant = self._take_now()
            if grant is not None:
                permit = self._permit_for(grant)
                permit._priority = priority
                return permit
        return await self._wait(priority, max_wait, None)

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for `seconds` from now in any process, after a 429; a cooldown is only ever extended.

        Raises:
            InvalidArgumentError: `seconds` is negative or not finite.
        """
        if not (is_number(seconds) and 0 <= seconds < math.inf):
            raise InvalidArgumentError(f"a cooldown must be a finite number of seconds from 0, not {seconds!r}")
        now = self._monotonic()
        seconds = max(min(seconds, 600.0), self._rule.period)
        if self._gate.close(now + seconds):
            log.warning("the server refused a request: nothing is sent for %.1f s", seconds)
        self._close_gate(now)
        if self._queue.waiting:
            self._queue.refuse(self._gate.until, self._left)

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment: slots and cooldown of all processes, waiters of this one."""
        now = self._monotonic()
        view = self._view(now)
        used = view.used(now)
        return RateLimitSnapshot(
            limit=view.limit,
            period=self._rule.period,
            used=used,
            available=view.limit - used,
            waiting={priority: self._queue.lanes.lanes[priority].size for priority in Priority},
            cooldown=max(0.0, view.gate - now),
            pacing="smooth" if view.smooth else "burst",
            next_free_in=view.needed(self._rule, now, self._queue.lanes.ahead(Priority.NORMAL)),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._rule.limit} per {self._rule.period:g} s, {self._queue.waiting} waiting>"

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Tell whether it may be used from `loop`: it is bound to that one, or to none that is alive."""
        return self._loop is None or self._loop is loop or self._loop.is_closed()

    # Where the slots are kept

    @abstractmethod
    def _open(self) -> None:
        """Get ready for the loop that was just bound."""

    @abstractmethod
    def _take_now(self) -> Grant | None:
        """Take a slot for somebody before whom nobody waits in this process, if that can be done without waiting."""

    @abstractmethod
    def _pump(self, now: float) -> None:
        """Hand out what can be had now, and see to it that somebody wakes for the rest."""

    @abstractmethod
    def _note(self, grant: Grant, free_at: float, now: float) -> None:
        """Note when the slot of a grant will be free."""

    @abstractmethod
    def _give_back(self, grant: Grant, now: float) -> None:
        """Free the slot of a grant whose request never left."""

    @abstractmethod
    def _close_gate(self, now: float) -> None:
        """Tell the other processes that the gate is closed until `self._gate.until`."""

    @abstractmethod
    def _view(self, now: float) -> View:
        """Look at the slots."""

    @abstractmethod
    def _let_go(self) -> None:
        """Let go, in a forked child, of what belongs to the parent."""

    def _passes(self, now: float) -> bool:
        """Tell whether the gate is open, as far as is known without asking anybody."""
        return self._gate.passes(now)

    @abstractmethod
    def _demand_grew(self) -> None:
        """Take note that there are more waiters behind those who wait already."""

    # Waiting

    async def _wait(self, priority: Priority, max_wait: float | None, number: int | None) -> Permit:
        """Wait in the lane; one who comes back with the number of its grant goes to its head."""
        deadline = None
        if max_wait is not None:
            if not (is_number(max_wait) and max_wait >= 0):
                raise InvalidArgumentError(f"max_wait must be a number of seconds from 0, not {max_wait!r}")
            deadline = self._monotonic() + max_wait
        while True:
            waiter = self._join(priority, max_wait, deadline, number)
            try:
                permit = await waiter
            except BaseException:
                self._leave(waiter, priority)
                raise
            self._queue.waiting -= 1
            permit._priority = priority
            if number is not None:
                permit._number = number
            if self._passes(self._monotonic()):
                return permit
            number = permit._number
            permit.refund()  # the gate closed after the grant

    def _join(
        self, priority: Priority, max_wait: float | None, deadline: float | None, number: int | None
    ) -> "asyncio.Future[Permit]":
        queue = self._queue
        if priority not in PRIORITIES:
            raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
        loop = self._loop
        assert loop is not None  # bound before
        waiter: asyncio.Future[Permit] = loop.create_future()
        if deadline is None and number is None and queue.lanes.size:
            # Whoever is first in line has seen to it that somebody wakes.
            queue.waiting += 1
            queue.lanes.push(waiter, priority)
            self._demand_grew()
            return waiter
        now = self._monotonic()
        if deadline is not None and max_wait is not None:
            ahead = queue.lanes.ahead(priority) if number is None else 0
            needed = self._view(now).needed(self._rule, now, ahead)
            if now + needed > deadline:
                raise RateLimitWaitError(needed, max_wait)
            queue.allow_until(waiter, deadline, max_wait)
        queue.waiting += 1
        queue.lanes.push(waiter, priority, number=number)
        if queue.waiting == 1:
            self._pump(now)
        else:
            # Those who were granted before have not gone on yet: this one must not overtake them.
            loop.call_soon(self._on_wake)
        return waiter

    async def _requeue(self, permit: Permit, max_wait: float | None) -> Permit:
        if get_ident() != self._thread or not self._loop.is_running():  # type: ignore[union-attr] # bound with the thread
            self._bind()
        return await self._wait(permit._priority, max_wait, permit._number)

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
            self._lease_timer = None
            self._loop = loop
            try:
                self._open()
            except BaseException:
                self._loop = None
                raise
            # Requests in flight on the closed loop were cut off, and may still arrive.
            for grant in list(self._held):
                self._lose_grant(grant)
        self._thread = get_ident()

    def _leave(self, waiter: "asyncio.Future[Permit]", priority: Priority) -> None:
        """Leave nothing behind of a waiter that was cancelled or refused, even after it had been granted."""
        loop = self._loop
        if loop is None or not waits_on(waiter, loop):
            return
        permit = self._queue.leave(waiter, priority)
        if loop.is_running():  # else the permit is dropped, and counts as arrived
            if permit is not None:
                permit.refund()
            self._pump(self._monotonic())

    def _refuse_all(self, error: ComfyControlError) -> None:
        """Give every waiter an error of its own, as nothing can be granted."""
        for waiter in list(self._queue.lanes):
            if not waiter.done():
                own = copy.copy(error)
                own.__cause__ = error.__cause__
                waiter.set_exception(own)

    def _left(self, deadline: float) -> float:
        """Estimate how much longer than `deadline` whoever is refused now would have had to wait."""
        now = self._monotonic()
        return max(0.0, now + self._view(now).needed(self._rule, now, 0) - deadline)

    def _on_wake(self) -> None:
        now = self._monotonic()
        self._pump(now)
        self._queue.refuse(now, self._left)

    # Permits and leases

    def _permit_for(self, grant: Grant) -> Permit:
        permit = Permit(grant, self._loop)  # type: ignore[arg-type] # bound before
        permit.free_at = HELD
        self._granted = permit._number = self._granted + 1
        self._held.add(grant)
        if self._lease_timer is None:
            self._lease_timer = self._clock.call_later(LEASE_CHECK, self._extend_leases)
        return permit

    def _hand_out(self, grants: Sequence[Grant], now: float) -> None:
        """Give grants to those who are first in line, and give back what nobody wants any more."""
        for grant in grants:
            waiter = self._queue.lanes.pop()
            if waiter is None:
                self._give_back(grant, now)
            else:
                waiter.set_result(self._permit_for(grant))

    def _extend_leases(self) -> None:
        self._lease_timer = None
        if self._loop is not _get_running_loop():
            return
        now = self._monotonic()
        for grant in self._held:
            if not grant.capped and grant.lease < now + LEASE:
                self._note_lease(grant, now + LEASE, now)
        if self._held:
            self._lease_timer = self._clock.call_later(LEASE_CHECK, self._extend_leases)

    def _note_lease(self, grant: Grant, lease: float, now: float) -> None:
        self._note(grant, lease + self._span, now)
        grant.lease = lease

    def _arrive_grant(self, grant: Grant) -> None:
        if grant in self._held:
            self._held.discard(grant)
            now = self._monotonic()
            self._note(grant, now + self._span, now)

    def _lose_grant(self, grant: Grant) -> None:
        if grant in self._held:
            self._held.discard(grant)
            now = self._monotonic()
            self._note(grant, now + LOST_TAIL + self._span, now)

    def _refund_grant(self, grant: Grant) -> None:
        if grant in self._held:
            self._held.discard(grant)
            now = self._monotonic()
            self._give_back(grant, now)
            if self._queue.waiting:
                self._pump(now)

    def _cap_grant(self, grant: Grant) -> None:
        if grant in self._held and not grant.capped:
            now = self._monotonic()
            if self._notes_at_once or grant.lease < now + HOLD_CAP:
                self._note_lease(grant, now + HOLD_CAP, now)
            grant.capped = True

    def _drop_grant(self, grant: Grant, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            self._arrive_grant(grant)

    def _after_fork(self) -> None:
        """Start anew in a forked child: the slots go on being the parent's, and the permits are."""
        self._loop = None
        self._thread = 0
        self._queue.clear()
        self._held.clear()
        self._lease_timer = None
        self._let_go()
