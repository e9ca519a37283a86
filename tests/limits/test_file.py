"""FileLimiter: one budget for every process of a machine, and files that are not to be trusted.

Limiters with one path stand for processes here: each opens the file for itself, and knows nothing of the others.
"""

import asyncio
import fcntl
import logging
import os
import random
import resource
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async.errors import ConfigurationError, RateLimitWaitError
from comfycontrol_async.limits import Permit, Priority
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import FakeClock
from support.limiters import Process, ProcessClock, most_in_any_period, turns

LIMIT, PERIOD = 8, 10.0
LEASE = 3.25
GUARD = 0.002


# Long simulations: what may differ between event loops is in the conformance table.
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture
def clock() -> FakeClock:
    """Fire timers in time."""
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a file in a directory that is not there yet."""
    return tmp_path / "new" / "slots"


class FileProcess(Process):
    """A process with a FileLimiter and a clock of its own, which can be stopped."""

    def __init__(self, path: Path, clock: FakeClock, width: int, round_trip: Callable[[], float]) -> None:
        self.own_clock = ProcessClock(clock)
        limiter = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=self.own_clock)
        super().__init__(limiter, clock, round_trip, width)


# Sharing


@on_one_loop
@pytest.mark.parametrize("seed", range(2))
async def test_shared_budget(path: Path, clock: FakeClock, seed: int) -> None:
    """Several saturated processes keep the limit together, use all of it, and get the same, in any order of coming."""
    chance = random.Random(seed)
    processes = []
    for width in (16, 3, 16, 6):
        processes.append(FileProcess(path, clock, width, lambda: chance.uniform(0.02, 0.4)))
        await clock.advance(chance.choice([0.0, 0.1]))
    await clock.advance(60.0)
    sent = [moment for process in processes for moment in process.sent]
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    assert len(sent) >= 0.95 * LIMIT * 60 / (PERIOD + 0.21)
    counts = [len(process.sent) for process in processes]
    assert sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts)) >= 0.95
    for process in processes:
        await process.end()


@on_one_loop
async def test_modest_process_gets_what_it_wants(path: Path, clock: FakeClock) -> None:
    """A process that wants less than its share does not wait behind those that want all."""
    greedy = [FileProcess(path, clock, 6, lambda: 0.1) for _ in range(3)]
    await clock.advance(15.0)
    waits = []
    modest = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=clock)

    async def now_and_then() -> None:
        for _ in range(3):
            asked = clock.monotonic()
            permit = await modest.acquire()
            waits.append(clock.monotonic() - asked)
            permit.arrived()
            await clock.sleep(8.0)

    task = asyncio.create_task(now_and_then())
    await clock.advance(60.0)
    await task
    assert max(waits) <= PERIOD + 0.2
    for process in greedy:
        await process.end()


@on_one_loop
async def test_no_herd(path: Path, clock: FakeClock) -> None:
    """A process that waits sleeps until it is its turn: all of them together wake about once for each slot."""
    processes = [FileProcess(path, clock, 4, lambda: 0.1) for _ in range(8)]
    await clock.advance(5.0)
    before = sum(len(process.sent) for process in processes)
    woken = sum(process.own_clock.fired for process in processes)
    await clock.advance(30.0)
    granted = sum(len(process.sent) for process in processes) - before
    woken = sum(process.own_clock.fired for process in processes) - woken
    assert granted >= 3 * LIMIT - 1
    assert woken <= 3 * granted
    for process in processes:
        await process.end()


@on_one_loop
@pytest.mark.parametrize("deaths", [1, 3])
async def test_dead_rivals_delay_the_others_by_a_moment(path: Path, clock: FakeClock, deaths: int) -> None:
    """The turns of processes that were killed while they waited go to the others, 0.1 s later for each at the most."""
    dead = [FileProcess(path, clock, 20, lambda: 0.1) for _ in range(deaths)]
    await clock.advance(0.2)
    alive = FileProcess(path, clock, 20, lambda: 0.1)
    await clock.advance(0.2)
    for process in dead:
        process.own_clock.stop()
    began = clock.monotonic()
    await clock.advance(30.0)
    sent = [moment for moment in alive.sent if moment > began]
    taken_at = 0.1  # by the dead, which had all slots
    assert sent[LIMIT - 1] - began <= PERIOD + GUARD + taken_at + 0.1 * deaths
    assert len(sent) >= 2 * LIMIT
    await alive.end()
    for process in dead:
        await process.end()


@on_one_loop
async def test_cooldown_reaches_sleepers(path: Path, clock: FakeClock) -> None:
    """A 429 that one process got holds all of them, though they slept when it came."""
    processes = [FileProcess(path, clock, 10, lambda: 0.1) for _ in range(3)]
    await clock.advance(25.0)
    processes[0].limiter.cool_down(30.0)
    closed = clock.monotonic()
    await clock.advance(40.0)
    sent = sorted(moment for process in processes for moment in process.sent if moment > closed + 0.1)
    assert sent
    assert min(sent) >= closed + 30.0
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    newcomer = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=clock)
    newcomer.cool_down(5.0)
    assert newcomer.snapshot().cooldown > 5.0
    with pytest.raises(RateLimitWaitError):
        await processes[1].limiter.acquire(max_wait=3.0)
    for process in processes:
        await process.end()


async def test_waiter_refused_by_anothers_cooldown(path: Path, clock: FakeClock) -> None:
    """A waiter whose patience ends within a cooldown that another process began is refused at its deadline."""
    first, second = (FileLimiter(path, limit=1, period=PERIOD, clock=clock) for _ in range(2))
    (await first.acquire()).arrived()
    task = asyncio.create_task(second.acquire(max_wait=12.0))
    await turns()
    first.cool_down(60.0)
    await clock.advance(12.1)
    with pytest.raises(RateLimitWaitError) as caught:
        await task
    assert caught.value.needed == pytest.approx(60.0, abs=0.1)
    assert caught.value.allowed == 12.0


@on_one_loop
async def test_smooth_together(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A 429 that the common count cannot explain makes all processes go one by one."""
    processes = [FileProcess(path, clock, 20, lambda: 0.01) for _ in range(2)]
    await clock.advance(15.0)
    with caplog.at_level(logging.WARNING):
        processes[0].limiter.cool_down(PERIOD)
    assert "spread from now on" in caplog.text
    closed = clock.monotonic()
    await clock.advance(40.0)
    assert processes[1].limiter.snapshot().pacing == "smooth"
    sent = sorted(moment for process in processes for moment in process.sent if moment > closed + 1.0)
    assert min(later - earlier for earlier, later in pairwise(sent)) > PERIOD / LIMIT
    assert len(sent) >= 0.9 * (LIMIT - 2) * 3
    counts = [sum(moment > closed + 1.0 for moment in process.sent) for process in processes]
    assert max(counts) - min(counts) <= 2
    for process in processes:
        await process.end()


