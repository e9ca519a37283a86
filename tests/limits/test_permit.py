"""Permits: settled once, whatever happens to their holders, and no slot is lost."""

import asyncio
import gc
import threading

import pytest

from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError
from comfycontrol_async.limits import LocalLimiter, Permit, Priority
from comfycontrol_async.testing import FakeClock
from support.limiters import step, turns


@pytest.fixture
def clock() -> FakeClock:
    """Stand still."""
    return FakeClock()


@pytest.fixture
def limiter(clock: FakeClock) -> LocalLimiter:
    """Make a limiter of two in ten seconds."""
    return LocalLimiter(2, 10.0, clock=clock)


async def free_after(limiter: LocalLimiter, clock: FakeClock) -> float:
    """Return after how long the limiter is unused again."""
    for tenth in range(300):
        if limiter.snapshot().used == 0:
            return tenth / 10
        await clock.advance(0.1)
    raise AssertionError("a slot was lost")


async def test_arrived(limiter: LocalLimiter, clock: FakeClock) -> None:
    """The slot is free a period after the answer."""
    permit = await limiter.acquire()
    await clock.advance(2.0)
    permit.arrived()
    assert await free_after(limiter, clock) == pytest.approx(10.1)


async def test_refund(limiter: LocalLimiter, clock: FakeClock) -> None:
    """The slot is free at once."""
    (await limiter.acquire()).refund()
    assert await free_after(limiter, clock) == 0.0


async def test_lost(limiter: LocalLimiter, clock: FakeClock) -> None:
    """The slot is free a period and a second later."""
    (await limiter.acquire()).lost()
    assert await free_after(limiter, clock) == pytest.approx(11.1)


async def test_arrived_and_never_answered(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A request that has arrived holds its slot for three seconds at most, and its late answer is no error."""
    permit = await limiter.acquire()
    permit.sent(lambda: True)
    permit.sent()
    assert await free_after(limiter, clock) == pytest.approx(13.1)
    permit.sent()
    permit.arrived()
    assert await free_after(limiter, clock) == 0.0
    with pytest.raises(InvalidArgumentError):
        permit.arrived()


async def test_sent_and_answered(limiter: LocalLimiter, clock: FakeClock) -> None:
    """The answer counts, not the cap, when it comes first."""
    permit = await limiter.acquire()
    permit.sent()
    await clock.advance(0.5)
    permit.arrived()
    assert await free_after(limiter, clock) == pytest.approx(10.1)


async def test_never_sent(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A permit that waits for a connection keeps its slot."""
    permit = await limiter.acquire()
    await clock.advance(1000.0)
    assert limiter.snapshot().used == 1
    permit.arrived()


async def test_context_manager(limiter: LocalLimiter, clock: FakeClock) -> None:
    """Leaving without a word counts as arrived; what was said inside stays."""
    with await limiter.acquire():
        pass
    with await limiter.acquire() as permit:
        permit.refund()
    assert limiter.snapshot().used == 1
    with pytest.raises(ZeroDivisionError), await limiter.acquire():
        raise ZeroDivisionError
    assert limiter.snapshot().used == 2


@pytest.mark.parametrize("second", ["arrived", "lost", "refund"])
@pytest.mark.parametrize("first", ["arrived", "lost", "refund"])
async def test_settled_twice(limiter: LocalLimiter, first: str, second: str) -> None:
    """The second time is a clear error and changes nothing."""
    permit = await limiter.acquire()
    getattr(permit, first)()
    before = limiter.snapshot()
    with pytest.raises(InvalidArgumentError, match="settled already"):
        getattr(permit, second)()
    assert limiter.snapshot() == before
    permit.sent()
    assert limiter.snapshot() == before


async def test_kept_permit_stays_settled(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A permit that its holder kept cannot settle the slot of a later one."""
    kept = [await limiter.acquire(), await limiter.acquire()]
    for permit in kept:
        permit.arrived()
    await clock.advance(11.0)
    later = [await limiter.acquire(), await limiter.acquire()]
    for permit in kept:
        with pytest.raises(InvalidArgumentError):
            permit.refund()
    assert limiter.snapshot().used == 2
    for permit in later:
        permit.refund()


async def test_dropped(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A permit without a reference counts as arrived."""
    permit: Permit | None = await limiter.acquire()
    await clock.advance(5.0)
    del permit
    gc.collect()
    await turns()
    assert limiter.snapshot().used == 1
    assert await free_after(limiter, clock) == pytest.approx(10.1)


async def test_dropped_in_a_thread(limiter: LocalLimiter, clock: FakeClock) -> None:
    """The last reference may go in any thread, and waiters are woken all the same."""
    hold = [await limiter.acquire(), await limiter.acquire()]
    waiter = asyncio.create_task(limiter.acquire())
    await turns()
    thread = threading.Thread(target=hold.clear)
    thread.start()
    thread.join()
    await turns()
    await clock.advance(10.1)
    (await waiter).arrived()


def test_after_its_loop(limiter: LocalLimiter) -> None:
    """Used after its loop, a permit says so, and its slot is charged when the next loop takes over."""

    async def hold() -> list[Permit]:
        return [await limiter.acquire(), await limiter.acquire()]

    arrived, lost = asyncio.run(hold())
    with pytest.raises(ClientLoopError):
        arrived.arrived()
    with pytest.raises(InvalidArgumentError):
        arrived.arrived()

    async def look() -> int:
        with pytest.raises(ClientLoopError):
            lost.lost()
        waiter = asyncio.create_task(limiter.acquire())
        await turns()
        waiter.cancel()
        return limiter.snapshot().used

    assert asyncio.run(look()) == 2


def test_outside_a_living_loop(limiter: LocalLimiter, clock: FakeClock) -> None:
    """Between two runs of one loop a permit cannot be settled, and its slot is charged when the loop goes on."""
    with asyncio.Runner() as runner:
        permit = runner.run(limiter.acquire())
        with pytest.raises(ClientLoopError):
            permit.arrived()

        async def look() -> int:
            await turns()
            await clock.advance(10.01)
            return limiter.snapshot().used

        assert runner.run(look()) == 0


async def test_repr(limiter: LocalLimiter, clock: FakeClock) -> None:
    """It says its state."""
    permit = await limiter.acquire()
    assert repr(permit) == "<Permit held>"
    permit.sent(lambda: True)
    assert repr(permit) == "<Permit sent>"
    await clock.advance(4.0)
    assert repr(permit) == "<Permit lapsed>"
    permit.arrived()
    assert repr(permit) == "<Permit settled>"


async def test_requeue_of_a_held_permit(limiter: LocalLimiter, clock: FakeClock) -> None:
    """To come back is to say that the refusal arrived: both slots are charged."""
    permit = await limiter.acquire(Priority.BULK)
    again = step(permit.requeue())
    assert limiter.snapshot().used == 2
    again.arrived()
    with pytest.raises(InvalidArgumentError):
        permit.arrived()
