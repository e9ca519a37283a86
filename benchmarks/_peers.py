"""The rate limiters that the benchmarks compare, behind one shape: `acquire` and `settle`.

Peers come with the dependency group `bench`; one that is not installed is left out, and said to be.
"""

import asyncio
import importlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs

from comfycontrol_async import LocalLimiter

Acquire = Callable[[], Awaitable[Any]]


@attrs.frozen
class Peer:
    """A kind of limiter: `make` gives the `acquire` of a new one; `settle` says of what it gave that it was used."""

    name: str
    make: Callable[[int, float], Acquire]
    package: str | None = None
    settle: Callable[[Any], None] | None = None

    def missing(self) -> bool:
        """Tell whether its package is not installed."""
        if self.package is None:
            return False
        try:
            importlib.import_module(self.package)
        except ImportError:
            return True
        return False


class Floor:
    """The cheapest conceivable exact acquire: clock, compare, popleft, append. It cannot wait."""

    def __init__(self, limit: int, period: float) -> None:
        self._stamps = deque([float("-inf")] * limit)
        self._period = period

    async def acquire(self) -> None:
        """Take a slot that is free."""
        now = time.monotonic()
        stamps = self._stamps
        if stamps[0] <= now:
            stamps.popleft()
            stamps.append(now + self._period)


class NoLimit:
    """Limits nothing: what a drain costs without a limiter."""

    def __init__(self, limit: int, period: float) -> None:
        pass

    async def acquire(self) -> None:
        """Do nothing."""


class LockAndDeque:
    """The idiom of a lock and a deque of send times: exact at the sender, first come first served, one timer."""

    def __init__(self, limit: int, period: float) -> None:
        self._lock = asyncio.Lock()
        self._sent: deque[float] = deque()
        self._limit = limit
        self._period = period

    async def acquire(self) -> None:
        """Wait for the oldest send time to be a period old, with the lock held."""
        async with self._lock:
            now = time.monotonic()
            while self._sent and self._sent[0] <= now - self._period:
                self._sent.popleft()
            while len(self._sent) >= self._limit:
                await asyncio.sleep(self._sent[0] + self._period - now)
                now = time.monotonic()
                while self._sent and self._sent[0] <= now - self._period:
                    self._sent.popleft()
            self._sent.append(now)


class SemaphoreAndTimer:
    """The idiom of a semaphore that `call_later` releases a period after each acquire."""

    def __init__(self, limit: int, period: float) -> None:
        self._free = asyncio.Semaphore(limit)
        self._period = period

    async def acquire(self) -> None:
        """Take one, and give it back a period later."""
        await self._free.acquire()
        asyncio.get_running_loop().call_later(self._period, self._free.release)


def _aiolimiter(limit: int, period: float) -> Acquire:
    made: Any = importlib.import_module("aiolimiter").AsyncLimiter(limit, period)
    return made.acquire  # type: ignore[no-any-return] # the packages are loaded by name


def _asynciolimiter(limit: int, period: float) -> Acquire:
    made: Any = importlib.import_module("asynciolimiter").LeakyBucketLimiter(limit / period, capacity=limit)
    return made.wait  # type: ignore[no-any-return] # as above


def _pyrate_limiter(limit: int, period: float) -> Acquire:
    package: Any = importlib.import_module("pyrate_limiter")
    limiter = package.Limiter(package.Rate(limit, round(period * 1000)))
    return lambda: limiter.try_acquire_async("x")


def _throttled(limit: int, period: float) -> Acquire:
    package: Any = importlib.import_module("throttled.asyncio")
    limiter = package.Throttled(
        key="x",
        using=package.RateLimiterType.SLIDING_WINDOW.value,
        quota=package.per_duration(timedelta(seconds=period), limit),
        timeout=3600,
        store=package.MemoryStore(),  # its default is one store for all
    )
    return limiter.limit  # type: ignore[no-any-return] # as above


def _limits(limit: int, period: float) -> Acquire:
    package: Any = importlib.import_module("limits")
    strategies: Any = importlib.import_module("limits.aio.strategies")
    storage: Any = importlib.import_module("limits.aio.storage")
    limiter = strategies.MovingWindowRateLimiter(storage.MemoryStorage())
    item = package.RateLimitItemPerSecond(limit, round(period))

    async def acquire() -> None:
        while not await limiter.hit(item):
            window = await limiter.get_window_stats(item)
            await asyncio.sleep(max(0.001, window.reset_time - time.time()))

    return acquire


def _asyncio_throttle(limit: int, period: float) -> Acquire:
    made: Any = importlib.import_module("asyncio_throttle").Throttler(limit, period)
    return made.acquire  # type: ignore[no-any-return] # as above


def _hikari(limit: int, period: float) -> Acquire:
    made: Any = importlib.import_module("hikari.impl.rate_limits").WindowedBurstRateLimiter("x", period, limit)
    return made.acquire  # type: ignore[no-any-return] # as above


OURS = Peer(
    "comfycontrol_async",
    lambda limit, period: LocalLimiter(limit, period).acquire,
    settle=lambda permit: permit.arrived(),
)
FLOOR = Peer("floor (cannot wait)", lambda limit, period: Floor(limit, period).acquire)
NO_LIMIT = Peer("no limit", lambda limit, period: NoLimit(limit, period).acquire)
LOCK_AND_DEQUE = Peer("lock and deque", lambda limit, period: LockAndDeque(limit, period).acquire)
PEERS = [
    LOCK_AND_DEQUE,
    Peer("semaphore, call_later", lambda limit, period: SemaphoreAndTimer(limit, period).acquire),
    Peer("aiolimiter", _aiolimiter, "aiolimiter"),
    Peer("asynciolimiter", _asynciolimiter, "asynciolimiter"),
    Peer("pyrate-limiter", _pyrate_limiter, "pyrate_limiter"),
    Peer("throttled-py", _throttled, "throttled"),
    Peer("limits", _limits, "limits"),
    Peer("asyncio-throttle", _asyncio_throttle, "asyncio_throttle"),
    Peer("hikari", _hikari, "hikari"),
]
PACKAGES = [
    "comfycontrol-async",
    "aiolimiter",
    "asynciolimiter",
    "pyrate-limiter",
    "throttled-py",
    "limits",
    "asyncio-throttle",
    "hikari",
    "uvloop",
]


def installed(peers: list[Peer]) -> list[Peer]:
    """Return the peers that can be measured, and say which cannot."""
    for peer in peers:
        if peer.missing():
            print(f"left out: {peer.name} is not installed (pip install 'comfycontrol-async[bench]')")
    return [peer for peer in peers if not peer.missing()]