async def test_second_program_knows_the_first(path: Path, clock: FakeClock) -> None:
    """A program that starts right after another knows what that has spent."""
    first = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=clock)
    for _ in range(LIMIT - 1):
        (await first.acquire()).arrived()
    second = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=clock)
    assert second.snapshot().used == LIMIT - 1
    (await second.acquire()).arrived()
    assert second.snapshot().next_free_in == pytest.approx(PERIOD + GUARD)


# Processes that die or stand still


async def test_killed_with_slots_in_flight(path: Path, clock: FakeClock) -> None:
    """The slots of a process that was killed come back by themselves: a lease and a period after they were taken."""
    own_clock = ProcessClock(clock)
    dead = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=own_clock)
    held = [await dead.acquire() for _ in range(LIMIT)]
    for permit in held[:4]:
        permit.sent()
    own_clock.stop()
    alive = FileLimiter(path, limit=LIMIT, period=PERIOD, clock=clock)
    began = clock.monotonic()
    came: list[float] = []

    async def want() -> None:
        (await alive.acquire()).arrived()
        came.append(clock.monotonic() - began)

    tasks = [asyncio.create_task(want()) for _ in range(LIMIT)]
    await clock.advance(3.0 + PERIOD)
    assert came == []
    await clock.advance(0.3)
    assert len(came) == LIMIT
    await asyncio.gather(*tasks)


async def test_lease_is_extended_while_it_is_needed(path: Path, clock: FakeClock) -> None:
    """A permit that waits for its connection keeps its slot."""
    first, second = (FileLimiter(path, limit=1, period=PERIOD, clock=clock) for _ in range(2))
    permit = await first.acquire()
    task = asyncio.create_task(second.acquire())
    await clock.advance(60.0)
    assert not task.done()
    permit.arrived()
    await clock.advance(PERIOD + 3.0)
    assert task.done()
    (await task).arrived()


