"""A deadline that ends a block of a task."""

import asyncio

import pytest

from comfycontrol_async.runs._deadline import Deadline
from comfycontrol_async.testing import FakeClock


async def test_in_time() -> None:
    """A block that ends in time leaves no timer."""
    clock = FakeClock()
    async with Deadline(clock) as deadline:
        deadline.expire_in(5.0)
    assert not deadline.expired
    assert clock.timers == 0


async def test_expires() -> None:
    """When the time is up the block is left quietly, and what comes after it runs."""
    clock = FakeClock()
    after: list[float] = []

    async def work() -> None:
        async with Deadline(clock) as deadline:
            deadline.expire_in(5.0)
            await clock.sleep(2.0)
            deadline.expire_in(5.0)  # moved
            await clock.sleep(100.0)
        assert deadline.expired
        await clock.sleep(1.0)
        after.append(clock.monotonic())

    task = asyncio.ensure_future(work())
    await clock.advance(50.0)
    await task
    assert after == [1008.0]


async def test_stopped() -> None:
    """Without an end the block takes as long as it takes."""
    clock = FakeClock()

    async def work() -> bool:
        async with Deadline(clock) as deadline:
            deadline.expire_in(5.0)
            deadline.stop()
            await clock.sleep(100.0)
        return deadline.expired

    task = asyncio.ensure_future(work())
    await clock.advance(100.0)
    assert await task is False


@pytest.mark.parametrize("expired", [False, True], ids=["before", "at-the-same-time"])
async def test_cancelled(expired: bool) -> None:
    """A cancellation from outside goes through, also one that comes with the end of the time."""
    clock = FakeClock()
    deadline = Deadline(clock)

    async def work() -> None:
        async with deadline:
            deadline.expire_in(0.0 if expired else 5.0)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    if expired:
        deadline.stop()  # as the timer, when it calls this, is spent
        deadline._expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.timers == 0


async def test_error() -> None:
    """An error of the block goes through."""

    async def work() -> None:
        async with Deadline(FakeClock()) as deadline:
            deadline.expire_in(5.0)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await work()
