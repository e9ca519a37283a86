"""Server time: seconds since the start that may pass faster than real ones, and the texts made of them."""

import asyncio
import functools
from datetime import UTC, datetime
from email.utils import formatdate

from comfycontrol_async._clock import SYSTEM_CLOCK


class ServerTime:
    """Seconds since the server's start, `speed` of them in one real second."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._origin: float | None = None
        self._epoch = 0.0
        self._sleeping: set[asyncio.Future[bool]] = set()
        self._over = False

    def begin(self) -> None:
        """Start at zero; a second start goes on."""
        self._over = False
        if self._origin is None:
            self._origin = SYSTEM_CLOCK.monotonic()
            self._epoch = SYSTEM_CLOCK.utcnow().timestamp()

    def now(self) -> float:
        """Return the server seconds since the start."""
        if self._origin is None:
            return 0.0
        return (SYSTEM_CLOCK.monotonic() - self._origin) * self._speed

    def unix(self, at: float) -> float:
        """Return the Unix time of the moment `at`."""
        return self._epoch + at

    def text(self, at: float | None) -> str | None:
        """Return the moment `at` as the API writes it."""
        return None if at is None else _timestamp(int(self._epoch + at))

    def date(self) -> str:
        """Return the server's own time for a Date header."""
        return _http_date(int(self._epoch + self.now()))

    async def sleep(self, seconds: float, group: "set[asyncio.Future[bool]] | None" = None) -> bool:
        """Wait `seconds` server seconds, or until `wake(group)`; return False, and early, when the server stops."""
        if self._over:
            return False
        woken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        timer = SYSTEM_CLOCK.call_later(seconds / self._speed, lambda: None if woken.done() else woken.set_result(True))
        group = set() if group is None else group
        group.add(woken)
        self._sleeping.add(woken)
        try:
            return await woken
        finally:
            group.discard(woken)
            self._sleeping.discard(woken)
            timer.cancel()

    def end_sleeps(self) -> None:
        """Wake all waiting tasks, since the server stops."""
        self._over = True
        for woken in self._sleeping:
            if not woken.done():
                woken.set_result(False)


def wake(group: set[asyncio.Future[bool]]) -> None:
    """End the waits of a group early."""
    for woken in group:
        if not woken.done():
            woken.set_result(True)


@functools.lru_cache(maxsize=4096)
def _timestamp(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(maxsize=16)
def _http_date(unix: int) -> str:
    return formatdate(unix, usegmt=True)