async def test_answer_after_a_standstill(path: Path, clock: FakeClock) -> None:
    """A process that stood still for so long that its slots went to others charges what it finds out too late."""
    own_clock = ProcessClock(clock)
    slow = FileLimiter(path, limit=2, period=PERIOD, clock=own_clock)
    other = FileLimiter(path, limit=2, period=PERIOD, clock=clock)
    held = [await slow.acquire() for _ in range(2)]
    own_clock.stop()
    await clock.advance(LEASE + 1.0)
    held[0].arrived()  # still its own: no other process had taken the slot
    assert other.snapshot().next_free_in == pytest.approx(PERIOD + GUARD - 1.0, abs=0.01)
    await clock.advance(PERIOD - 0.9)
    permit = await other.acquire()
    own_clock.resume()  # its leases are renewed too late: another has the slot
    assert other.snapshot().used == 2
    held[1].arrived()
    assert repr(permit) == "<Permit held>"
    permit.arrived()
    assert other.snapshot().used == 2


@pytest.fixture
def stopped(path: Path) -> Iterator[Callable[[], None]]:
    """Lock the file when called, as a process does that is stopped in the middle of a step."""
    files: list[int] = []

    def lock() -> None:
        files.append(os.open(path, os.O_RDWR))
        fcntl.flock(files[-1], fcntl.LOCK_EX)

    yield lock
    for file in files:
        os.close(file)


@on_one_loop
async def test_lock_of_a_stopped_process(path: Path, clock: FakeClock, stopped: Callable[[], None]) -> None:
    """While a process that was stopped has the lock, the others wait without blocking for long."""
    limiter = FileLimiter(path, limit=2, period=PERIOD, clock=clock)
    (await limiter.acquire()).arrived()
    held = await limiter.acquire()
    stopped()
    task = asyncio.create_task(limiter.acquire())
    await clock.advance(0.2)
    assert not task.done()
    newcomer = FileLimiter(path, limit=2, period=PERIOD, clock=clock)
    second = asyncio.create_task(newcomer.acquire())
    await clock.advance(0.1)
    assert newcomer.snapshot().used == 2
    held.arrived()  # needs no lock
    limiter.cool_down(1.0)
    assert limiter.snapshot().cooldown == PERIOD
    for left in (task, second):
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)


