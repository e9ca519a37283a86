"""Lanes: first come first served in each, the highest first, and none starves."""

import asyncio
from collections import Counter

import pytest

from comfycontrol_async.limits._lanes import Lanes, Priority, Waiter

BULK, NORMAL, INTERACTIVE = Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE


@pytest.fixture
def loop() -> "asyncio.AbstractEventLoop":
    """Make futures without running anything."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def fill(lanes: Lanes, loop: asyncio.AbstractEventLoop, priority: Priority, count: int) -> list[Waiter]:
    """Queue newcomers."""
    waiters: list[Waiter] = [loop.create_future() for _ in range(count)]
    for waiter in waiters:
        lanes.push(waiter, priority)
    return waiters


def drain(lanes: Lanes, count: int) -> list[Waiter | None]:
    """Take those whose turn it is."""
    return [lanes.pop() for _ in range(count)]


def test_fifo(loop: asyncio.AbstractEventLoop) -> None:
    """In one lane the order is that of coming."""
    lanes = Lanes()
    waiters = fill(lanes, loop, NORMAL, 100)
    assert drain(lanes, 101) == [*waiters, None]


def test_highest_first(loop: asyncio.AbstractEventLoop) -> None:
    """A higher lane goes first."""
    lanes = Lanes()
    low, middle, high = (fill(lanes, loop, priority, 2) for priority in Priority)
    assert drain(lanes, 6) == [*high, *middle, *low]


def test_share_of_lower_lanes(loop: asyncio.AbstractEventLoop) -> None:
    """Under saturation from above, each lower lane gets one grant in 8 (the first a turn later)."""
    lanes = Lanes()
    owner = {waiter: priority for priority in Priority for waiter in fill(lanes, loop, priority, 2000)}
    got = Counter(owner[waiter] for waiter in drain(lanes, 800) if waiter is not None)
    assert min(got[NORMAL], got[BULK]) >= 99
    assert got[INTERACTIVE] >= 600


def test_share_of_one_lower_lane(loop: asyncio.AbstractEventLoop) -> None:
    """Batch work gets one grant in 8 beside saturated normal work."""
    lanes = Lanes()
    owner = {waiter: priority for priority in (BULK, NORMAL) for waiter in fill(lanes, loop, priority, 2000)}
    got = Counter(owner[waiter] for waiter in drain(lanes, 800) if waiter is not None)
    assert got == {NORMAL: 700, BULK: 100}


def test_newcomer_passes_the_crowd(loop: asyncio.AbstractEventLoop) -> None:
    """Whenever somebody comes to the highest lane, at most two of lower lanes go before."""
    lanes = Lanes()
    fill(lanes, loop, BULK, 10_000)
    fill(lanes, loop, NORMAL, 10_000)
    for lead in range(40):
        drain(lanes, lead)
        (bot,) = fill(lanes, loop, INTERACTIVE, 1)
        assert bot in drain(lanes, 3)


def test_returned_go_to_the_head(loop: asyncio.AbstractEventLoop) -> None:
    """Those who come back go before newcomers of their lane, in the order of their old grants."""
    lanes = Lanes()
    newcomers = fill(lanes, loop, NORMAL, 2)
    back: dict[int, Waiter] = {number: loop.create_future() for number in (7, 3, 5)}
    for number, waiter in back.items():
        lanes.push(waiter, NORMAL, number)
    assert lanes.ahead(NORMAL) == 5
    assert drain(lanes, 5) == [back[3], back[5], back[7], *newcomers]


def test_returned_stay_in_their_lane(loop: asyncio.AbstractEventLoop) -> None:
    """A higher lane still goes before those who come back to a lower one."""
    lanes = Lanes()
    back: Waiter = loop.create_future()
    lanes.push(back, BULK, 1)
    (bot,) = fill(lanes, loop, INTERACTIVE, 1)
    assert drain(lanes, 2) == [bot, back]


@pytest.mark.parametrize("priority", list(Priority))
def test_shells_are_skipped(loop: asyncio.AbstractEventLoop, priority: Priority) -> None:
    """Waiters that are done are never handed out, whether they were forgotten yet or not."""
    lanes = Lanes()
    waiters = fill(lanes, loop, priority, 6)
    for waiter in waiters[::2]:
        waiter.set_result(None)
    lanes.forget(priority)
    assert drain(lanes, 4) == [*waiters[1::2], None]
    lanes.forget(priority)
    lanes.forget(priority)
    assert lanes.size == lanes.ahead(BULK) == 0


def test_shells_are_swept(loop: asyncio.AbstractEventLoop) -> None:
    """A lane keeps no more shells than waiters, and nothing when nobody waits."""
    lanes = Lanes()
    waiters = fill(lanes, loop, NORMAL, 10_000)
    back: Waiter = loop.create_future()
    lanes.push(back, NORMAL, 1)
    lane = lanes.lanes[NORMAL]
    for count, waiter in enumerate([*waiters[10:], back, *waiters[:10]], start=1):
        waiter.set_result(None)
        lanes.forget(NORMAL)
        assert len(lane.queue) + len(lane.returned) <= 2 * (10_001 - count)
    assert not lane.queue
    assert not lane.returned
    assert drain(lanes, 1) == [None]


def test_ahead(loop: asyncio.AbstractEventLoop) -> None:
    """A newcomer goes after its own lane and those above."""
    lanes = Lanes()
    for priority, count in ((BULK, 1), (NORMAL, 20), (INTERACTIVE, 300)):
        fill(lanes, loop, priority, count)
    assert [lanes.ahead(priority) for priority in Priority] == [321, 320, 300]
