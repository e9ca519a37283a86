"""FakeClock: time that moves only when told."""

import asyncio

import pytest

from comfycontrol_async._clock import Clock
from comfycontrol_async.testing import FakeClock


async def test_timers_fire_in_order() -> None:
    """Timers fire when due, in order of time and then of making, each seeing its own moment."""
    clock = FakeClock(start=50.0)
    seen: list[tuple[str, float]] = []
    for delay, name in ((2.0, "b"), (1.0, "a"), (2.0, "c"), (9.0, "late")):
        clock.call_later(delay, lambda name=name: seen.append((name, clock.monotonic())))  # type: ignore[misc]
    assert clock.timers == 4
    await clock.advance(5.0)
    assert seen == [("a", 51.0), ("b", 52.0), ("c", 52.0)]
    assert (clock.timers, clock.fired, clock.monotonic()) == (1, 3, 55.0)


async def test_cancelled_timer() -> None:
    """A timer called off neither fires nor counts."""
    clock = FakeClock()
    timer = clock.call_later(1.0, lambda: pytest.fail("fired"))
    timer.cancel()
    timer.cancel()
    await clock.advance(2.0)
    assert (clock.timers, clock.fired) == (0, 0)


async def test_timers_made_by_timers() -> None:
    """A timer made while time moves fires in the same advance when it falls due in it."""
    clock = FakeClock(start=0.0)
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.monotonic())
        if len(seen) < 5:
            clock.call_later(1.0, again)

    clock.call_later(1.0, again)
    await clock.advance(3.5)
    assert seen == [1.0, 2.0, 3.0]
    await clock.advance(10.0)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_tasks_settle_between_timers() -> None:
    """A chain of tasks that wake each other is through before the next timer fires."""
    clock = FakeClock(start=0.0)
    seen: list[tuple[int, float]] = []

    async def link(number: int, event: asyncio.Event, then: asyncio.Event) -> None:
        await event.wait()
        seen.append((number, clock.monotonic()))
        then.set()

    events = [asyncio.Event() for _ in range(21)]
    tasks = [asyncio.create_task(link(number, events[number], events[number + 1])) for number in range(20)]
    clock.call_later(1.0, events[0].set)
    clock.call_later(1.5, lambda: seen.append((99, clock.monotonic())))
    await clock.advance(2.0)
    assert seen == [(number, 1.0) for number in range(20)] + [(99, 1.5)]
    await asyncio.gather(*tasks)


async def test_sleep() -> None:
    """A sleeper wakes at its moment; one that is cancelled leaves no timer."""
    clock = FakeClock(start=0.0)

    async def sleep_twice() -> float:
        await clock.sleep(1.0)
        await clock.sleep(2.0)
        return clock.monotonic()

    task = asyncio.create_task(sleep_twice())
    await clock.advance(10.0)
    assert await task == 3.0
    task = asyncio.create_task(sleep_twice())
    await clock.advance(0.5)
    task.cancel()
    await clock.advance(0.0)
    assert task.cancelled()
    assert clock.timers == 0
    await clock.sleep(0)


async def test_early_timers() -> None:
    """With `early`, timers fire before they should, as uvloop's may."""
    clock: Clock = FakeClock(start=0.0, early=0.001)
    seen: list[float] = []
    clock.call_later(1.0, lambda: seen.append(clock.monotonic()))
    assert isinstance(clock, FakeClock)
    await clock.advance(1.0)
    assert seen == [0.999]


async def test_wall_time_moves_along() -> None:
    """Wall time moves with the seconds."""
    clock = FakeClock()
    before = clock.utcnow()
    await clock.advance(90.0)
    assert (clock.utcnow() - before).total_seconds() == 90.0
    assert before.tzinfo is not None


def test_other_loops() -> None:
    """On a loop that does not show what is ready, tasks settle all the same."""
    uvloop = pytest.importorskip("uvloop")

    async def wake_up() -> float:
        clock = FakeClock(start=0.0)
        task = asyncio.create_task(clock.sleep(1.0))
        await clock.advance(2.0)
        assert task.done()
        return clock.monotonic()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(wake_up()) == 2.0


async def test_time_does_not_go_back() -> None:
    """Negative steps are refused."""
    with pytest.raises(ValueError, match="does not go back"):
        await FakeClock().advance(-1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        FakeClock(early=-1.0)
