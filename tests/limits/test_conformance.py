"""What every limiter does: one table of tests for LocalLimiter, FileLimiter and RedisLimiter.

The first two run on a fake clock, in the service's own seconds; the third asks a real server, whose clock is real, and
gets a shorter period.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits import Limiter, LocalLimiter, Permit, Priority
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.limits.redis import RedisLimiter
from comfycontrol_async.testing import FakeClock
from comfycontrol_async.testing.server._edge import make_edge
from support.limiters import most_in_any_period
from support.redis_server import RedisServer, eventually, servers

BULK, NORMAL, INTERACTIVE = Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE

LIMIT = 4
GUARD = 0.002


@attrs.frozen
class Stage:
    """A kind of limiter, and the time in which it lives."""

    kind: str
    clock: Clock
    period: float
    # How late something may come that has come due.
    slack: float
    directory: Path
    server: RedisServer | None

    @asynccontextmanager
    async def limiter(self, limit: Any = LIMIT, **options: Any) -> AsyncIterator[Any]:
        """Make a limiter with a budget of its own."""
        options = {"limit": limit, "period": self.period, "clock": self.clock, **options}
        if self.kind == "local":
            yield LocalLimiter(**options)
        elif self.kind == "file":
            yield FileLimiter(self.directory / uuid4().hex, **options)
        else:
            assert self.server is not None
            key = uuid4().hex
            redis_limiter = RedisLimiter(self.server.url, key=key, on_unavailable="raise", **options)
            self.server.settle(key, limit, self.period)
            yield redis_limiter
            await redis_limiter.aclose()

    def now(self) -> float:
        """Return the seconds of its clock."""
        return self.clock.monotonic()

    async def run(self, seconds: float = 0.0) -> None:
        """Let time pass, at least as much as it takes for what is ready to happen."""
        if isinstance(self.clock, FakeClock):
            await self.clock.advance(seconds + self.slack)
        else:
            await asyncio.sleep(seconds + self.slack)

    async def until(self, condition: Callable[[], bool], *, periods: float = 0.0, seconds: float = 0.0) -> None:
        """Let so much time pass; then something must hold. On a real clock, when nobody knows who else is busy, it may
        take longer.
        """
        if isinstance(self.clock, FakeClock):
            await self.run(periods * (self.period + GUARD) + seconds)
        else:
            await eventually(condition, periods * self.period + seconds + 10.0)
        assert condition()

    def still(self, crowd: "Crowd", order: list[Any]) -> None:
        """Look whether nothing has happened too early; on a real clock the times that are noted tell."""
        if isinstance(self.clock, FakeClock):
            assert crowd.order == order

    async def periods(self, count: float = 1.0) -> None:
        """Let this many periods pass, and the guard of each."""
        await self.run(count * (self.period + GUARD))


class Crowd:
    """Tasks that acquire, and note in which order and when they got a permit."""

    def __init__(self, stage: Stage, limiter: Limiter, *, settle: bool = True) -> None:
        self.stage = stage
        self.limiter = limiter
        self.settle = settle
        self.order: list[Any] = []
        self.times: list[float] = []
        self.permits: list[Permit] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _come(self, name: Any, priority: Priority, max_wait: float | None) -> None:
        permit = await self.limiter.acquire(priority, max_wait=max_wait)
        self.order.append(name)
        self.times.append(self.stage.now())
        if self.settle:
            permit.arrived()
        else:
            self.permits.append(permit)

    def send(self, name: Any, priority: Priority = NORMAL, max_wait: float | None = None) -> "asyncio.Task[None]":
        """Start a task that waits for one permit."""
        task = asyncio.create_task(self._come(name, priority, max_wait))
        self.tasks.append(task)
        return task

    async def end(self) -> None:
        """Cancel whoever still waits, and look whether anything went wrong."""
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer | None]:
    """Run a server, if there is any."""
    found = servers()
    if not found:
        yield None
        return
    with RedisServer(next(iter(found.values()))) as running:
        yield running


def set_stage(kind: str, directory: Path, server: RedisServer | None) -> Stage:
    """Set the stage of this kind."""
    if kind != "redis":
        return Stage(kind, FakeClock(), 10.0, 0.01, directory, None)
    if server is None:
        pytest.skip("no Redis or Valkey server here")
    return Stage(kind, SYSTEM_CLOCK, 0.2, 0.02, directory, server)


@pytest.fixture(params=["local", "file", "redis"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer | None) -> Stage:
    """Set each stage."""
    return set_stage(request.param, tmp_path, server)


@pytest.fixture(params=["local", "file", pytest.param("redis", marks=pytest.mark.slow)])
def long_stage(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer | None) -> Stage:
    """Set each stage for a play that takes several real seconds on a real clock."""
    return set_stage(request.param, tmp_path, server)


# Exactness


async def test_closed_loop(stage: Stage) -> None:
    """Many at once, with answers that take their time: the limit is kept in any period, and used."""
    chance = random.Random(1)
    arrivals: list[float] = []
    rounds = 4

    async with stage.limiter() as limiter:

        async def request() -> None:
            permit = await limiter.acquire()
            permit.sent()
            await stage.clock.sleep(chance.random() * stage.period / 10)
            arrivals.append(stage.now())
            await stage.clock.sleep(chance.random() * stage.period / 10)
            permit.arrived()

        tasks = [asyncio.create_task(request()) for _ in range(rounds * LIMIT)]
        started = stage.now()
        await stage.periods((rounds - 1) * 1.25)
        for _ in range(10):
            if not all(task.done() for task in tasks):
                await stage.run(stage.period / 4)
        await asyncio.gather(*tasks)
    assert most_in_any_period(arrivals, stage.period) <= LIMIT
    assert max(arrivals) - started < rounds * stage.period * 1.3 + 5 * stage.slack


async def test_slot_is_free_a_period_after_its_answer(stage: Stage) -> None:
    """Not after it was sent: the request may have arrived right before its answer."""
    async with stage.limiter(1) as limiter:
        first = await limiter.acquire()
        await stage.run(stage.period / 4)
        first.arrived()
        answered = stage.now()
        await stage.run()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.periods(0.7)
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == ["next"], periods=0.4)
        assert crowd.times[0] - answered >= stage.period


async def test_dropped_permit_counts_as_arrived(stage: Stage) -> None:
    """A permit that nobody settles gives its slot back a period after it was let go of."""
    async with stage.limiter(1) as limiter:
        (await limiter.acquire()).__repr__()
        let_go = stage.now()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.periods(0.75)
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == ["next"], periods=0.5)
        assert crowd.times[0] - let_go >= stage.period


async def test_lost_request_may_still_arrive(stage: Stage) -> None:
    """A request without an answer is charged for a second more."""
    async with stage.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.sent()
        permit.lost()
        lost = stage.now()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.periods()
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == ["next"], seconds=1.0 + stage.period / 4)
        assert crowd.times[0] - lost >= 1.0 + stage.period


async def test_slow_answer_holds_its_slot_for_three_seconds(long_stage: Stage) -> None:
    """A slow call does not starve the rest, and its answer comes too late to matter."""
    async with long_stage.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.sent()
        sent = long_stage.now()
        crowd = Crowd(long_stage, limiter)
        crowd.send("next")
        await long_stage.run(3.0 + long_stage.period * 0.9)
        long_stage.still(crowd, [])
        await long_stage.until(lambda: crowd.order == ["next"], seconds=0.25 + long_stage.period * 0.3)
        assert crowd.times[0] - sent >= 3.0 + long_stage.period
        permit.arrived()
        await long_stage.periods(1.1)
        assert limiter.snapshot().used == 0


async def test_unsent_permit_keeps_its_slot(long_stage: Stage) -> None:
    """A permit whose request has not left yet, for long as it may be, is nobody else's."""
    async with long_stage.limiter(1) as limiter:
        permit = await limiter.acquire()
        crowd = Crowd(long_stage, limiter)
        crowd.send("next")
        await long_stage.run(4.0 + 1.5 * long_stage.period)
        long_stage.still(crowd, [])
        permit.arrived()
        await long_stage.until(lambda: crowd.order == ["next"], periods=1.1)


