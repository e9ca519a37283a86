"""The only place that reads a clock or sleeps.

Everything that needs time takes a `Clock`, so that tests can give it a fake one and run an hour in a millisecond.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """A callback that is due later and can be called off."""

    def cancel(self) -> None:
        """Call it off; harmless when it has run."""


class Clock(Protocol):
    """What the package asks of time. All durations are seconds."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; never goes back."""
        ...

    def utcnow(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the running loop in about `delay` seconds: it may be a little early or late."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""


class SystemClock:
    """The machine's own clock and the running event loop's timers."""

    __slots__ = ()

    # A plain C function: a Python method around it would cost the limiter's fast path a call.
    monotonic = staticmethod(time.monotonic)

    def utcnow(self) -> datetime:
        """Return the wall time as an aware UTC datetime."""
        return datetime.now(UTC)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the running loop in `delay` seconds."""
        return asyncio.get_running_loop().call_later(delay, callback)

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
