"""Permit: the right to send one request, and what is said of it afterwards."""

import asyncio
from asyncio import _get_running_loop
from typing import Protocol

from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError
from comfycontrol_async.limits._lanes import Priority
from comfycontrol_async.limits._window import LOST_TAIL


class PermitOwner(Protocol):
    """What a permit needs of the limiter that gave it."""

    _granted: int

    def _stamp(self, permit: "Permit", tail: float) -> None:
        """Free the permit's slot a period and `tail` from now."""

    def _refund(self, permit: "Permit") -> None:
        """Free the permit's slot now."""

    def _cap(self, permit: "Permit") -> None:
        """Limit from now for how long the permit holds its slot."""

    async def _reacquire(self, permit: "Permit", max_wait: float | None) -> "Permit":
        """Wait for another permit at the head of this one's lane."""
        ...


# What became of a permit: its slot is in flight, was given back by the hold cap, or was settled by its holder.
_HELD, _CAPPED, _SETTLED = 0, 1, 2


class Permit:
    """The right to send one request.

    Use it as a context manager, or call `arrived`, `lost` or `refund` once; leaving or dropping it without any of
    them counts as arrived now. Settling it twice raises `InvalidArgumentError`, and on another event loop than its
    own `ClientLoopError`; no slot is lost by either.
    """

    __slots__ = ("__weakref__", "_limiter", "_loop", "_number", "_priority", "_state")

    def __init__(self, limiter: "PermitOwner", loop: asyncio.AbstractEventLoop, priority: Priority) -> None:
        self._limiter = limiter
        self._loop = loop
        self._priority = priority
        limiter._granted = self._number = limiter._granted + 1
        self._state = _HELD

    def arrived(self) -> None:
        """Say that the response headers are here: the slot is free a period from now."""
        if self._state or self._loop is not _get_running_loop():
            return self._settle_oddly(0.0)
        self._state = _SETTLED
        return self._limiter._stamp(self, 0.0)

    def lost(self) -> None:
        """Say that the request was sent and got no answer: it may still arrive, so a tail of 1 s is added."""
        if self._state or self._loop is not _get_running_loop():
            return self._settle_oddly(LOST_TAIL)
        self._state = _SETTLED
        return self._limiter._stamp(self, LOST_TAIL)

    def refund(self) -> None:
        """Say that the request certainly never left: the slot is free at once."""
        if self._state or self._loop is not _get_running_loop():
            return self._settle_oddly(0.0)
        self._state = _SETTLED
        return self._limiter._refund(self)

    def sent(self) -> None:
        """Say that the request headers were written: from now it holds the slot for 3 s at the most."""
        if self._state == _HELD and self._loop is _get_running_loop():
            self._limiter._cap(self)

    async def requeue(self, *, max_wait: float | None = None) -> "Permit":
        """Wait at the head of the lane for another permit, after the server refused the request.

        The order among those who come back is that of their first grants; this permit's slot stays charged.

        Raises:
            RateLimitWaitError: that would take longer than `max_wait` seconds.
        """
        if self._state != _SETTLED:
            self.arrived()
        return await self._limiter._reacquire(self, max_wait)

    def __enter__(self) -> "Permit":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._state != _SETTLED:
            self.arrived()

    def __del__(self) -> None:
        if self._state == _HELD:
            self._state = _SETTLED
            self._limiter._stamp(self, 0.0)

    def __repr__(self) -> str:
        return f"<Permit {('held', 'capped', 'settled')[self._state]}>"

    def cap(self) -> None:
        """Take note that the hold cap gave the slot back."""
        self._state = _CAPPED

    def _settle_oddly(self, tail: float) -> None:
        """Settle a permit whose slot the hold cap took back, or say what is wrong with settling it here and now."""
        if self._state == _SETTLED:
            raise InvalidArgumentError("this permit was settled already; acquire one permit for each request")
        held, self._state = self._state == _HELD, _SETTLED
        if held:
            self._limiter._stamp(self, tail)
        if self._loop is not _get_running_loop():
            raise ClientLoopError("this permit belongs to another event loop; its slot was charged")