# Order


async def test_first_come_first_served(stage: Stage) -> None:
    """Waiters of one lane are granted in the order in which they came."""
    async with stage.limiter() as limiter:
        crowd = Crowd(stage, limiter)
        for name in range(3 * LIMIT):
            crowd.send(name)
        await stage.until(lambda: crowd.order == list(range(LIMIT)))
        await stage.until(lambda: crowd.order == list(range(3 * LIMIT)), periods=2.5)


async def test_higher_lanes_first(stage: Stage) -> None:
    """Whoever sits and waits goes before a batch, and the batch gets its share all the same."""
    async with stage.limiter() as limiter:
        crowd = Crowd(stage, limiter)
        for place in range(LIMIT):
            crowd.send(place)
        await stage.until(lambda: len(crowd.order) == LIMIT)
        for name, priority in (("bulk", BULK), ("normal", NORMAL), ("interactive", INTERACTIVE)):
            crowd.send(name, priority)
        await stage.until(lambda: len(crowd.order) == LIMIT + 3, periods=1.2)
        assert crowd.order[LIMIT:] == ["interactive", "normal", "bulk"]


async def test_lower_lane_gets_one_in_eight(stage: Stage) -> None:
    """A lane that others pass over is not starved."""
    async with stage.limiter(8) as limiter:
        crowd = Crowd(stage, limiter)
        for name in range(8):
            crowd.send(name)
        await stage.until(lambda: len(crowd.order) == 8)
        crowd.send("bulk", BULK)
        for _ in range(30):
            crowd.send("interactive", INTERACTIVE)
        await stage.until(lambda: len(crowd.order) >= 16, periods=1.2)
        assert crowd.order[8:16].count("bulk") == 1
        await crowd.end()


