"""A clock that moves only when a test says so."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

_ROUNDS = 100  # turns of the event loop after each timer at most: enough for chains of tasks that wake each other
_EPOCH = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)


class _FakeTimer:
    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due: float = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Call it off; harmless when it has run."""
        self.callback = None


class FakeClock:
    """A `Clock` whose time stands still until `advance` is awaited.

    Args:
        start: What `monotonic` says at first.
        early: Seconds by which timers fire too early, as those of uvloop may.
    """

    def __init__(self, start: float = 1000.0, *, early: float = 0.0) -> None:
        if early < 0:
            raise ValueError("early must not be negative")
        self._start = start
        self._now = start
        self._early = early
        self._queue: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()
        self._fired = 0

    @property
    def timers(self) -> int:
        """How many timers are pending."""
        return sum(timer.callback is not None for _, _, timer in self._queue)

    @property
    def fired(self) -> int:
        """How many timers ever fired."""
        return self._fired

    def monotonic(self) -> float:
        """Return the fake seconds."""
        return self._now

    def utcnow(self) -> datetime:
        """Return the fake wall time: 2024-01-15 10:30 UTC at the start, moving with `monotonic`."""
        return _EPOCH + timedelta(seconds=self._now - self._start)

    def call_later(self, delay: float, callback: Callable[[], None]) -> _FakeTimer:
        """Run `callback` during the `advance` that reaches `delay` seconds from now."""
        due = self._now + max(0.0, delay - self._early)
        timer = _FakeTimer(due, callback)
        heapq.heappush(self._queue, (due, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task until time has moved on by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at every timer that falls due and letting the event loop settle after each."""
        if seconds < 0:
            raise ValueError("time does not go back")
        target = self._now + seconds
        await _settle()
        while self._queue and self._queue[0][0] <= target:
            due, _, timer = heapq.heappop(self._queue)
            callback = timer.callback
            if callback is None:
                continue
            self._now = max(self._now, due)
            timer.callback = None
            self._fired += 1
            callback()
            await _settle()
        self._now = target
        await _settle()


async def _settle() -> None:
    # asyncio's own loops show what is ready to run, which spares most of the rounds; uvloop does not.
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    for _ in range(_ROUNDS):
        if ready is not None and not ready:
            return
        await asyncio.sleep(0)
