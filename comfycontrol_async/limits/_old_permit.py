"""Permit: the right to send one request, to be settled by saying what became of it."""

import asyncio
from typing import Protocol

from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError
from comfycontrol_async.limits._lanes import Priority
from comfycontrol_async.limits._window import FREE, HELD, LAPSED, Slot


class PermitOwner(Protocol):
    """What a permit needs of the limiter that gave it; all but `_drop` run on the permit's own loop."""

    def _stamp(self, permit: "Permit") -> None:
        """Free the slot a period from now."""

    def _lose(self, permit: "Permit") -> None:
        """Free the slot a period after the last moment at which the request can still arrive."""

    def _refund(self, permit: "Permit") -> None:
        """Free the slot now."""

    def _cap(self, permit: "Permit") -> None:
        """Limit from now for how long the permit holds its slot."""

    def _drop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Charge the slot of a permit of `loop` that nobody holds any more; called from anywhere."""

    async def _requeue(self, permit: "Permit", max_wait: float | None) -> "Permit":
        """Wait for another permit at the head of this one's lane."""
        ...


class Permit(Slot):
    """The right to send one request.

    Use it as a context manager, or call `arrived`, `lost` or `refund` once; leaving or dropping it without any of
    them counts as arrived now. Settling it twice raises `InvalidArgumentError`, and after its event loop has ended
    `ClientLoopError`; no slot is lost by either.
    """

    __slots__ = ("_limiter", "_loop", "_number", "_priority")

    def __init__(self, limiter: PermitOwner, loop: asyncio.AbstractEventLoop) -> None:
        self.free_at = FREE
        self._limiter = limiter
        self._loop = loop
        self._priority = Priority.NORMAL
        # Its place in the order of all grants.
        self._number = 0

    def arrived(self) -> None:
        """Say that the response headers are here: the slot is free a period from now."""
        if self.free_at != HELD or not self._loop.is_running():
            return self._settle_oddly()
        return self._limiter._stamp(self)

    def lost(self) -> None:
        """Say that the request was sent and got no answer: it may still arrive, so a tail of 1 s is added."""
        if self.free_at != HELD or not self._loop.is_running():
            return self._settle_oddly()
        return self._limiter._lose(self)

    def refund(self) -> None:
        """Say that the request certainly never left: the slot is free at once."""
        if self.free_at != HELD or not self._loop.is_running():
            return self._settle_oddly()
        return self._limiter._refund(self)

    def sent(self, arrived: object = None) -> None:
        """Say that the request headers were written: from now it holds the slot for 3 s at the most."""
        if self.free_at == HELD and self._loop.is_running():
            self._limiter._cap(self)

    async def requeue(self, *, max_wait: float | None = None) -> "Permit":
        """Wait at the head of the lane for another permit, after the server refused the request.

        The order among those who come back is that of their first grants; this permit's slot stays charged.

        Raises:
            RateLimitWaitError: that would take longer than `max_wait` seconds.
        """
        if self.free_at in (HELD, LAPSED):
            self.arrived()
        return await self._limiter._requeue(self, max_wait)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.free_at in (HELD, LAPSED):
            self.arrived()

    def __del__(self) -> None:
        # May run in any thread, and in the middle of anything the limiter does.
        if self.free_at == HELD:
            self._limiter._drop(self._loop)

    def __repr__(self) -> str:
        return f"<Permit {({HELD: 'held', LAPSED: 'lapsed'}).get(self.free_at, 'settled')}>"

    def _settle_oddly(self) -> None:
        """Settle a permit whose slot the hold cap took back, or say what is wrong with settling it here and now."""
        held, lapsed = self.free_at == HELD, self.free_at == LAPSED
        if not (held or lapsed):
            raise InvalidArgumentError("this permit was settled already; acquire one permit for each request")
        self.free_at = FREE
        if held:
            self._limiter._drop(self._loop)
        if not self._loop.is_running():
            raise ClientLoopError("the event loop of this permit is not running any more; its slot is charged")
