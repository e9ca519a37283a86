"""Scheduler: everything of a limiter but where its slots are kept: lanes, the gate after a 429, one timer, permits.

How a slot travels, from left to right; every arrow is a call:

    task              scheduler                        store                      request
    acquire() ------> _join: waiter in its lane
                      _grant_ready ------------------> take(wanted) -> slot
              <------ Permit (held)                    charged to the lease's end
    write headers --> sent(): a flight, 3 s                                       on its way
                      Ledger.look: no answer after 3 s, but it has arrived:
                             Permit (lapsed) --------> release_at(now + span)
    headers ... ----> arrived(): Permit (settled) ---> release_at(now + span)     answered
                      _grant_ready, when that moment comes, takes it for the next waiter

    other ends: refund(): free now; lost(): release_at(now + 1 s + span); dropped: as arrived; 429: cool_down(), the
                gate; the process dies: the lease ends by itself, and a span later the slot is free

In numbers, limit 1, period 10, span 10.002, kept in a file: A acquires at 0.0, its slot is charged until 3.25 + 10.002.
Written at 0.01, answered at 0.2: free at 10.202. B, which came at 1.0, sleeps on the one timer until 10.204 (2 ms of
slack), takes the slot and goes. Had A's process been killed at 0.1, B had gone at 13.254.

Window and gate are one decision, `_grant_ready`: a permit that was taken before waiting at the gate would be stale when
it opens. There is no background task, and no task or timer per waiter.
"""

import asyncio
import copy
import logging
import math
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any

from comfycontrol_async._clock import Clock
from comfycontrol_async._settings import check_seconds
from comfycontrol_async.errors import ClientLoopError, ComfyControlError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits._fork import watch_forks
from comfycontrol_async.limits._lanes import PRIORITIES, STAGES, Priority, Stage
from comfycontrol_async.limits._permit import Ledger, Permit
from comfycontrol_async.limits._protocol import RateLimitSnapshot
from comfycontrol_async.limits._rule import LONGEST_COOLDOWN, LOST_TAIL, Rule
from comfycontrol_async.limits._store import Slot, SlotStore, Taken
from comfycontrol_async.limits._waiters import WaiterQueue

log = logging.getLogger("comfycontrol_async.limits")

_NORMAL, _OTHER = Priority.NORMAL, Stage.OTHER
_OPEN, _ENDLESS = -math.inf, math.inf
Patience = tuple[float, float]  # until when a task waits, and how many seconds it allowed for that
# Seconds of a cooldown from which on it is logged that requests wait for its end.
_LONG_GATE = 30.0


