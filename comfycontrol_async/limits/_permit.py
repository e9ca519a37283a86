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
from comfycontrol_async.limits._waiters import WaiterQueue

Rank = tuple[Priority, Stage]
NORMAL_RANK: Rank = (Priority.NORMAL, Stage.OTHER)


class Permit(Flight):
    """The right to send one request.

    Use it as a context manager, or call `arrived`, `lost` or `refund` once; leaving it, or dropping it before `sent`,
    without any of them counts as arrived now. Settling it twice raises `InvalidArgumentError`, and after its event
    loop has ended `ClientLoopError`; no slot is lost by either.
    """

    # What most permits have stands in the class: a value that is not set costs nothing.
    _rank: Rank = NORMAL_RANK

    # Made by limiters only; `number` is its place in the order of all grants.
    def __init__(self, ledger: "Ledger", slot: Slot, number: int) -> None:
        self._ledger = ledger
        self._slot = slot
        self._number = number

    def arrived(self) -> None:
        """Say that the response headers are here: the slot is free a period from now."""
        self._ledger.on_arrived(self)

    def lost(self) -> None:
        """Say that the request was sent and got no answer: it may still arrive, so a tail of 1 s is added."""
        self._ledger.on_lost(self)

    def refund(self) -> None:
        """Say that the request certainly never left: the slot is free at once."""
        self._ledger.on_refund(self)

    def sent(self, arrived: Arrived | None = None) -> None:
        """Say that the request headers were written: from now on a slow answer holds the slot for 3 s only.

        Args:
            arrived: what the transport knows of the request. It is called when the 3 s are over and every 0.5 s after
                that, on the event loop, and returns at once: True when the request has certainly reached the server
                (all up to the end of its headers is acknowledged by the server's own TCP), False when it has not, None
                when that is not known (any more). Without it, or when it returns None, the slot is given up once a
                request that was written later has been answered; see `comfycontrol_async.limits`.

        May be called again with better evidence, as when an upload has moved on beyond the socket's buffers.
        """
        self._ledger.on_sent(self, arrived)

    async def requeue(self, *, max_wait: float | None = None) -> "Permit":
        """Wait at the head of the line for another permit, after the server refused the request.

        The order among those who come back is that of their first grants; this permit's slot stays charged.

        Raises:
            RateLimitWaitError: that would take longer than `max_wait` seconds.
        """
        if self._state != SETTLED:
            self.arrived()
        return await self._ledger.requeue(self, max_wait)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._state != SETTLED:
            self.arrived()

    def __del__(self) -> None:
        # May run in any thread, and in the middle of anything the limiter does.
        if self._state == HELD:
            self._ledger.drop(self._slot)

    def __repr__(self) -> str:
        return f"<Permit {('held', 'sent', 'lapsed', 'lapsed', 'settled')[self._state]}>"


class Ledger:
    """The slots that permits of one process hold: settled in the store, and charged again while they are in flight.

    `freed(free_at, now)` is called when there are waiters and a slot comes free then, `rearm(now)` when there is
    something to look after earlier than was known. `in_flight` are the slots of held and sent permits and the ends of
    their leases.
    """

    def __init__(
        self,
        store: SlotStore,
        queue: WaiterQueue,
        in_flight: dict[Slot, float],
        span: float,
        monotonic: Callable[[], float],
        freed: Callable[[float, float], None],
        rearm: Callable[[float], None],
        requeue: Callable[[Permit, float | None], Awaitable[Permit]],
    ) -> None:
        self.store = store
        self.queue = queue
        self.in_flight = in_flight
        self.span = span
        self.monotonic = monotonic
        self.freed = freed
        self._rearm = rearm
        self.requeue = requeue
        self.start_over(None)

    def start_over(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Serve permits of this loop."""
        self.loop = loop
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
                    self.store.release_at(slot, now + LEASE + self.span, now, final=False)
                    self.in_flight[slot] = now + LEASE
            self._renew_at = now + LEASE_CHECK

    def on_sent(self, permit: Permit, arrived: Arrived | None) -> None:
        """Follow a request that was written."""
        if self._holds(permit):
            now = self.monotonic()
            self._flights.written(permit, arrived, now)
            if self._flights.next_look < self.queue.timer_at:
                self._rearm(now)

    def on_arrived(self, permit: Permit) -> None:
        """Free the slot a period from now."""
        if not self._holds(permit):
            return self._settle_late(permit, 0.0)
        now = self.monotonic()
        if permit._state == SENT:
            self._give_up(self._flights.answered(permit), now)
        permit._state = SETTLED
        self.release(permit._slot, now + self.span, now)
        return None

    def on_lost(self, permit: Permit) -> None:
        """Free the slot a period after the last moment at which the request can still arrive."""
        if not self._holds(permit):
            return self._settle_late(permit, LOST_TAIL)
        now = self.monotonic()
        permit._state = SETTLED
        self.release(permit._slot, now + LOST_TAIL + self.span, now)
        return None

    def on_refund(self, permit: Permit) -> None:
        """Free the slot now."""
        if not self._holds(permit):
            return self._settle_late(permit, None)
        now = self.monotonic()
        permit._state = SETTLED
        del self.in_flight[permit._slot]
        self.store.refund(permit._slot, now)
        if self.queue.waiting:
            self.freed(now, now)
        return None

    def _holds(self, permit: Permit) -> bool:
        """Return whether a permit has its slot still, and can be settled now: its event loop is running."""
        return permit._state <= SENT and permit._slot in self.in_flight and self.loop.is_running()  # type: ignore[union-attr] # bound when it was taken

    def _settle_late(self, permit: Permit, tail: float | None) -> None:
        """Settle a permit whose slot was given up, or say what is wrong with settling it here and now."""
        state, permit._state = permit._state, SETTLED
        if state == SETTLED:
            raise InvalidArgumentError("this permit was settled already; acquire one permit for each request")
        if state <= SENT:
            self.drop(permit._slot)
            raise ClientLoopError("the event loop of this permit is not running any more; its slot is charged")
        if state == CAPPED and tail is not None:
            # The answer came late: charge the slot for longer, if it was not taken again.
            now = self.monotonic()
            self.store.release_at(permit._slot, now + tail + self.span, now, final=False)

    def drop(self, slot: Slot) -> None:
        """Charge the slot of a permit that was dropped; called from anywhere."""
        loop = self.loop
        if loop is not None:
            with suppress(RuntimeError):  # a closed loop: charged when the next one takes over
                loop.call_soon_threadsafe(self._on_dropped, slot)

    def release(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Free a slot in flight then."""
        if slot in self.in_flight:  # else of a loop that is gone: charged when the next one took over
            self.store.release_at(slot, free_at, now, final=final)
            del self.in_flight[slot]
            if self.queue.waiting:
                self.freed(free_at, now)

    def _on_dropped(self, slot: Slot) -> None:
        now = self.monotonic()
        self.release(slot, now + self.span, now)

    def _give_up(self, flights: Iterable[Flight], now: float) -> None:
        for permit in flights:
            assert isinstance(permit, Permit)  # `on_sent` gives no others
            self.release(permit._slot, now + self.span, now, final=permit._state == ARRIVED)
