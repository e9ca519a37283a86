"""SystemClock: the machine's time and the running loop's timers."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock, SystemClock
from comfycontrol_async.testing import FakeClock


def test_tells_the_machines_time() -> None:
    """It says what the machine's clocks say, and wall time is aware."""
    before = time.monotonic()
    assert before <= SYSTEM_CLOCK.monotonic() <= time.monotonic()
    now = SYSTEM_CLOCK.utcnow()
    assert now.tzinfo is UTC
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


async def test_timers_run_on_the_loop() -> None:
    """A timer runs its callback on the running loop; one that was called off does not."""
    seen: list[str] = []
    ran = asyncio.Event()
    SYSTEM_CLOCK.call_later(0.0, lambda: seen.append("called off")).cancel()
    timer = SYSTEM_CLOCK.call_later(0.0, ran.set)
    await asyncio.wait_for(ran.wait(), 5.0)
    timer.cancel()
    assert seen == []


def test_timers_need_a_loop() -> None:
    """Without a running loop there is nothing that could run a timer."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        SYSTEM_CLOCK.call_later(0.0, print)


async def test_sleep_lets_others_run() -> None:
    """A sleep of nothing still gives others their turn."""
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await SYSTEM_CLOCK.sleep(0.0)
    assert seen == [1]


def test_clocks_are_interchangeable() -> None:
    """Both clocks are a `Clock` to the type checker, which is what every caller asks for."""
    clocks: list[Clock] = [SystemClock(), FakeClock()]
    assert all(clock.monotonic() <= clock.monotonic() for clock in clocks)
