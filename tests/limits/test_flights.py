"""Flights: a slow answer holds its slot for 3 s only, provided that its request has arrived."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async.limits import LocalLimiter, Permit
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import FakeClock

PERIOD, GUARD = 10.0, 0.002

AnyLimiter = LocalLimiter | FileLimiter


@pytest.fixture
def clock() -> FakeClock:
    """Fire timers in time."""
    return FakeClock()


@pytest.fixture(params=["local", "file"])
def limiter(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> AnyLimiter:
    """Make a limiter of two in ten seconds, over each store that a fake clock serves."""
    if request.param == "local":
        return LocalLimiter(2, PERIOD, clock=clock)
    return FileLimiter(tmp_path / "slots", limit=2, period=PERIOD, clock=clock)


async def free_at(limiter: AnyLimiter, clock: FakeClock, used: int = 0, most: float = 60.0) -> float:
    """Return the moment at which no more than so many slots are taken, to 0.1 s."""
    end = clock.monotonic() + most
    while limiter.snapshot().used > used:
        assert clock.monotonic() < end, "a slot is held for ever"
        await clock.advance(0.1)
    return clock.monotonic()


def answers(*words: bool | None) -> Callable[[], bool | None]:
    """Make a transport's word that changes from one question to the next; the last one stays."""
    left = list(words)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


# The transport's word


@pytest.mark.parametrize(
    ("words", "given_up_at"),
    [
        ((True,), 3.0),
        ((False, True), 3.5),
        ((False, False, False, False, True), 5.0),
    ],
    ids=["at once", "half a second later", "after a stall"],
)
async def test_word(limiter: AnyLimiter, clock: FakeClock, words: tuple[bool, ...], given_up_at: float) -> None:
    """It is asked at 3 s and every 0.5 s; a yes frees the slot a period later, whenever the answer comes."""
    began = clock.monotonic()
    permit = await limiter.acquire()
    permit.sent(answers(*words))
    await clock.advance(given_up_at + 0.1)
    assert repr(permit) == "<Permit lapsed>"
    await clock.advance(4.0)
    permit.arrived()  # says nothing new
    assert await free_at(limiter, clock) - began == pytest.approx(given_up_at + PERIOD + GUARD, abs=0.15)


async def test_stalled_line_holds_all(limiter: AnyLimiter, clock: FakeClock) -> None:
    """As long as nothing has arrived every slot is held, however long that takes; the lease is renewed meanwhile."""
    permits = [await limiter.acquire() for _ in range(2)]
    for permit in permits:
        permit.sent(lambda: False)
    waiter = asyncio.create_task(limiter.acquire())
    await clock.advance(100.0)
    assert not waiter.done()
    for permit in permits:
        permit.arrived()
    await clock.advance(PERIOD + 0.1)
    (await waiter).arrived()


@pytest.mark.parametrize("broken", [lambda: None, lambda: 1 / 0], ids=["cannot tell", "raises"])
async def test_word_that_is_none(limiter: AnyLimiter, clock: FakeClock, broken: Callable[[], bool | None]) -> None:
    """Where the transport cannot tell, another answer has to."""
    permit = await limiter.acquire()
    permit.sent(broken)
    await clock.advance(20.0)
    assert limiter.snapshot().used == 1
    other = await limiter.acquire()
    other.sent()
    other.arrived()
    assert repr(permit) == "<Permit lapsed>"


# Without its word


async def test_later_answer_is_proof(limiter: AnyLimiter, clock: FakeClock) -> None:
    """The cap applies once a request that was written later has been answered: then the line is alive."""
    began = clock.monotonic()
    slow = await limiter.acquire()
    slow.sent()
    await clock.advance(1.0)
    with await limiter.acquire() as quick:
        quick.sent()
    await clock.advance(1.9)
    assert repr(slow) == "<Permit sent>"
    await clock.advance(0.2)
    assert repr(slow) == "<Permit lapsed>"
    assert await free_at(limiter, clock) - began == pytest.approx(3.0 + PERIOD, abs=0.2)


