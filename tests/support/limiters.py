"""What the tests of the limiters share."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.errors import ConnectionFailedError
from comfycontrol_async.limits import Limiter, Permit, Priority

T = TypeVar("T")


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that must not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise AssertionError("it suspended")


async def turns(count: int = 10) -> None:
    """Let the event loop run everything that is ready."""
    for _ in range(count):
        await asyncio.sleep(0)


def count_futures() -> int:
    """Return how many plain futures are alive: each waiter of a limiter is one."""
    gc.collect()
    return sum(type(thing) is asyncio.Future for thing in gc.get_objects())


class ProcessClock:
    """The clock of one process among several in a test: it can be stopped, and counts how often its timers fire."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stopped = False
        self._missed: list[Callable[[], None]] = []
        self.fired = 0

    def monotonic(self) -> float:
        """Return the seconds of all."""
        return self._clock.monotonic()

    def utcnow(self) -> datetime:
        """Return the wall time of all."""
        return self._clock.utcnow()

    async def sleep(self, seconds: float) -> None:
        """Sleep as all do."""
        await self._clock.sleep(seconds)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run the callback in `delay` seconds, unless the process is stopped then."""

        def fire() -> None:
            if self._stopped:
                self._missed.append(callback)
            else:
                self.fired += 1
                callback()

        return self._clock.call_later(delay, fire)

    def stop(self) -> None:
        """Stop or kill the process: no timer fires any more."""
        self._stopped = True

    def resume(self) -> None:
        """Let a stopped process go on: timers that were missed fire now."""
        self._stopped = False
        missed, self._missed = self._missed, []
        for callback in missed:
            callback()


class Crowd:
    """Tasks that acquire, note when and in which order they got a permit, and say at once that it arrived."""

    def __init__(self, limiter: Limiter, now: Callable[[], float], *, settle: bool = True) -> None:
        self.limiter = limiter
        self.now = now
        self.settle = settle
        self.order: list[Any] = []
        self.times: list[float] = []
        self.permits: list[Permit] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, name: Any, priority: Priority = Priority.NORMAL, max_wait: float | None = None) -> None:
        """Wait for one permit."""
        permit = await self.limiter.acquire(priority, max_wait=max_wait)
        self.order.append(name)
        self.times.append(self.now())
        if self.settle:
            permit.arrived()
        else:
            self.permits.append(permit)

    def send(
        self, name: Any, priority: Priority = Priority.NORMAL, max_wait: float | None = None
    ) -> "asyncio.Task[None]":
        """Start a task that waits for one permit."""
        task = asyncio.create_task(self.come(name, priority, max_wait))
        self.tasks.append(task)
        return task

    async def end(self) -> None:
        """Cancel those that still wait; what else went wrong is raised."""
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with suppress(asyncio.CancelledError):
                await task


class Process:
    """Tasks that want requests without end, as those of one process do; `sent` are the arrivals.

    Args:
        limiter: the limiter of this process.
        clock: what round trips are measured and waited for with.
        round_trip: seconds of a request; it arrives half-way.
        width: how many tasks.
    """

    def __init__(self, limiter: Limiter, clock: Clock, round_trip: Callable[[], float], width: int) -> None:
        self.limiter = limiter
        self.clock = clock
        self.round_trip = round_trip
        self.sent: list[float] = []
        self.errors: list[Exception] = []
        self.tasks = [asyncio.create_task(self._want()) for _ in range(width)]

    async def _want(self) -> None:
        while True:
            try:
                permit = await self.limiter.acquire()
            except ConnectionFailedError as error:
                self.errors.append(error)
                await self.clock.sleep(0.05)
                continue
            permit.sent()
            await self.clock.sleep(self.round_trip() / 2)
            self.sent.append(self.clock.monotonic())
            await self.clock.sleep(self.round_trip() / 2)
            permit.arrived()

    async def end(self) -> None:
        """Cancel the tasks, and check that none failed."""
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError)


def most_in_any_period(stamps: list[float], period: float) -> int:
    """Return the most of the stamps that lie in any half-open period."""
    stamps = sorted(stamps)
    most = first = 0
    for index, stamp in enumerate(stamps):
        while stamp - stamps[first] >= period:
            first += 1
        most = max(most, index - first + 1)
    return most
