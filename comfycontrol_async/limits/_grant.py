"""Grant: a slot that several processes share while this one has it, and how its permit settles it."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from comfycontrol_async.limits._window import FREE

if TYPE_CHECKING:
    from comfycontrol_async.limits._old_permit import Permit


class GrantOwner(Protocol):
    """What a grant needs of the limiter that took it; all but `_drop_grant` run on the limiter's loop."""

    def _arrive_grant(self, grant: "Grant") -> None:
        """Free the slot a period from now."""

    def _lose_grant(self, grant: "Grant") -> None:
        """Free the slot a period after the last moment at which the request can still arrive."""

    def _refund_grant(self, grant: "Grant") -> None:
        """Free the slot now."""

    def _cap_grant(self, grant: "Grant") -> None:
        """Limit from now for how long the slot is held."""

    def _drop_grant(self, grant: "Grant", loop: asyncio.AbstractEventLoop) -> None:
        """Charge the slot of a permit that no task holds any more."""

    async def _requeue(self, permit: "Permit", max_wait: float | None) -> "Permit":
        """Wait for another permit at the head of this one's lane."""
        ...


class Grant:
    """The owner of one permit (`PermitOwner`).

    `key` names the slot to its store. Until `lease` (seconds of the limiter's clock) no other can have it;
    `free_at` is what was last noted of it, and `capped` says that it may not be held for longer than that.
    """

    __slots__ = ("capped", "free_at", "key", "lease", "limiter")

    def __init__(self, limiter: GrantOwner, key: int, lease: float, free_at: float) -> None:
        self.limiter = limiter
        self.key = key
        self.lease = lease
        self.free_at = free_at
        self.capped = False

    def _stamp(self, permit: "Permit") -> None:
        permit.free_at = FREE
        self.limiter._arrive_grant(self)

    def _lose(self, permit: "Permit") -> None:
        permit.free_at = FREE
        self.limiter._lose_grant(self)

    def _refund(self, permit: "Permit") -> None:
        permit.free_at = FREE
        self.limiter._refund_grant(self)

    def _cap(self, permit: "Permit") -> None:
        self.limiter._cap_grant(self)

    def _drop(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # a closed loop: charged when the next one takes over
            loop.call_soon_threadsafe(self.limiter._drop_grant, self, loop)

    async def _requeue(self, permit: "Permit", max_wait: float | None) -> "Permit":
        return await self.limiter._requeue(permit, max_wait)