async def test_earlier_answer_is_no_proof(limiter: AnyLimiter, clock: FakeClock) -> None:
    """An answer to what was written before says nothing of the line since."""
    early, slow = await limiter.acquire(), await limiter.acquire()
    early.sent()
    await clock.advance(0.1)
    slow.sent()
    await clock.advance(0.1)
    early.arrived()
    await clock.advance(30.0)
    assert repr(slow) == "<Permit sent>"
    assert limiter.snapshot().used == 1


async def test_proof_after_the_cap(limiter: AnyLimiter, clock: FakeClock) -> None:
    """The worked example: the line is back at 5 s, and the slot free a period after that."""
    began = clock.monotonic()
    slow = await limiter.acquire()
    slow.sent()
    await clock.advance(1.0)
    later = await limiter.acquire()
    later.sent()
    await clock.advance(4.0)
    assert repr(slow) == "<Permit sent>"
    later.arrived()
    assert repr(slow) == "<Permit lapsed>"
    assert await free_at(limiter, clock) - began == pytest.approx(5.0 + PERIOD + GUARD, abs=0.15)


@pytest.mark.parametrize(
    ("end", "tail"),
    [(Permit.arrived, 0.0), (Permit.lost, 1.0), (Permit.refund, None)],
    ids=["answer", "lost", "refund"],
)
async def test_late_answer_moves_the_stamp(
    limiter: AnyLimiter, clock: FakeClock, end: Callable[[Permit], None], tail: float | None
) -> None:
    """An answer that comes before the slot was taken again may be to a request that arrived just now."""
    began = clock.monotonic()
    slow = await limiter.acquire()
    slow.sent()
    await clock.advance(0.1)
    with await limiter.acquire() as quick:
        quick.sent()
    await clock.advance(7.9)
    end(slow)
    at = 3.0 if tail is None else 8.0 + tail
    assert await free_at(limiter, clock) - began == pytest.approx(at + PERIOD, abs=0.2)


async def test_late_answer_after_the_slot_was_taken_again(limiter: AnyLimiter, clock: FakeClock) -> None:
    """Then it changes nothing: neither the new holder's slot nor another."""
    slow = await limiter.acquire()
    slow.sent()
    with await limiter.acquire() as quick:
        await clock.advance(0.1)
        quick.sent()
    await clock.advance(15.0)
    again = [await limiter.acquire() for _ in range(2)]
    for permit in again:
        permit.arrived()
    await clock.advance(5.0)
    slow.arrived()
    await clock.advance(PERIOD - 4.9)
    assert limiter.snapshot().used == 0


async def test_upload_that_moves_on(limiter: AnyLimiter, clock: FakeClock) -> None:
    """Better evidence that comes later counts from then on."""
    uploads = [await limiter.acquire() for _ in range(2)]
    for permit in uploads:
        permit.sent()
    await clock.advance(4.0)
    waiter = asyncio.create_task(limiter.acquire())
    await clock.advance(0.1)
    uploads[0].sent(lambda: True)
    await clock.advance(0.1)
    assert repr(uploads[0]) == "<Permit lapsed>"
    assert repr(uploads[1]) == "<Permit sent>"
    await clock.advance(PERIOD)
    (await waiter).arrived()


async def test_uploads_do_not_starve_a_cancel(clock: FakeClock) -> None:
    """40 uploads of 20 s at once: a cancel and a poll wait for 13.5 s at most."""
    limiter = LocalLimiter(40, PERIOD, clock=clock)
    for _ in range(40):
        (await limiter.acquire()).sent(lambda: True)
    began = clock.monotonic()
    waiting = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
    await clock.advance(13.5)
    for task in waiting:
        (await task).arrived()
    assert clock.monotonic() - began <= 13.5


def test_sent_on_a_loop_that_is_gone(limiter: AnyLimiter) -> None:
    """It says nothing any more."""

    async def hold() -> Permit:
        return await limiter.acquire()

    permit = asyncio.run(hold())
    permit.sent(lambda: True)
    assert repr(permit) == "<Permit held>"