# Leaving


async def test_cancelled_waiters_leave_no_trace(stage: Stage) -> None:
    """Whoever does not wait any more takes no slot."""
    async with stage.limiter() as limiter:
        crowd = Crowd(stage, limiter)
        for name in range(LIMIT + 50):
            crowd.send(name)
        await stage.until(lambda: len(crowd.order) == LIMIT)
        for task in crowd.tasks[LIMIT:-1]:
            task.cancel()
        await stage.run()
        assert limiter.snapshot().waiting[NORMAL] == 1
        await stage.until(lambda: crowd.order == [*range(LIMIT), LIMIT + 49], periods=1.2)
        await crowd.end()
        assert limiter.snapshot().waiting == dict.fromkeys(Priority, 0)
        assert "0 waiting" in repr(limiter)


async def test_cancelled_when_granted(stage: Stage) -> None:
    """A waiter that is cancelled in the very moment of its grant gives the slot to the next."""
    async with stage.limiter(1) as limiter:
        held = await limiter.acquire()
        crowd = Crowd(stage, limiter)
        first = crowd.send("first")
        await stage.run()
        crowd.send("second")
        await stage.run()
        at_grant(limiter, first.cancel)
        held.refund()
        await stage.until(lambda: crowd.order == ["second"], seconds=0.1)
        await crowd.end()


def at_grant(limiter: Any, action: Callable[[], object]) -> None:
    """Act right after the next grant, before whoever got it goes on, which cannot be done from outside."""
    inner = getattr(limiter, "_limiter", limiter)
    name = "_hand_out" if hasattr(inner, "_hand_out") else "_pump"
    grant = getattr(inner, name)
    waiter = inner._queue.lanes.lanes[NORMAL].queue[0]

    def grant_and_act(*args: Any) -> None:
        grant(*args)
        if waiter.done():
            setattr(inner, name, grant)
            action()

    setattr(inner, name, grant_and_act)


async def test_refund(stage: Stage) -> None:
    """The slot of a request that never left is free at once, for whoever is next."""
    async with stage.limiter(1) as limiter:
        permit = await limiter.acquire()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.run()
        stage.still(crowd, [])
        permit.refund()
        await stage.until(lambda: crowd.order == ["next"])


async def test_settled_once(stage: Stage) -> None:
    """Settling a permit again is refused, and frees nothing."""
    async with stage.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.arrived()
        for settle in (permit.arrived, permit.lost, permit.refund):
            with pytest.raises(InvalidArgumentError, match="settled already"):
                settle()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.periods(0.5)
        stage.still(crowd, [])
        await crowd.end()