@on_one_loop
async def test_lock_that_is_never_given_back(
    path: Path, clock: FakeClock, stopped: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The file is made again with the window charged, and within a period of that all go on, in the same file."""
    limiters = [FileLimiter(path, limit=2, period=PERIOD, clock=clock) for _ in range(2)]
    for limiter in limiters:
        (await limiter.acquire()).arrived()
    await clock.advance(2 * PERIOD)
    stopped()
    began = clock.monotonic()
    sent: list[float] = []

    async def want(limiter: FileLimiter) -> None:
        for _ in range(3):
            (await limiter.acquire()).arrived()
            sent.append(clock.monotonic())

    tasks = [asyncio.create_task(want(limiter)) for limiter in limiters]
    await clock.advance(5 * PERIOD)
    await asyncio.gather(*tasks)
    assert PERIOD <= sent[0] - began <= PERIOD + 0.2
    assert most_in_any_period(sent, PERIOD) == 2
    assert "stays locked" in caplog.text


def size_of(path: Path) -> int:
    """Return the size of a file."""
    return path.stat().st_size


@on_one_loop
async def test_many_members(path: Path, clock: FakeClock) -> None:
    """More processes than there are records wait in vain for a turn, but get what is left over; records are reused."""
    processes = [FileProcess(path, clock, LIMIT, lambda: 0.1)]
    await clock.advance(0.2)
    # The file ends with a record of 4 numbers for each process that waits, after 16 numbers and 3 for each slot.
    size = size_of(path)
    records = (size // 8 - 16 - 3 * LIMIT) // 4
    processes += [FileProcess(path, clock, 1, lambda: 0.1) for _ in range(records)]
    await clock.advance(0.2)
    newcomers = [FileProcess(path, clock, 20, lambda: 0.1) for _ in range(2)]
    await clock.advance(PERIOD + 1.0)
    assert sum(len(process.sent) for process in newcomers) < LIMIT
    assert size_of(path) == size
    # All that have a record are killed: their turns are left over, and then their records.
    for process in processes:
        process.own_clock.stop()
    began = clock.monotonic()
    await clock.advance(6 * PERIOD)
    sent = [moment for process in (*processes, *newcomers) for moment in process.sent]
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    assert sum(moment > began for moment in sent) >= 4 * LIMIT
    assert abs(len(newcomers[0].sent) - len(newcomers[1].sent)) <= 3
    for process in (*processes, *newcomers):
        await process.end()


# Loops and processes


def test_second_run(path: Path, clock: FakeClock) -> None:
    """A second `asyncio.run` knows what the first has spent, and charges what was in flight and may still arrive."""
    limiter = FileLimiter(path, limit=4, period=PERIOD, clock=clock)

    async def first() -> list[Permit]:
        (await limiter.acquire()).arrived()
        return [await limiter.acquire() for _ in range(2)]

    async def second() -> None:
        (await limiter.acquire()).arrived()
        assert limiter.snapshot().used == 4
        await clock.advance(PERIOD + 0.1)
        assert limiter.snapshot().used == 2
        await clock.advance(1.0)
        assert limiter.snapshot().used == 0

    held = asyncio.run(first())
    asyncio.run(second())
    assert len(held) == 2


def test_closed_between_two_runs(path: Path, clock: FakeClock) -> None:
    """A waiting coroutine that is closed while its loop stands still leaves no trace."""
    limiter = FileLimiter(path, limit=4, period=PERIOD, clock=clock)
    with asyncio.Runner() as runner:

        async def park() -> tuple[list[Permit], Coroutine[Any, Any, Permit]]:
            held = [await limiter.acquire() for _ in range(4)]
            waiting = limiter.acquire()
            waiting.send(None)
            return held, waiting

        held, waiting = runner.run(park())
        waiting.close()
        assert repr(limiter) == f"<FileLimiter 4 per {PERIOD:g} s, 0 waiting>"
        assert len(held) == 4


def test_closed_after_its_loop(path: Path, clock: FakeClock) -> None:
    """One that outlived its loop is not counted out of the queue of the next."""
    limiter = FileLimiter(path, limit=1, period=PERIOD, clock=clock)

    async def park() -> tuple[Permit, Coroutine[Any, Any, Permit]]:
        permit = await limiter.acquire()
        waiting = limiter.acquire()
        waiting.send(None)
        return permit, waiting

    async def second(old: Coroutine[Any, Any, Permit]) -> None:
        waiting = limiter.acquire()
        waiting.send(None)
        old.close()
        assert limiter.snapshot().waiting[Priority.NORMAL] == 1
        waiting.close()
        assert "0 waiting" in repr(limiter)

    permit, old = asyncio.run(park())
    asyncio.run(second(old))
    del permit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(path: Path, clock: FakeClock) -> None:
    """A forked child shares the budget, opens the file for itself, and leaves the parent's permits alone."""
    limiter = FileLimiter(path, limit=4, period=PERIOD, clock=clock)

    async def parent() -> int:
        permit = await limiter.acquire()
        child = os.fork()
        if child == 0:
            del permit
            os._exit(_child(limiter))
        status = _status(child)
        assert limiter.snapshot().used == 3
        permit.refund()
        assert limiter.snapshot().used == 2
        return status

    assert asyncio.run(parent()) == 0


def _status(child: int) -> int:
    return os.waitpid(child, 0)[1]


def _child(limiter: FileLimiter) -> int:
    async def use() -> int:
        for _ in range(2):
            (await limiter.acquire()).arrived()
        return limiter.snapshot().used

    asyncio._set_running_loop(None)
    try:
        return 0 if asyncio.run(use()) == 3 else 1
    except BaseException:
        return 2


# A disk that fails


@contextmanager
def full_disk() -> Iterator[None]:
    """Let the system refuse whatever would be written to a file, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_disk_that_fails(path: Path, clock: FakeClock) -> None:
    """An error of the system is one of ours for those who acquire, and none for those who settle."""
    limiter = FileLimiter(path, limit=4, period=PERIOD, clock=clock)
    held = [await limiter.acquire() for _ in range(2)]
    with full_disk():
        with pytest.raises(ConfigurationError, match="cannot be used: File too large"):
            await limiter.acquire()
        held[0].arrived()
        held[1].refund()
        limiter.cool_down(5.0)
    await clock.advance(PERIOD + LEASE + 0.1)
    for _ in range(4):
        (await limiter.acquire()).arrived()