class Scheduler:
    """The base of all limiters; serves one event loop at a time.

    `free` are slots, by the moments at which they are free, that may be taken without asking the store, which keeps
    them in order. `in_flight` are the slots of held and sent permits and the ends of their leases.
    """

    _permit_type = Permit

    def __init__(
        self,
        rule: Rule,
        clock: Clock,
        store: SlotStore,
        free: "deque[float] | None" = None,
        in_flight: dict[Slot, float] | None = None,
        numbers: "count[int] | None" = None,
    ) -> None:
        self._rule = rule
        self._monotonic = clock.monotonic
        self._store = store
        self._free: deque[float] = deque() if free is None else free
        # Permits are numbered in the order of their grants.
        self._numbers = count(1) if numbers is None else numbers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue = WaiterQueue(clock, self._on_timer)
        self._ledger = Ledger(
            store,
            self._queue,
            {} if in_flight is None else in_flight,
            rule.span,
            clock.monotonic,
            self._on_freed,
            self._arm,
            self._requeue,
        )
        self._in_flight = self._ledger.in_flight
        # When the cooldown ends, as far as this process knows, and whether it was logged that requests wait for that.
        self._gate = _OPEN
        self._gate_told = False
        # When the next grant is possible, and how many slots were wanted at the last look.
        self._grant_at = math.inf
        self._wanted = 0
        watch_forks(self)

    async def acquire(
        self, priority: Priority = _NORMAL, *, max_wait: float | None = None, stage: Stage = _OTHER
    ) -> Permit:
        """Wait for a slot, in the lane of `priority`, in the order of `stage` and then of coming.

        Raises:
            RateLimitWaitError: it would take longer than `max_wait` seconds; at once when that is certain.
            ConfigurationError: the slots are kept in a place that cannot be used.
            InvalidArgumentError: an unknown priority or stage, or a `max_wait` that is negative or no number.
            ClientLoopError: the limiter belongs to another event loop that is still alive.
        """
        # A local variable costs 8 bytes per waiter. This one is slot, waiter, permit in turn; `max_wait`, the deadline.
        grant: Any
        if _get_running_loop() is not self._loop:
            self._bind()
        if max_wait is None and not self._queue.waiting:
            if priority is _NORMAL and stage is _OTHER and self._free and self._free[0] <= self._monotonic():
                self._free.popleft()
                grant = next(self._numbers)
                self._in_flight[grant] = _ENDLESS
                return self._permit_type(self._ledger, grant, grant)
            if (grant := self._take_now(priority, stage)) is not None:
                grant._rank = (priority, stage)
                return grant
        if max_wait is not None:
            max_wait = self._patience(max_wait)  # type: ignore[assignment] # see above
        grant = self._join(priority, stage, max_wait)  # type: ignore[arg-type] # as above
        try:
            grant = await grant
        except BaseException:
            self._leave(grant, priority, stage)
            raise
        self._queue.waiting -= 1
        grant._rank = (priority, stage)
        if self._gate <= self._monotonic():
            return grant  # type: ignore[no-any-return] # a permit
        grant.refund()  # the gate closed after the grant
        return await self._wait_again(grant, max_wait)  # type: ignore[arg-type] # as above

    def cool_down(self, seconds: float = 0.0) -> None:
        """Grant nothing for `seconds` from now in any process, after a 429: at least a period, at most 600 s.

        A cooldown is only ever extended. `seconds` is what the server asked for, 0 if nothing.

        Raises:
            InvalidArgumentError: `seconds` is negative or not finite.
        """
        seconds = check_seconds("a cooldown", seconds, InvalidArgumentError, finite=True)
        if seconds > LONGEST_COOLDOWN:
            log.warning("the server asks for a pause of %.0f s: taken as %.0f s", seconds, LONGEST_COOLDOWN)
        now = self._monotonic()
        seconds = max(min(seconds, LONGEST_COOLDOWN), self._rule.period)
        if self._gate <= now:
            log.warning("the server refused a request: nothing is sent for %.1f s", seconds)
            self._gate_told = False
        self._gate = max(self._gate, now + seconds)
        if self._store.refused(self._gate, now):
            log.warning("our own count cannot explain that: requests are spread from now on")
        if self._queue.waiting:
            self._tell_of_gate(now)
            self._refuse_impatient(self._gate, now)
            self._arm(now)

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment: slots and cooldown of all processes, waiters of this one."""
        now = self._monotonic()
        state = self._store.state(now)
        used = state.used(now)
        return RateLimitSnapshot(
            limit=state.limit,
            period=self._rule.period,
            used=used,
            available=state.limit - used,
            waiting={priority: self._queue.lanes.lanes[priority].size for priority in Priority},
            cooldown=max(0.0, state.gate - now, self._gate - now),
            pacing="smooth" if state.spread else "burst",
            next_free_in=max(self._gate - now, state.wait(self._rule, now, self._queue.lanes.ahead(Priority.NORMAL))),
        )

    async def aclose(self) -> None:
        """Pass on what became of the last requests, and let go of what is the limiter's own."""
        await self._store.aclose()

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether it may be used from `loop`: it is bound to that one, or to none that is alive."""
        return self._loop is None or self._loop is loop or self._loop.is_closed()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._rule.limit} per {self._rule.period:g} s, {self._queue.waiting} waiting>"

    # Waiting

    def _patience(self, max_wait: float) -> Patience:
        max_wait = check_seconds("max_wait", max_wait, InvalidArgumentError)
        return self._monotonic() + max_wait, max_wait

    def _join(
        self, priority: Priority, stage: Stage, patience: Patience | None, number: int | None = None
    ) -> "asyncio.Future[Permit]":
        """Queue a waiter: a newcomer, or one who comes back with the number of its grant."""
        if priority not in PRIORITIES:
            raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
        if stage not in STAGES:
            raise InvalidArgumentError(f"stage must be a Stage, not {stage!r}")
        queue, loop = self._queue, self._loop
        assert loop is not None  # bound before
        waiter: asyncio.Future[Permit] = loop.create_future()
        if patience is None and number is None and 0 < queue.lanes.size < 2 * self._wanted:
            # One before it has set the timer, and the store knows of at least half as many.
            queue.waiting += 1
            queue.lanes.push(waiter, priority, stage)
            return waiter
        now = self._monotonic()
        if patience is not None:
            deadline, allowed = patience
            at = now + self._wait_of(0 if number is not None else queue.lanes.ahead(priority, stage), now)
            if at > deadline:
                raise RateLimitWaitError(allowed + at - deadline, allowed)
            queue.allow_until(waiter, deadline, allowed)
        queue.waiting += 1
        queue.lanes.push(waiter, priority, stage, number)
        if queue.waiting == 1:
            self._grant_ready(now)
        else:
            # Keep the order: granted waiters have not resumed yet, so grant in a later iteration of the loop.
            self._wanted = queue.lanes.size
            loop.call_soon(self._on_news)
        if now < self._gate:
            self._tell_of_gate(now)
        return waiter

    async def _requeue(self, permit: Permit, max_wait: float | None) -> Permit:
        """Wait at the head of the permit's line; its order among those who come back is that of the first grants."""
        if _get_running_loop() is not self._loop:
            self._bind()
        return await self._wait_again(permit, None if max_wait is None else self._patience(max_wait))

    async def _wait_again(self, permit: Permit, patience: Patience | None) -> Permit:
        (priority, stage), number = permit._rank, permit._number
        while True:
            waiter = self._join(priority, stage, patience, number)
            try:
                permit = await waiter
            except BaseException:
                self._leave(waiter, priority, stage)
                raise
            self._queue.waiting -= 1
            permit._rank, permit._number = (priority, stage), number
            if self._gate <= self._monotonic():
                return permit
            permit.refund()  # the gate closed after the grant

    def _leave(self, waiter: "asyncio.Future[Permit]", priority: Priority, stage: Stage) -> None:
        """Leave nothing behind of a waiter that was cancelled or refused, even after it had been granted."""
        loop = self._loop
        if loop is None or waiter.get_loop() is not loop or loop.is_closed():
            return  # of a loop that is gone: its queue was dropped
        permit = self._queue.leave(waiter, priority, stage)
        if loop.is_running():  # else the permit's finalizer settles it as arrived
            if permit is not None:
                permit.refund()
            self._grant_ready(self._monotonic())

    def _wait_of(self, ahead: int, now: float) -> float:
        """Return the shortest wait with `ahead` others in front."""
        return max(self._gate - now, self._store.state(now).wait(self._rule, now, ahead))

    def _refuse_impatient(self, until: float, now: float) -> None:
        """Refuse those who may not wait until then."""
        if self._queue.next_deadline <= until:
            ready_at = now + self._wait_of(0, now)
            self._queue.refuse(until, lambda deadline: ready_at - deadline)

    def _refuse_all(self, error: ComfyControlError) -> None:
        """Give every waiter an error of its own, as nothing can be granted."""
        for waiter in list(self._queue.lanes):
            if not waiter.done():
                own = copy.copy(error)
                own.__cause__ = error.__cause__
                waiter.set_exception(own)

    def _tell_of_gate(self, now: float) -> None:
        """Log once for each long cooldown that requests wait for its end."""
        if not self._gate_told and self._gate - now > _LONG_GATE:
            self._gate_told = True
            log.warning("requests wait for %.0f s, as the server asked for", self._gate - now)

    # Granting

    def _take_now(self, priority: Priority, stage: Stage) -> Permit | None:
        """Take a slot without waiting, for no task waits; None if none is free."""
        now = self._monotonic()
        self._open_gate(now)
        if now < self._gate or priority not in PRIORITIES or stage not in STAGES:
            return None
        taken = self._store.take(1, now)
        if not taken.slots:
            return None
        (slot,) = taken.slots
        self._ledger.took(slot, taken.lease, now)
        if self._ledger.next_look < self._queue.timer_at:
            self._arm(now)
        return self._permit_type(self._ledger, slot, next(self._numbers))

    def _grant_ready(self, now: float) -> None:
        """Grant what can be granted now, first in line first, and set the timer for the rest."""
        self._open_gate(now)
        lanes = self._queue.lanes
        if lanes.size:
            try:
                taken = self._store.take(lanes.size, now)
            except ComfyControlError as error:
                self._refuse_all(error)
                taken = Taken()
            self._wanted, self._grant_at = lanes.size, taken.wake
            self._hand_out(taken.slots, taken.lease, now)
            if taken.gate > max(self._gate, now):
                self._gate, self._gate_told = taken.gate, False
                self._tell_of_gate(now)
                self._refuse_impatient(taken.gate, now)
        elif self._wanted:
            self._wanted, self._grant_at = 0, math.inf
            self._store.forget()
        self._arm(now)

    def _open_gate(self, now: float) -> None:
        if _OPEN < self._gate <= now:
            self._gate = _OPEN
            log.info("the cooldown is over: requests are sent again")

    def _hand_out(self, slots: Iterable[Slot], lease: float, now: float) -> None:
        """Give slots to those who are first in line, and give back what is not wanted any more."""
        for slot in slots:
            waiter = self._queue.lanes.pop()
            if waiter is None:
                self._store.refund(slot, now)
                continue
            self._ledger.took(slot, lease, now)
            waiter.set_result(self._permit_type(self._ledger, slot, next(self._numbers)))

    def _arm(self, now: float) -> None:
        """Set the one timer for the next moment at which something can be done."""
        at = self._ledger.next_look
        if self._queue.lanes.size:
            at = min(at, self._grant_at, self._queue.next_deadline)
        self._queue.wake_at(at, now)

    def _on_timer(self) -> None:
        now = self._monotonic()
        if self._loop is not _get_running_loop():
            return
        if self._ledger.next_look <= now:
            self._ledger.look(now)
        self._on_news()

    def _on_news(self) -> None:
        """Grant and refuse, as time has passed or the store knows more."""
        now = self._monotonic()
        self._grant_ready(now)
        self._refuse_impatient(now, now)

    def _on_freed(self, free_at: float, now: float) -> None:
        """Grant a slot of ours that comes free then, to whom it may be."""
        if free_at <= now:
            self._grant_ready(now)
        elif free_at < self._grant_at:
            self._grant_at = free_at
            self._arm(now)

    # Loops and processes

    def _bind(self) -> None:
        """Bind to the running loop, in the place of one that is closed."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if not self.serves(loop):
                raise ClientLoopError(
                    "this limiter belongs to another event loop that is still alive; "
                    "use one limiter for each loop, or close the first loop"
                )
            self._start_over(None)
            self._store.attach(self._on_news)
            self._start_over(loop)
            # Requests in flight on the closed loop were cut off, and may still arrive.
            now = self._monotonic()
            for slot in list(self._in_flight):
                self._ledger.release(slot, now + LOST_TAIL + self._rule.span, now)

    def _start_over(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._queue.clear()
        self._ledger.start_over(loop)
        self._grant_at = math.inf
        self._wanted = 0

    def _after_fork(self) -> None:
        """Start again in a forked child: the permits are the parent's."""
        self._start_over(None)
        self._in_flight.clear()
        self._store.after_fork()