# Cooldown


async def test_cooldown(stage: Stage) -> None:
    """Nothing is granted while it lasts, to newcomers or waiters; it is only ever extended; then all goes on."""
    async with stage.limiter() as limiter:
        crowd = Crowd(stage, limiter)
        with await limiter.acquire():
            pass
        limiter.cool_down(3 * stage.period)
        limiter.cool_down(stage.period)
        began = stage.now()
        for name in range(LIMIT):
            crowd.send(name)
        await stage.run()
        assert limiter.snapshot().cooldown > stage.period
        await stage.periods(2.6)
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == list(range(LIMIT)), periods=0.6)
        assert crowd.times[0] - began >= 3 * stage.period
        await stage.run()
        assert limiter.snapshot().cooldown == 0


async def test_granted_before_the_gate_closed(stage: Stage) -> None:
    """A waiter that was granted, but did not go on yet, waits for the gate as well."""
    async with stage.limiter(1) as limiter:
        held = await limiter.acquire()
        crowd = Crowd(stage, limiter)
        crowd.send("next")
        await stage.run()
        at_grant(limiter, lambda: limiter.cool_down(stage.period))
        held.refund()
        await stage.periods(0.5)
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == ["next"], periods=0.7)


async def test_refused_go_first_in_order(stage: Stage) -> None:
    """Requests that the server refused come back to the head of their lane, in the order of their grants."""
    async with stage.limiter() as limiter:
        permits = [await limiter.acquire() for _ in range(LIMIT)]
        crowd = Crowd(stage, limiter)
        crowd.send("newcomer")
        await stage.run()
        order: list[Any] = []

        async def refused(name: int, permit: Permit) -> None:
            limiter.cool_down(stage.period)
            (await permit.requeue()).arrived()
            order.append(name)

        tasks = []
        for name, permit in reversed(list(enumerate(permits))):
            tasks.append(asyncio.create_task(refused(name, permit)))
            await stage.run()
        await stage.until(lambda: len(order) == LIMIT, periods=1.5)
        await asyncio.gather(*tasks)
        assert order == list(range(LIMIT))
        stage.still(crowd, [])
        await stage.until(lambda: crowd.order == ["newcomer"], periods=1.2)


# Patience


async def test_max_wait_refused_at_once(stage: Stage) -> None:
    """Whoever will not wait for so long is told at once how long it would be."""
    async with stage.limiter(1) as limiter:
        with await limiter.acquire():
            pass
        await stage.run()
        asked = stage.now()
        with pytest.raises(RateLimitWaitError) as caught:
            await limiter.acquire(max_wait=stage.period / 2)
        assert stage.now() - asked < stage.period / 4
        assert caught.value.allowed == stage.period / 2
        assert stage.period / 2 < caught.value.needed <= stage.period + GUARD


async def test_max_wait_refused_at_the_deadline(stage: Stage) -> None:
    """A waiter whose time is up is refused then, and those behind it go on."""
    async with stage.limiter(1) as limiter:
        held = await limiter.acquire()
        await stage.run()
        crowd = Crowd(stage, limiter)
        impatient = asyncio.create_task(limiter.acquire(max_wait=stage.period * 1.4))
        await stage.run()
        crowd.send("patient")
        await stage.until(impatient.done, periods=1.6)
        with pytest.raises(RateLimitWaitError):
            await impatient
        held.arrived()
        await stage.until(lambda: crowd.order == ["patient"], periods=1.2)


async def test_max_wait_suffices(stage: Stage) -> None:
    """Whoever is patient enough is served."""
    async with stage.limiter(1) as limiter:
        assert isinstance(await limiter.acquire(max_wait=0.5), Permit)
        await stage.run()
        crowd = Crowd(stage, limiter)
        crowd.send("patient", max_wait=2 * stage.period + 100 * stage.slack)
        await stage.until(lambda: crowd.order == ["patient"], periods=1.3)


