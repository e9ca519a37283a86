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
from support.limiters import Crowd, most_in_any_period
from support.redis_server import RedisServer, servers
from support.waiting import eventually

BULK, NORMAL, INTERACTIVE = Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE

LIMIT = 4
GUARD = 0.002


@attrs.frozen
class Setting:
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
        """Let so much time pass; then something must hold. On a real clock, on a machine that may be busy, it may
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


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer | None]:
    """Run a server, if there is any."""
    found = servers()
    if not found:
        yield None
        return
    with RedisServer(next(iter(found.values()))) as running:
        yield running


def make_setting(kind: str, directory: Path, server: RedisServer | None) -> Setting:
    """Make the setting of this kind."""
    if kind != "redis":
        return Setting(kind, FakeClock(), 10.0, 0.01, directory, None)
    if server is None:
        pytest.skip("no Redis or Valkey server here")
    return Setting(kind, SYSTEM_CLOCK, 0.2, 0.02, directory, server)


@pytest.fixture(params=["local", "file", "redis"])
def setting(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer | None) -> Setting:
    """Make each setting."""
    return make_setting(request.param, tmp_path, server)


@pytest.fixture(params=["local", "file", pytest.param("redis", marks=pytest.mark.slow)])
def long_setting(request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer | None) -> Setting:
    """Make each setting, for a test that takes several real seconds on a real clock."""
    return make_setting(request.param, tmp_path, server)


# Exactness


async def test_closed_loop(setting: Setting) -> None:
    """Many at once, with answers that take their time: the limit is kept in any period, and used."""
    chance = random.Random(1)
    arrivals: list[float] = []
    rounds = 4

    async with setting.limiter() as limiter:

        async def request() -> None:
            permit = await limiter.acquire()
            permit.sent()
            await setting.clock.sleep(chance.random() * setting.period / 10)
            arrivals.append(setting.now())
            await setting.clock.sleep(chance.random() * setting.period / 10)
            permit.arrived()

        tasks = [asyncio.create_task(request()) for _ in range(rounds * LIMIT)]
        started = setting.now()
        await setting.periods((rounds - 1) * 1.25)
        for _ in range(10):
            if not all(task.done() for task in tasks):
                await setting.run(setting.period / 4)
        await asyncio.gather(*tasks)
    assert most_in_any_period(arrivals, setting.period) <= LIMIT
    assert max(arrivals) - started < rounds * setting.period * 1.3 + 5 * setting.slack


async def test_slot_is_free_a_period_after_its_answer(setting: Setting) -> None:
    """Not after it was sent: the request may have arrived right before its answer."""
    async with setting.limiter(1) as limiter:
        first = await limiter.acquire()
        await setting.run(setting.period / 4)
        first.arrived()
        answered = setting.now()
        await setting.run()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.periods(0.7)
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == ["next"], periods=0.4)
        assert crowd.times[0] - answered >= setting.period


async def test_dropped_permit_counts_as_arrived(setting: Setting) -> None:
    """A permit that is dropped unsettled gives its slot back a period later."""
    async with setting.limiter(1) as limiter:
        (await limiter.acquire()).__repr__()
        let_go = setting.now()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.periods(0.75)
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == ["next"], periods=0.5)
        assert crowd.times[0] - let_go >= setting.period


async def test_lost_request_may_still_arrive(setting: Setting) -> None:
    """A request without an answer is charged for a second more."""
    async with setting.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.sent()
        permit.lost()
        lost = setting.now()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.periods()
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == ["next"], seconds=1.0 + setting.period / 4)
        assert crowd.times[0] - lost >= 1.0 + setting.period


async def test_slow_answer_holds_its_slot_for_three_seconds(long_setting: Setting) -> None:
    """A slow call that has arrived does not starve the rest, and its answer comes too late to matter."""
    async with long_setting.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.sent(lambda: True)
        sent = long_setting.now()
        crowd = Crowd(limiter, long_setting.now)
        crowd.send("next")
        await long_setting.run(3.0 + long_setting.period * 0.9)
        long_setting.still(crowd, [])
        await long_setting.until(lambda: crowd.order == ["next"], seconds=0.25 + long_setting.period * 0.3)
        assert crowd.times[0] - sent >= 3.0 + long_setting.period
        permit.arrived()
        await long_setting.periods(1.1)
        assert limiter.snapshot().used == 0


async def test_unsent_permit_keeps_its_slot(long_setting: Setting) -> None:
    """A permit whose request has not left yet, for however long, keeps its slot."""
    async with long_setting.limiter(1) as limiter:
        permit = await limiter.acquire()
        crowd = Crowd(limiter, long_setting.now)
        crowd.send("next")
        await long_setting.run(4.0 + 1.5 * long_setting.period)
        long_setting.still(crowd, [])
        permit.arrived()
        await long_setting.until(lambda: crowd.order == ["next"], periods=1.1)


# Order


async def test_first_come_first_served(setting: Setting) -> None:
    """Waiters of one lane are granted in the order in which they came."""
    async with setting.limiter() as limiter:
        crowd = Crowd(limiter, setting.now)
        for name in range(3 * LIMIT):
            crowd.send(name)
        await setting.until(lambda: crowd.order == list(range(LIMIT)))
        await setting.until(lambda: crowd.order == list(range(3 * LIMIT)), periods=2.5)


async def test_higher_lanes_first(setting: Setting) -> None:
    """Interactive requests go before a batch, and the batch gets its share all the same."""
    async with setting.limiter() as limiter:
        crowd = Crowd(limiter, setting.now)
        for place in range(LIMIT):
            crowd.send(place)
        await setting.until(lambda: len(crowd.order) == LIMIT)
        for name, priority in (("bulk", BULK), ("normal", NORMAL), ("interactive", INTERACTIVE)):
            crowd.send(name, priority)
        await setting.until(lambda: len(crowd.order) == LIMIT + 3, periods=1.2)
        assert crowd.order[LIMIT:] == ["interactive", "normal", "bulk"]


async def test_lower_lane_gets_one_in_eight(setting: Setting) -> None:
    """A lane that others pass over is not starved."""
    async with setting.limiter(8) as limiter:
        crowd = Crowd(limiter, setting.now)
        for name in range(8):
            crowd.send(name)
        await setting.until(lambda: len(crowd.order) == 8)
        crowd.send("bulk", BULK)
        for _ in range(30):
            crowd.send("interactive", INTERACTIVE)
        await setting.until(lambda: len(crowd.order) >= 16, periods=1.2)
        assert crowd.order[8:16].count("bulk") == 1
        await crowd.end()


# Leaving


async def test_cancelled_waiters_leave_no_trace(setting: Setting) -> None:
    """A waiter that was cancelled takes no slot."""
    async with setting.limiter() as limiter:
        crowd = Crowd(limiter, setting.now)
        for name in range(LIMIT + 50):
            crowd.send(name)
        await setting.until(lambda: len(crowd.order) == LIMIT)
        for task in crowd.tasks[LIMIT:-1]:
            task.cancel()
        await setting.run()
        assert limiter.snapshot().waiting[NORMAL] == 1
        await setting.until(lambda: crowd.order == [*range(LIMIT), LIMIT + 49], periods=1.2)
        await crowd.end()
        assert limiter.snapshot().waiting == dict.fromkeys(Priority, 0)
        assert "0 waiting" in repr(limiter)


async def test_cancelled_when_granted(setting: Setting) -> None:
    """A waiter that is cancelled in the very moment of its grant gives the slot to the next."""
    async with setting.limiter(1) as limiter:
        held = await limiter.acquire()
        crowd = Crowd(limiter, setting.now)
        first = crowd.send("first")
        await setting.run()
        crowd.send("second")
        await setting.run()
        granted = asyncio.create_task(at_grant(limiter, first.cancel))
        await asyncio.sleep(0)
        held.refund()
        await granted
        await setting.until(lambda: crowd.order == ["second"], seconds=0.1)
        await crowd.end()


async def at_grant(limiter: Limiter, action: Callable[[], object]) -> None:
    """Act after the next grant, before the task that got it resumes."""
    waiting = limiter.snapshot().waiting[NORMAL]
    for _ in range(10_000_000):  # ended by the test's timeout, should there be none
        await asyncio.sleep(0)
        if limiter.snapshot().waiting[NORMAL] != waiting:
            break
    action()


async def test_refund(setting: Setting) -> None:
    """The slot of a request that never left is free at once, for the next waiter."""
    async with setting.limiter(1) as limiter:
        permit = await limiter.acquire()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.run()
        setting.still(crowd, [])
        permit.refund()
        await setting.until(lambda: crowd.order == ["next"])


async def test_settled_once(setting: Setting) -> None:
    """Settling a permit again is refused, and frees nothing."""
    async with setting.limiter(1) as limiter:
        permit = await limiter.acquire()
        permit.arrived()
        for settle in (permit.arrived, permit.lost, permit.refund):
            with pytest.raises(InvalidArgumentError, match="settled already"):
                settle()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.periods(0.5)
        setting.still(crowd, [])
        await crowd.end()


# Cooldown


async def test_cooldown(setting: Setting) -> None:
    """Nothing is granted while it lasts, to newcomers or waiters; it is only ever extended; then all goes on."""
    async with setting.limiter() as limiter:
        crowd = Crowd(limiter, setting.now)
        with await limiter.acquire():
            pass
        limiter.cool_down(3 * setting.period)
        limiter.cool_down(setting.period)
        began = setting.now()
        for name in range(LIMIT):
            crowd.send(name)
        await setting.run()
        assert limiter.snapshot().cooldown > setting.period
        await setting.periods(2.6)
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == list(range(LIMIT)), periods=0.6)
        assert crowd.times[0] - began >= 3 * setting.period
        await setting.run()
        assert limiter.snapshot().cooldown == 0


async def test_granted_before_the_gate_closed(setting: Setting) -> None:
    """A waiter that was granted, but did not go on yet, waits for the gate as well."""
    async with setting.limiter(1) as limiter:
        held = await limiter.acquire()
        crowd = Crowd(limiter, setting.now)
        crowd.send("next")
        await setting.run()
        granted = asyncio.create_task(at_grant(limiter, lambda: limiter.cool_down(setting.period)))
        await asyncio.sleep(0)
        held.refund()
        await granted
        await setting.periods(0.5)
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == ["next"], periods=0.7)


async def test_refused_go_first_in_order(setting: Setting) -> None:
    """Requests that the server refused come back to the head of their lane, in the order of their grants."""
    async with setting.limiter() as limiter:
        permits = [await limiter.acquire() for _ in range(LIMIT)]
        crowd = Crowd(limiter, setting.now)
        crowd.send("newcomer")
        await setting.run()
        order: list[Any] = []

        async def refused(name: int, permit: Permit) -> None:
            limiter.cool_down(setting.period)
            (await permit.requeue()).arrived()
            order.append(name)

        tasks = []
        for name, permit in reversed(list(enumerate(permits))):
            tasks.append(asyncio.create_task(refused(name, permit)))
            await setting.run()
        await setting.until(lambda: len(order) == LIMIT, periods=1.5)
        await asyncio.gather(*tasks)
        assert order == list(range(LIMIT))
        setting.still(crowd, [])
        await setting.until(lambda: crowd.order == ["newcomer"], periods=1.2)


# Patience


async def test_max_wait_refused_at_once(setting: Setting) -> None:
    """A wait that is certainly too long is refused at once, with how long it would be."""
    async with setting.limiter(1) as limiter:
        with await limiter.acquire():
            pass
        await setting.run()
        asked = setting.now()
        with pytest.raises(RateLimitWaitError) as caught:
            await limiter.acquire(max_wait=setting.period / 2)
        assert setting.now() - asked < setting.period / 4
        assert caught.value.allowed == setting.period / 2
        assert setting.period / 2 < caught.value.needed <= setting.period + GUARD


async def test_max_wait_refused_at_the_deadline(setting: Setting) -> None:
    """A waiter whose time is up is refused then, and those behind it go on."""
    async with setting.limiter(1) as limiter:
        held = await limiter.acquire()
        await setting.run()
        crowd = Crowd(limiter, setting.now)
        impatient = asyncio.create_task(limiter.acquire(max_wait=setting.period * 1.4))
        await setting.run()
        crowd.send("patient")
        await setting.until(impatient.done, periods=1.6)
        with pytest.raises(RateLimitWaitError):
            await impatient
        held.arrived()
        await setting.until(lambda: crowd.order == ["patient"], periods=1.2)


async def test_max_wait_suffices(setting: Setting) -> None:
    """A waiter that allows enough time is served."""
    async with setting.limiter(1) as limiter:
        (await limiter.acquire(max_wait=0.5)).arrived()
        await setting.run()
        crowd = Crowd(limiter, setting.now)
        crowd.send("patient", max_wait=2 * setting.period + 100 * setting.slack)
        await setting.until(lambda: crowd.order == ["patient"], periods=1.3)


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 7},
        {"priority": None},
        {"stage": []},
        {"max_wait": -1.0},
        {"max_wait": float("nan")},
        {"max_wait": "1"},
    ],
    ids=str,
)
async def test_bad_acquire(setting: Setting, options: dict[str, Any]) -> None:
    """An invalid argument is refused, and leaves no waiter."""
    async with setting.limiter() as limiter:
        with pytest.raises(InvalidArgumentError):
            await limiter.acquire(**options)
        assert limiter.snapshot().waiting == dict.fromkeys(Priority, 0)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), "1", True], ids=str)
async def test_bad_cooldown(setting: Setting, seconds: Any) -> None:
    """An invalid number is refused."""
    async with setting.limiter() as limiter:
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
async def test_bad_options(setting: Setting, options: dict[str, Any]) -> None:
    """An invalid option is refused when the limiter is made."""
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        async with setting.limiter(**options):
            pass


# State


async def test_snapshot(setting: Setting) -> None:
    """It tells what is used, who waits, and for how long a newcomer would."""
    async with setting.limiter() as limiter:
        shown = limiter.snapshot()
        assert (shown.limit, shown.period, shown.used, shown.available) == (LIMIT, setting.period, 0, LIMIT)
        assert (shown.cooldown, shown.pacing, shown.next_free_in) == (0.0, "burst", 0.0)
        crowd = Crowd(limiter, setting.now, settle=False)
        crowd.send("first")
        await setting.until(lambda: len(crowd.order) == 1)
        assert limiter.snapshot().used == 1
        for name in range(LIMIT + 2):
            crowd.send(name)
        crowd.send("bulk", BULK)
        await setting.until(lambda: len(crowd.order) == LIMIT)
        shown = limiter.snapshot()
        assert (shown.used, shown.available) == (LIMIT, 0)
        assert shown.waiting == {BULK: 1, NORMAL: 3, INTERACTIVE: 0}
        assert 0.0 < shown.next_free_in <= setting.period + GUARD
        limiter.cool_down(5 * setting.period)
        assert 4 * setting.period < limiter.snapshot().cooldown <= 5 * setting.period
        assert limiter.snapshot().next_free_in > 4 * setting.period
        for permit in crowd.permits:
            permit.arrived()
        await crowd.end()


async def test_smooth(setting: Setting) -> None:
    """Spread requests pass an edge that counts in buckets, wherever these begin."""
    async with setting.limiter(10, pacing="smooth") as limiter:
        assert limiter.snapshot().pacing == "smooth"
        crowd = Crowd(limiter, setting.now)
        for name in range(20):
            crowd.send(name)
        await setting.until(lambda: crowd.order == list(range(20)), periods=2.8)
    for phase in range(20):
        edge = make_edge("counter", 10, setting.period, setting.period, setting.period * phase / 20)
        assert all(map(edge.admit, crowd.times))


async def test_auto_turns_smooth(setting: Setting) -> None:
    """A 429 that the count cannot explain makes requests go one by one; an early one is explained by other programs."""
    async with setting.limiter() as limiter:
        with await limiter.acquire():
            pass
        limiter.cool_down(0.0)
        await setting.run()
        assert limiter.snapshot().pacing == "burst"
        await setting.periods()
        crowd = Crowd(limiter, setting.now)
        for name in range(LIMIT):
            crowd.send(name)
        await setting.until(lambda: len(crowd.order) == LIMIT, periods=1.1)
        limiter.cool_down(setting.period)
        await setting.run()
        assert limiter.snapshot().pacing == "smooth"


# Loops


async def test_second_living_loop(setting: Setting) -> None:
    """Two loops that are alive cannot share a limiter, and the error says so."""
    async with setting.limiter() as limiter:
        with await limiter.acquire():
            pass

        def other() -> None:
            with pytest.raises(ClientLoopError, match="another event loop that is still alive"):
                asyncio.run(limiter.acquire())

        await asyncio.get_running_loop().run_in_executor(None, other)
        assert limiter.serves(asyncio.get_running_loop())
        assert not limiter.serves(None)
