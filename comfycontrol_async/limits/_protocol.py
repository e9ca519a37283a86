"""Limiter: what the client asks of a rate limiter."""

import inspect
from collections.abc import Awaitable, Hashable
from functools import lru_cache
from typing import Protocol

import attrs

from comfycontrol_async.limits._lanes import Priority, Stage
from comfycontrol_async.limits._permit import Permit


@attrs.frozen(kw_only=True)
class RateLimitSnapshot:
    """The state of a limiter at one moment; durations in seconds.

    `used` + `available` = `limit`; `waiting` counts the waiters of each lane; `cooldown` is the time until the gate
    opens, 0.0 when it is open; `pacing` is the way in force now, "burst" or "smooth"; `next_free_in` is the estimated
    wait of a newcomer in the NORMAL lane at the least, 0.0 when it would not wait.
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

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: Stage = Stage.OTHER
    ) -> Permit:
        """Wait for a slot; refuse with `RateLimitWaitError` when that would take longer than `max_wait` seconds.

        One that takes no `stage` is called without it.
        """
        ...

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for a while, after a 429 that asked for `seconds` (0: for nothing); only ever extended."""

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of this moment."""
        ...


def acquire_in_stage(limiter: Limiter, priority: Priority, max_wait: float | None, stage: Stage) -> Awaitable[Permit]:
    """Acquire with the stage, where the limiter's `acquire` takes one."""
    if _takes_stage(type(limiter)):
        return limiter.acquire(priority, max_wait=max_wait, stage=stage)
    return limiter.acquire(priority, max_wait=max_wait)


@lru_cache(maxsize=32)
def _takes_stage(kind: Hashable) -> bool:
    parameters = inspect.signature(kind.acquire).parameters  # type: ignore[attr-defined] # the class of a Limiter
    return "stage" in parameters or any(it.kind is it.VAR_KEYWORD for it in parameters.values())
