"""Deadline: ends a block of a task when its time is up, and can be moved while the block runs."""

import asyncio
from types import TracebackType
from typing import Self

from comfycontrol_async._clock import Clock, Timer


class Deadline:
    """What `asyncio.timeout` is, on a `Clock`: when the time is up the block is left quietly, with `expired` set."""

    __slots__ = ("_before", "_clock", "_task", "_timer", "expired")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timer: Timer | None = None
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self.expired = False

    def expire_in(self, seconds: float) -> None:
        """Let the time be up so many seconds from now."""
        self.stop()
        self._timer = self._clock.call_later(max(0.0, seconds), self._expire)

    def stop(self) -> None:
        """Let the block take as long as it takes from here on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._before = self._task.cancelling() if self._task is not None else 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.stop()
        task, self._task = self._task, None
        if not self.expired or task is None:
            return False
        # A cancellation from outside that came besides our own goes on.
        return task.uncancel() <= self._before and isinstance(error, asyncio.CancelledError)