@pytest.mark.parametrize(
    "options",
    [{"priority": 7}, {"priority": None}, {"max_wait": -1.0}, {"max_wait": float("nan")}, {"max_wait": "1"}],
    ids=str,
)
async def test_bad_acquire(stage: Stage, options: dict[str, Any]) -> None:
    """What makes no sense is refused, and nobody waits afterwards."""
    async with stage.limiter() as limiter:
        with pytest.raises(InvalidArgumentError):
            await limiter.acquire(**options)
        assert limiter.snapshot().waiting == dict.fromkeys(Priority, 0)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), "1", True], ids=str)
async def test_bad_cooldown(stage: Stage, seconds: Any) -> None:
    """What makes no sense is refused."""
    async with stage.limiter() as limiter:
        with pytest.raises(InvalidArgumentError, match="cooldown"):
            limiter.cool_down(seconds)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"limit": 2.5},
        {"limit": "40"},
        {"limit": True},
        {"period": 0},
        {"period": float("inf")},
        {"pacing": "fast"},
    ],
    ids=str,
)
async def test_bad_options(stage: Stage, options: dict[str, Any]) -> None:
    """What makes no sense is refused when the limiter is made."""
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        async with stage.limiter(**options):
            pass


# State


async def test_snapshot(stage: Stage) -> None:
    """It tells what is used, who waits, and for how long a newcomer would."""
    async with stage.limiter() as limiter:
        shown = limiter.snapshot()
        assert (shown.limit, shown.period, shown.used, shown.available) == (LIMIT, stage.period, 0, LIMIT)
        assert (shown.cooldown, shown.pacing, shown.next_free_in) == (0.0, "burst", 0.0)
        crowd = Crowd(stage, limiter, settle=False)
        crowd.send("first")
        await stage.until(lambda: len(crowd.order) == 1)
        assert limiter.snapshot().used == 1
        for name in range(LIMIT + 2):
            crowd.send(name)
        crowd.send("bulk", BULK)
        await stage.until(lambda: len(crowd.order) == LIMIT)
        shown = limiter.snapshot()
        assert (shown.used, shown.available) == (LIMIT, 0)
        assert shown.waiting == {BULK: 1, NORMAL: 3, INTERACTIVE: 0}
        assert 0.0 < shown.next_free_in <= stage.period + GUARD
        limiter.cool_down(5 * stage.period)
        assert 4 * stage.period < limiter.snapshot().cooldown <= 5 * stage.period
        assert limiter.snapshot().next_free_in > 4 * stage.period
        for permit in crowd.permits:
            permit.arrived()
        await crowd.end()


async def test_smooth(stage: Stage) -> None:
    """Spread requests pass an edge that counts in buckets, wherever these begin."""
    async with stage.limiter(10, pacing="smooth") as limiter:
        assert limiter.snapshot().pacing == "smooth"
        crowd = Crowd(stage, limiter)
        for name in range(20):
            crowd.send(name)
        await stage.until(lambda: crowd.order == list(range(20)), periods=2.8)
    for phase in range(20):
        edge = make_edge("counter", 10, stage.period, stage.period, stage.period * phase / 20)
        assert all(map(edge.admit, crowd.times))


async def test_auto_turns_smooth(stage: Stage) -> None:
    """A 429 that the count cannot explain makes requests go one by one; an early one is somebody else's doing."""
    async with stage.limiter() as limiter:
        with await limiter.acquire():
            pass
        limiter.cool_down(0.0)
        await stage.run()
        assert limiter.snapshot().pacing == "burst"
        crowd = Crowd(stage, limiter)
        for name in range(LIMIT):
            crowd.send(name)
        await stage.until(lambda: len(crowd.order) == LIMIT, periods=1.1)
        limiter.cool_down(stage.period)
        await stage.run()
        assert limiter.snapshot().pacing == "smooth"


# Loops


async def test_second_living_loop(stage: Stage) -> None:
    """Two loops that are alive cannot share a limiter, and the error says so."""
    async with stage.limiter() as limiter:
        with await limiter.acquire():
            pass

        def other() -> None:
            with pytest.raises(ClientLoopError, match="another event loop that is still alive"):
                asyncio.run(limiter.acquire())

        await asyncio.get_running_loop().run_in_executor(None, other)
        assert limiter.serves(asyncio.get_running_loop())
        assert not limiter.serves(None)
