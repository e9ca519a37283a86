"""How far a batch has come: rate, time left, waiting for the limit, and callbacks."""

import asyncio
from typing import Any

import attrs
import pytest

from comfycontrol_async import InvalidArgumentError, LocalLimiter, MapProgress
from comfycontrol_async.batch._progress import Tally, eta_of, rate_of, wait_of
from comfycontrol_async.limits import Priority
from comfycontrol_async.testing import FakeClock

FREE = LocalLimiter(40, 10.0).snapshot()


@pytest.mark.parametrize(("finished", "seconds", "rate"), [(0, 10.0, 0.0), (5, 10.0, 0.5), (5, 0.0, 0.0), (-1, 9.0, 0)])
def test_rate(finished: int, seconds: float, rate: float) -> None:
    """Rows per second; none before there is one."""
    assert rate_of(finished, seconds) == rate


@pytest.mark.parametrize(
    ("total", "done", "rate", "eta"),
    [
        pytest.param(None, 5, 1.0, None, id="endless"),
        pytest.param(10, 0, 0.0, None, id="not-begun"),
        pytest.param(10, 5, 0.5, 10.0, id="half"),
        pytest.param(10, 10, 0.5, 0.0, id="done"),
        pytest.param(10, 10, 0.0, 0.0, id="done-before"),
        pytest.param(10, 12, 0.5, 0.0, id="more-than-counted"),
    ],
)
def test_eta(total: int | None, done: int, rate: float, eta: float | None) -> None:
    """Seconds to the end at this rate, None while that is not known."""
    assert eta_of(total, done, rate) == eta


def test_wait() -> None:
    """The wait of the next request, when any request waits."""
    waiting = {**dict.fromkeys(Priority, 0), Priority.NORMAL: 3}
    assert wait_of(attrs.evolve(FREE, next_free_in=4.0)) == 0.0
    assert wait_of(attrs.evolve(FREE, next_free_in=4.0, waiting=waiting)) == 4.0
    assert wait_of(attrs.evolve(FREE, cooldown=7.0, waiting=waiting)) == 7.0


class Tallying:
    """A tally with what it called back with."""

    def __init__(self, callback: Any = None) -> None:
        self.clock = FakeClock()
        self.seen: list[MapProgress] = []
        self.errors: list[Exception] = []
        self.requests = 100
        self.tally = Tally(
            self.seen.append if callback is None else callback,
            self.clock,
            lambda: self.requests,
            lambda: FREE,
            self.errors.append,
        )


async def test_ticks() -> None:
    """It is reported once a second although nothing changes, with the requests since the batch began."""
    world = Tallying()
    ticking = asyncio.create_task(world.tally.tick())
    world.requests += 2
    await world.clock.advance(3.5)
    assert [progress.requests for progress in world.seen] == [2, 2, 2]
    ticking.cancel()
    await asyncio.wait([ticking])


async def test_one_at_a_time() -> None:
    """A slow callback is never called again before it is done, and sees what is true when it is called."""
    seen: list[int] = []
    inside = 0

    async def slow(progress: MapProgress) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        seen.append(progress.read)
        await world.clock.sleep(1.0)
        inside -= 1

    world = Tallying(slow)

    async def one() -> None:
        world.tally.read += 1
        await world.tally.report()

    tasks = [asyncio.create_task(one()) for _ in range(3)]
    for _ in range(3):
        await world.clock.advance(1.0)
    await asyncio.wait(tasks)
    assert seen == [1, 3, 3]
    assert world.errors == []


async def test_errors() -> None:
    """An error of the callback goes to its author; one that was cancelled from elsewhere is told as such."""

    def fail(progress: MapProgress) -> None:
        raise ZeroDivisionError

    world = Tallying(fail)
    await world.tally.report()
    assert [type(error) for error in world.errors] == [ZeroDivisionError]

    async def cancelled(progress: MapProgress) -> None:
        raise asyncio.CancelledError

    world = Tallying(cancelled)
    with pytest.raises(InvalidArgumentError, match="on_progress was cancelled"):
        await world.tally.report()


async def test_own_cancel() -> None:
    """When the task that reports is cancelled itself, it is cancelled."""
    world = Tallying(lambda progress: asyncio.get_running_loop().create_future())
    reporting = asyncio.create_task(world.tally.report())
    await asyncio.sleep(0)
    reporting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reporting
