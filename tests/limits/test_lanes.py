"""Lanes: first come first served in each, the highest first, and none starves."""

import asyncio
from collections import Counter

import pytest

from comfycontrol_async.limits._lanes import Lanes, Priority, Stage, Waiter

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
    """Whenever a newcomer joins the highest lane, at most two of lower lanes go before."""
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
        lanes.push(waiter, NORMAL, number=number)
    assert lanes.ahead(NORMAL) == 5
    assert drain(lanes, 5) == [back[3], back[5], back[7], *newcomers]


def test_returned_stay_in_their_lane(loop: asyncio.AbstractEventLoop) -> None:
    """A higher lane still goes before those who come back to a lower one."""
    lanes = Lanes()
    back: Waiter = loop.create_future()
    lanes.push(back, BULK, number=1)
    (bot,) = fill(lanes, loop, INTERACTIVE, 1)
    assert drain(lanes, 2) == [bot, back]


@pytest.mark.parametrize("priority", list(Priority))
def test_tombstones_are_skipped(loop: asyncio.AbstractEventLoop, priority: Priority) -> None:
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


def test_tombstones_are_compacted(loop: asyncio.AbstractEventLoop) -> None:
    """A lane keeps no more tombstones than waiters, and nothing when none waits."""
    lanes = Lanes()
    waiters = fill(lanes, loop, NORMAL, 10_000)
    back: Waiter = loop.create_future()
    lanes.push(back, NORMAL, number=1)
    line = lanes.lanes[NORMAL].lines[Stage.OTHER]
    for count, waiter in enumerate([*waiters[10:], back, *waiters[:10]], start=1):
        waiter.set_result(None)
        lanes.forget(NORMAL)
        assert len(line.queue) + len(line.returned) <= 2 * (10_001 - count)
    assert not line
    assert drain(lanes, 1) == [None]


def test_ahead(loop: asyncio.AbstractEventLoop) -> None:
    """A newcomer goes after its own lane, and after those above as far as its lane's share does not come first."""
    lanes = Lanes()
    for priority, count in ((BULK, 1), (NORMAL, 20), (INTERACTIVE, 300)):
        fill(lanes, loop, priority, count)
    assert [lanes.ahead(priority) for priority in Priority] == [1 + 14, 20 + 147, 300]


# Stages

STAGES = {"X": Stage.CANCEL, "F": Stage.FINISH, "O": Stage.OTHER, "C": Stage.CREATE}


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ("OOO", "OOO"),
        ("OCFX", "XFOC"),
        ("XXXCCC", "XXXCCC"),
        ("CCCFFFFFF", "FFCFFCFFC"),
        ("CCCCC" + "FF", "FFCCCCC"),
        ("CCC" + "OOOOOO", "OOCOOCOOC"),
        ("O" + "F" * 9, "FFFFFFFOFF"),
        ("O" + "F" * 9 + "CCC", "FFCFFCFOCFFFF"),
        ("FFFFFFFFF" + "OO", "FFFFFFFOFFO"),
    ],
    ids=str,
)
def test_order_of_stages(loop: asyncio.AbstractEventLoop, waiting: str, order: str) -> None:
    """CANCEL first; each third of the others to CREATE, the rest to FINISH, then OTHER; it is passed over 7 times."""
    lanes = Lanes()
    letters = {}
    for letter in waiting:
        waiter: Waiter = loop.create_future()
        letters[waiter] = letter
        lanes.push(waiter, NORMAL, STAGES[letter])
    assert "".join(letters[waiter] for waiter in drain(lanes, len(waiting)) if waiter is not None) == order


def test_cancel_comes_late(loop: asyncio.AbstractEventLoop) -> None:
    """A cancel overtakes all that wait in its lane, and none in a higher one."""
    lanes = Lanes()
    fill(lanes, loop, NORMAL, 100)
    (bot,) = fill(lanes, loop, INTERACTIVE, 1)
    cancel: Waiter = loop.create_future()
    lanes.push(cancel, NORMAL, Stage.CANCEL)
    assert drain(lanes, 2) == [bot, cancel]


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("lead", range(0, 30, 3))
def test_ahead_is_a_lower_bound(loop: asyncio.AbstractEventLoop, stage: Stage, lead: int) -> None:
    """A newcomer never goes before as many as `ahead` counts."""
    lanes = Lanes()
    for priority in (NORMAL, INTERACTIVE):
        for place in range(60):
            lanes.push(loop.create_future(), priority, Stage(place % 4))
    drain(lanes, lead)
    ahead = lanes.ahead(NORMAL, stage)
    newcomer: Waiter = loop.create_future()
    lanes.push(newcomer, NORMAL, stage)
    assert drain(lanes, 121 - lead).index(newcomer) >= ahead
