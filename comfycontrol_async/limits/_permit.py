"""Permit: the right to send one request, settled by saying what became of it; Ledger: the permits of one limiter."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError
from comfycontrol_async.limits._flights import ARRIVED, CAPPED, HELD, SENT, SETTLED, Arrived, Flight, Flights
from comfycontrol_async.limits._lanes import Priority, Stage
from comfycontrol_async.limits._rule import LEASE, LEASE_CHECK, LOST_TAIL
from comfycontrol_async.limits._store import Slot, SlotStore


class Permit(Flight):
    """The right to send one request.

    Use it as a context manager, or call `arrived`, `lost` or `refund` once; leaving it, or dropping it before `sent`,
    without any of them counts as arrived now. Settling it twice raises `InvalidArgumentError`, and after its event
    loop has ended `ClientLoopError`; no slot is lost by either.
    """

    __slots__ = ("_ledger", "_loop", "_number", "_priority", "_slot", "_stage")

    # Made by limiters only; `number` is its place in the order of all grants.
    def __init__(
        self,
        ledger: "Ledger",
        loop: asyncio.AbstractEventLoop,
        slot: Slot,
        number: int,
        priority: Priority,
        stage: Stage,
    ) -> None:
        self._ledger = ledger
        self._loop = loop
        self._slot = slot
        self._number = number
        self._priority = priority
        self._stage = stage
        self._state = HELD

    def arrived(self) -> None:
        """Say that the response headers are here: the slot is free a period from now."""
        if self._state > SENT or not self._loop.is_running():
            return self._settle_late(0.0)
        return self._ledger.on_arrived(self)

    def lost(self) -> None:
        """Say that the request was sent and got no answer: it may still arrive, so a tail of 1 s is added."""
        if self._state > SENT or not self._loop.is_running():
            return self._settle_late(LOST_TAIL)
        return self._ledger.on_lost(self)

    def refund(self) -> None:
        """Say that the request certainly never left: the slot is free at once."""
        if self._state > SENT or not self._loop.is_running():
            return self._settle_late(None)
        return self._ledger.on_refund(self)

    def sent(self, arrived: Arrived | None = None) -> None:
        """Say that the request headers were written: from now on a slow answer holds the slot for 3 s only.

        Args:
            arrived: what the transport knows of the request. It is called when the 3 s are over and every 0.5 s after
                that, on the event loop, and returns at once: True when the request has certainly reached the server
                (all up to the end of its headers is acknowledged by the server's own TCP), False when it has not, None
                when that cannot be told (any more). Without it, or when it returns None, the slot is given up once a
                request that was written later has been answered; see `comfycontrol_async.limits`.

        May be called again with better evidence, as when an upload has moved on beyond the socket's buffers.
        """
        if self._state <= SENT and self._loop.is_running():
            self._ledger.on_sent(self, arrived)

    async def requeue(self, *, max_wait: float | None = None) -> "Permit":
        """Wait at the head of the line for another permit, after the server refused the request.

        The order among those who come back is that of their first grants; this permit's slot stays charged.

        Raises:
            RateLimitWaitError: that would take longer than `max_wait` seconds.
        """
        if self._state is not SETTLED:
            self.arrived()
        return await self._ledger.requeue(self, max_wait)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._state is not SETTLED:
            self.arrived()

    def __del__(self) -> None:
        # May run in any thread, and in the middle of anything the limiter does.
        if self._state is HELD:
            self._ledger.drop(self._slot, self._loop)

    def __repr__(self) -> str:
        lapsed = self._state in (CAPPED, ARRIVED)
        return f"<Permit {'lapsed' if lapsed else self._state.name.lower()}>"

    def _settle_late(self, tail: float | None) -> None:
        """Settle a permit whose slot was given up, or say what is wrong with settling it here and now."""
        state, self._state = self._state, SETTLED
        if state is SETTLED:
            raise InvalidArgumentError("this permit was settled already; acquire one permit for each request")
        running = self._loop.is_running()
        if state is CAPPED and running and tail is not None:
            self._ledger.move_stamp(self, tail)
        elif state <= SENT:
            self._ledger.drop(self._slot, self._loop)
        if not running:
            raise ClientLoopError("the event loop of this permit is not running any more; its slot is charged")


class Ledger:
    """The slots that permits of one process hold: settled in the store, and charged anew while they are in flight.

    `freed(free_at, now)` is called when a slot comes free then, `rearm(now)` when there is something to look after
    earlier than was known. `in_flight` are the slots of held and sent permits and the ends of their leases.
    """

    def __init__(
        self,
        store: SlotStore,
        in_flight: dict[Slot, float],
        span: float,
        monotonic: Callable[[], float],
        freed: Callable[[float, float], None],
        rearm: Callable[[float], None],
        requeue: Callable[[Permit, float | None], Awaitable[Permit]],
    ) -> None:
        self._store = store
        self.in_flight = in_flight
        self._span = span
        self._monotonic = monotonic
        self._freed = freed
        self._rearm = rearm
        self.requeue = requeue
        self.start_over(None)

    def start_over(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Serve permits of this loop."""
        self._loop = loop
        self._flights = Flights()
        self._renew_at = math.inf

    @property
    def next_look(self) -> float:
        """When to call `look` again."""
        if not self.in_flight:
            self._renew_at = math.inf
        return min(self._renew_at, self._flights.next_look)

    def took(self, slot: Slot, lease: float, now: float) -> None:
        """Look after a slot that a permit gets."""
        self.in_flight[slot] = lease
        if lease < self._renew_at == math.inf:
            self._renew_at = now + LEASE_CHECK

    def look(self, now: float) -> None:
        """Give up the slots of requests that are slow but have arrived, and renew the leases of the others."""
        if self._flights.next_look <= now:
            self._give_up(self._flights.look(now), now)
        if self._renew_at <= now:
            for slot, lease in self.in_flight.items():
                if lease < now + LEASE:
                    self._store.release_at(slot, now + LEASE + self._span, now, final=False)
                    self.in_flight[slot] = now + LEASE
            self._renew_at = now + LEASE_CHECK

    def on_sent(self, permit: Permit, arrived: Arrived | None) -> None:
        """Follow a request that was written."""
        if permit._loop is self._loop:
            now = self._monotonic()
            self._flights.written(permit, arrived, now)
            self._rearm(now)

    def on_arrived(self, permit: Permit) -> None:
        """Free the slot a period from now."""
        now = self._monotonic()
        if permit._state is SENT:
            self._give_up(self._flights.answered(permit), now)
        permit._state = SETTLED
        self.release(permit._slot, now + self._span, now)

    def on_lost(self, permit: Permit) -> None:
        """Free the slot a period after the last moment at which the request can still arrive."""
        now = self._monotonic()
        permit._state = SETTLED
        self.release(permit._slot, now + LOST_TAIL + self._span, now)

    def on_refund(self, permit: Permit) -> None:
        """Free the slot now."""
        now = self._monotonic()
        permit._state = SETTLED
        if self.in_flight.pop(permit._slot, None) is not None:
            self._store.refund(permit._slot, now)
            self._freed(now, now)

    def move_stamp(self, permit: Permit, tail: float) -> None:
        """Charge a slot that was given up for longer, if it was not taken again: the answer came late."""
        now = self._monotonic()
        self._store.release_at(permit._slot, now + tail + self._span, now, final=False)

    def drop(self, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        """Charge the slot of a permit that was dropped; called from anywhere."""
        with suppress(RuntimeError):  # a closed loop: charged when the next one takes over
            loop.call_soon_threadsafe(self._on_dropped, slot, loop)

    def release(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Free a slot in flight then."""
        if slot in self.in_flight:  # else of a loop that is gone: charged when the next one took over
            self._store.release_at(slot, free_at, now, final=final)
            del self.in_flight[slot]
            self._freed(free_at, now)

    def _on_dropped(self, slot: Slot, loop: asyncio.AbstractEventLoop) -> None:
        if loop is self._loop:
            now = self._monotonic()
            self.release(slot, now + self._span, now)

    def _give_up(self, flights: Iterable[Flight], now: float) -> None:
        for permit in flights:
            assert isinstance(permit, Permit)  # `on_sent` gives no others
            self.release(permit._slot, now + self._span, now, final=permit._state is ARRIVED)
