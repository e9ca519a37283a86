"""LocalLimiter: exact, fair, first come first served, and no trace of cancelled waiters."""

import asyncio
import itertools
import logging
import math
import os
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from comfycontrol_async.errors import ClientLoopError, InvalidArgumentError, RateLimitWaitError
from comfycontrol_async.limits import Limiter, LocalLimiter, Permit, Priority
from comfycontrol_async.testing import FakeClock
from support.limiters import Crowd, count_futures, most_in_any_period, step, turns

# Counts all that is alive, which takes a second.
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

BULK, NORMAL, INTERACTIVE = Priority.BULK, Priority.NORMAL, Priority.INTERACTIVE


@pytest.fixture
def clock() -> FakeClock:
    """Fire timers in time."""
    return FakeClock()


@pytest.fixture
def limiter(clock: FakeClock) -> LocalLimiter:
    """Make a limiter of four in ten seconds, whatever the server says of it."""
    return LocalLimiter(4, 10.0, clock=clock, pacing="burst")


@pytest.fixture
def crowd(limiter: LocalLimiter, clock: FakeClock) -> Crowd:
    """Send tasks to the limiter."""
    return Crowd(limiter, clock.monotonic)


# Construction


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": 2.5},
        {"limit": math.nan},
        {"limit": math.inf},
        {"limit": "40"},
        {"limit": True},
        {"limit": None},
        {"period": 0},
        {"period": -1.0},
        {"period": math.nan},
        {"period": math.inf},
        {"period": "10"},
        {"pacing": "fast"},
        {"pacing": None},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    """An invalid option is refused when the limiter is made."""
    with pytest.raises(InvalidArgumentError):
        LocalLimiter(**options)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, "10", None])
def test_bad_cooldown(limiter: LocalLimiter, seconds: Any) -> None:
    """A cooldown is a finite number of seconds."""
    with pytest.raises(InvalidArgumentError):
        limiter.cool_down(seconds)
    assert limiter.snapshot().cooldown == 0.0


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"priority": 7},
        {"priority": "high"},
        {"priority": None},
        {"max_wait": -1},
        {"max_wait": math.nan},
        {"max_wait": "1"},
    ],
    ids=str,
)
async def test_bad_acquire(limiter: LocalLimiter, crowd: Crowd, options: dict[str, Any], crowded: bool) -> None:
    """An invalid argument is refused, whether a slot is free or not, and leaves no trace."""
    (await limiter.acquire()).refund()
    for index in range(6 if crowded else 0):
        crowd.send(index)
    await turns()
    before = repr(limiter)
    with pytest.raises(InvalidArgumentError):
        await limiter.acquire(**options)
    assert repr(limiter) == before
    await crowd.end()


def test_is_a_limiter(limiter: LocalLimiter) -> None:
    """It is what the client asks for, can be made without a loop, and says what it is."""
    checked: Limiter = limiter
    assert repr(checked) == "<LocalLimiter 4 per 10 s, 0 waiting>"
    assert LocalLimiter(40.0).snapshot().limit == 40  # type: ignore[arg-type] # a whole number all the same


# Without waiting


async def test_does_not_suspend(limiter: LocalLimiter) -> None:
    """While there is room, acquiring does not give way to other tasks."""
    permits = [step(limiter.acquire(priority)) for priority in (NORMAL, BULK, INTERACTIVE, NORMAL)]
    assert limiter.snapshot().used == 4
    for permit in permits:
        permit.arrived()


async def test_no_timer_without_waiters(limiter: LocalLimiter, clock: FakeClock) -> None:
    """An unused limiter, and a used one, needs no timer."""
    for _ in range(4):
        (await limiter.acquire()).arrived()
    assert clock.timers == 0


# Exactness


PATTERNS: dict[str, list[tuple[float, int]]] = {
    "burst": [(0.0, 30)],
    "burst after idle": [(100.0, 30)],
    "edge": [(9.99, 4), (0.02, 4), (9.97, 4), (0.02, 4)],
    "trickle and burst": [(1.0, 1)] * 12 + [(0.0, 20)],
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("round_trip", [0.0, 0.5], ids=["at once", "half a second"])
@pytest.mark.parametrize("early", [0.0, 0.001], ids=["punctual", "early"])
async def test_most_in_any_period(early: float, pattern: str, round_trip: float) -> None:
    """Never more than the limit is sent in any period, in whatever pattern requests are wanted."""
    clock = FakeClock(early=early)  # timers of uvloop may fire a millisecond early
    limiter = LocalLimiter(4, 10.0, clock=clock)
    sent: list[float] = []

    async def request() -> None:
        permit = await limiter.acquire()
        sent.append(clock.monotonic())
        if round_trip:
            await clock.sleep(round_trip)
        permit.arrived()

    tasks = []
    for pause, count in PATTERNS[pattern]:
        await clock.advance(pause)
        tasks += [asyncio.create_task(request()) for _ in range(count)]
    await clock.advance(100.0)
    await asyncio.gather(*tasks)
    assert most_in_any_period(sent, 10.0) == 4
    assert clock.timers == 0


async def test_throughput(crowd: Crowd, clock: FakeClock) -> None:
    """A saturated limiter gives the limit in every period and a little: guard and slack."""
    for index in range(40):
        crowd.send(index)
    await clock.advance(9 * 10.01)
    assert crowd.order == list(range(40))


# Order


async def test_first_come_first_served(crowd: Crowd, clock: FakeClock) -> None:
    """Grants follow the order of coming, also across batches."""
    for index in range(30):
        crowd.send(index)
        if index % 7 == 0:
            await clock.advance(3.0)
    await clock.advance(100.0)
    assert crowd.order == list(range(30))


async def test_newcomer_does_not_overtake_granted(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A newcomer in the turn in which others were granted goes after them, though a slot is free."""
    order = []

    async def come(name: str) -> None:
        (await limiter.acquire()).arrived()
        order.append(name)

    permits = [await limiter.acquire() for _ in range(4)]
    parked = [asyncio.create_task(come(name)) for name in "ab"]
    await turns()
    for permit in permits:
        permit.refund()  # grants a and b, who go on in the next turn
    await come("c")
    assert order == ["a", "b", "c"]
    await asyncio.gather(*parked)


async def test_bot_passes_batch(clock: FakeClock) -> None:
    """An interactive request passes all queued batch requests in at most one window."""
    limiter = LocalLimiter(40, 10.0, clock=clock)
    crowd = Crowd(limiter, clock.monotonic)
    for index in range(1000):
        crowd.send(index, BULK)
    await clock.advance(5.0)
    started = clock.monotonic()
    await asyncio.gather(clock.advance(10.1), crowd.come("bot", INTERACTIVE))
    assert crowd.times[crowd.order.index("bot")] - started <= 10.01
    assert clock.timers == 1
    await crowd.end()


async def test_lower_lane_gets_its_share(clock: FakeClock) -> None:
    """Under saturation from above, a lower lane gets one grant in eight."""
    limiter = LocalLimiter(8, 10.0, clock=clock)
    crowd = Crowd(limiter, clock.monotonic)
    for index in range(100):
        crowd.send(("normal", index), NORMAL)
        crowd.send(("bulk", index), BULK)
    await clock.advance(100.0)
    got = [name for name, _ in crowd.order[8:]]
    assert got.count("bulk") == len(got) // 8
    await crowd.end()


# Leaving


@on_one_loop
async def test_cancelled_waiters_leave_no_trace(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """When all waiters are cancelled, nothing is left of them, not even the timer."""
    before = count_futures()
    for index in range(1000):
        crowd.send(index, Priority(index % 3))
    await turns()
    assert clock.timers == 1
    await crowd.end()
    assert clock.timers == 0
    assert limiter.snapshot().waiting == dict.fromkeys(Priority, 0)
    assert count_futures() - before < 20
    assert limiter.snapshot().used == 4


async def test_half_are_cancelled(crowd: Crowd, clock: FakeClock) -> None:
    """The others are served in order, none is stuck and no slot is lost."""
    tasks = [crowd.send(index) for index in range(40)]
    await turns()
    for task in tasks[4::2]:
        task.cancel()
    await clock.advance(60.0)
    assert crowd.order == [0, 1, 2, 3, *range(5, 40, 2)]
    assert all(task.done() for task in tasks)


async def test_cancelled_when_granted(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A waiter that is cancelled in the turn in which it was granted gives its slot to the next."""
    permits = [await limiter.acquire() for _ in range(4)]
    first, second = crowd.send("first"), crowd.send("second")
    await turns()
    permits.pop().refund()
    first.cancel()
    await turns()
    assert first.cancelled()
    assert second.done()
    assert crowd.order == ["second"]


async def test_closed_coroutine(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A waiting coroutine that is closed leaves no trace either."""
    permits = [await limiter.acquire() for _ in range(4)]
    waiting = limiter.acquire()
    waiting.send(None)
    assert limiter.snapshot().waiting[NORMAL] == 1
    waiting.close()
    assert limiter.snapshot().waiting[NORMAL] == 0
    permits[0].arrived()
    assert clock.timers == 0


def test_closed_between_two_runs(limiter: LocalLimiter) -> None:
    """The same when its loop stands still for the moment."""
    with asyncio.Runner() as runner:

        async def park() -> tuple[list[Permit], Coroutine[Any, Any, Permit]]:
            held = [await limiter.acquire() for _ in range(4)]
            waiting = limiter.acquire()
            waiting.send(None)
            return held, waiting

        held, waiting = runner.run(park())
        waiting.close()
        assert repr(limiter) == "<LocalLimiter 4 per 10 s, 0 waiting>"
        assert len(held) == 4


@on_one_loop
async def test_cancelled_deadlines_are_swept(limiter: LocalLimiter, crowd: Crowd) -> None:
    """Waiters with a long patience that are gone do not pile up."""
    before = count_futures()
    for index in range(4):
        await crowd.come(index)
    for _ in range(20):
        tasks = [crowd.send("impatient", NORMAL, 1e6) for _ in range(50)]
        await turns()
        for task in tasks:
            task.cancel()
        await turns()
    crowd.tasks.clear()  # their errors hold what they waited for
    del tasks, task
    assert count_futures() - before < 200


# Patience


async def test_refused_at_once(limiter: LocalLimiter, crowd: Crowd) -> None:
    """A wait that is certainly too long is refused at once."""
    for index in range(12):
        crowd.send(index)
    await turns()
    with pytest.raises(RateLimitWaitError) as caught:
        step(limiter.acquire(max_wait=15.0))
    assert caught.value.needed == pytest.approx(30.006)
    assert caught.value.allowed == 15.0
    assert limiter.snapshot().waiting[NORMAL] == 8
    await crowd.end()


async def test_refused_at_the_deadline(limiter: LocalLimiter, clock: FakeClock) -> None:
    """When it takes longer than it looked, the wait ends when it was to end."""
    held = [await limiter.acquire() for _ in range(4)]
    task = asyncio.create_task(limiter.acquire(max_wait=12.0))
    await clock.advance(11.9)
    assert not task.done()
    await clock.advance(0.2)
    with pytest.raises(RateLimitWaitError) as caught:
        await task
    assert caught.value.needed > 12.0
    assert clock.timers == 0
    assert all(repr(permit) == "<Permit held>" for permit in held)
    assert limiter.snapshot().waiting[NORMAL] == 0


async def test_patience_suffices(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A waiter that allows enough time gets its permit, with its deadline forgotten."""
    for index in range(4):
        await crowd.come(index)
    task = crowd.send("patient", NORMAL, 10.01)
    await clock.advance(10.1)
    assert task.done()
    assert clock.timers == 0
    step(limiter.acquire(max_wait=0.0)).refund()


async def test_gate_refuses_the_impatient(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A gate that closes for longer than someone may wait ends that wait at once."""
    for index in range(4):
        await crowd.come(index)
    impatient = asyncio.create_task(limiter.acquire(max_wait=12.0))
    patient = crowd.send("patient", NORMAL, 40.0)
    await turns()
    limiter.cool_down(30.0)
    await turns()
    with pytest.raises(RateLimitWaitError) as caught:
        await impatient
    assert caught.value.needed == pytest.approx(30.0)
    await clock.advance(30.1)
    assert patient.done()


# Gate


async def test_nothing_is_granted_while_closed(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """No slot is given before the gate opens; then the waiters go in order."""
    limiter.cool_down(10.0)
    for index in range(6):
        crowd.send(index)
    await clock.advance(9.999)
    assert crowd.order == []
    assert limiter.snapshot().cooldown == pytest.approx(0.001)
    limiter.cool_down(5.0)  # at least a period
    limiter.cool_down(0.0005)
    await clock.advance(9.99)
    assert crowd.order == []
    await clock.advance(0.02)
    assert crowd.order == [0, 1, 2, 3]
    assert limiter.snapshot().cooldown == 0.0
    await crowd.end()


async def test_gate_closes_after_the_grant(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A waiter that was granted in the turn in which the gate closes does not go, and keeps its place."""
    permits = [await limiter.acquire() for _ in range(4)]
    for name in "abc":
        crowd.send(name)
    await turns()
    for permit in permits[:2]:
        permit.refund()
    limiter.cool_down(10.0)
    await turns()
    assert crowd.order == []
    assert limiter.snapshot().used == 2
    await clock.advance(9.9)
    assert crowd.order == []
    await clock.advance(0.2)
    assert crowd.order == ["a", "b"]
    await crowd.end()


async def test_refused_go_first_and_in_order(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """Requests that the server refused come back to the head of their lane, in the order of their grants."""
    order: list[Any] = crowd.order
    permits = [await limiter.acquire() for _ in range(4)]
    crowd.send("newcomer")
    await turns()

    async def again(name: int) -> None:
        permit = await permits[name].requeue()
        order.append(name)
        permit.arrived()

    limiter.cool_down(10.0)
    tasks = [asyncio.create_task(again(name)) for name in (2, 0, 3, 1)]
    await clock.advance(10.0)
    assert order == []
    await clock.advance(0.01)
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*tasks)
    await clock.advance(11.0)
    assert order[4:] == ["newcomer"]


async def test_refused_again(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A request that is refused twice keeps its place before others that were refused once."""
    order = []
    permits = [await limiter.acquire() for _ in range(4)]
    for permit in permits[2:]:
        permit.refund()

    async def again(name: str, index: int) -> None:
        permits[index] = await permits[index].requeue()
        order.append(name)

    limiter.cool_down(10.0)
    first = asyncio.create_task(again("first", 0))
    await clock.advance(10.1)
    await first
    limiter.cool_down(10.0)
    tasks = [asyncio.create_task(again("second", 1)), asyncio.create_task(again("first", 0))]
    await clock.advance(10.1)
    await asyncio.gather(*tasks)
    assert order == ["first", "first", "second"]


async def test_requeue_with_patience(limiter: LocalLimiter, clock: FakeClock) -> None:
    """A refused request need not wait for longer than it may."""
    permit = await limiter.acquire()
    limiter.cool_down(10.0)
    with pytest.raises(RateLimitWaitError) as caught:
        await permit.requeue(max_wait=5.0)
    assert caught.value.needed == pytest.approx(10.0)
    assert limiter.snapshot().waiting[NORMAL] == 0
    task = asyncio.create_task(permit.requeue())
    await turns()
    task.cancel()
    await turns()
    assert clock.timers == 0


async def test_gate_is_logged(limiter: LocalLimiter, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """Closing and opening are logged once each."""
    caplog.set_level(logging.INFO, "comfycontrol_async.limits")
    for _ in range(3):
        limiter.cool_down(10.0)
    await clock.advance(10.0)
    (await limiter.acquire()).arrived()
    (await limiter.acquire()).arrived()
    assert [record.getMessage() for record in caplog.records] == [
        "the server refused a request: nothing is sent for 10.0 s",
        "the cooldown is over: requests are sent again",
    ]


# Pacing


async def test_auto_turns_smooth(clock: FakeClock) -> None:
    """A 429 that our own count cannot explain spreads the requests for an hour; more of one cooldown change nothing."""
    limiter = LocalLimiter(40, 10.0, clock=clock)
    crowd = Crowd(limiter, clock.monotonic)
    for index in range(41):
        crowd.send(index)
    await clock.advance(10.01)
    assert limiter.snapshot().pacing == "burst"
    limiter.cool_down(10.0)
    limiter.cool_down(10.0)
    assert limiter.snapshot().pacing == "smooth"
    for index in range(200):
        crowd.send(index)
    started = len(crowd.times)
    await clock.advance(60.0)
    times = crowd.times[started:]
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 0.2
    assert len(times) >= 50 * 3.75
    await crowd.end()
    await clock.advance(3600.0)
    assert limiter.snapshot().pacing == "burst"
    for _ in range(40):
        (await limiter.acquire()).arrived()


async def test_early_refusal_is_explained(clock: FakeClock) -> None:
    """As long as no more than the limit was sent in all, a 429 is explained: others have used the budget."""
    limiter = LocalLimiter(40, 10.0, clock=clock)
    for _ in range(40):
        (await limiter.acquire()).arrived()
    limiter.cool_down(10.0)
    assert limiter.snapshot().pacing == "burst"


async def test_smooth_estimates(clock: FakeClock) -> None:
    """While requests are spread, estimates count it in."""
    limiter = LocalLimiter(40, 10.0, clock=clock, pacing="smooth")
    crowd = Crowd(limiter, clock.monotonic)
    for index in range(50):
        crowd.send(index)
    await clock.advance(5.0)
    assert len(crowd.order) == 20
    assert limiter.snapshot().pacing == "smooth"
    assert limiter.snapshot().next_free_in == pytest.approx(30 * 10 / 38, abs=0.3)
    with pytest.raises(RateLimitWaitError):
        await limiter.acquire(max_wait=6.0)
    await crowd.end()


# Timers and what they cost


async def test_one_timer(crowd: Crowd, clock: FakeClock) -> None:
    """However many wait, with deadlines and in all lanes, there is one timer."""
    for index in range(300):
        crowd.send(index, Priority(index % 3), 1e6 if index % 2 else None)
    await turns()
    for _ in range(20):
        assert clock.timers == 1
        await clock.advance(3.0)
    await crowd.end()
    assert clock.timers == 0


async def test_timers_per_admission(clock: FakeClock) -> None:
    """Slots that come free together are granted together."""
    limiter = LocalLimiter(400, 10.0, clock=clock)
    crowd = Crowd(limiter, clock.monotonic)
    for index in range(1000):
        crowd.send(index)
    await clock.advance(20.1)
    assert crowd.order == list(range(1000))
    assert clock.fired <= 5


async def test_timer_moves_forward(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A timer for the hold cap is moved when an answer comes before: no waiter waits for longer than needed."""
    permits = [await limiter.acquire() for _ in range(4)]
    crowd.send("next")
    for permit in permits:
        permit.sent()
    await clock.advance(0.1)
    for permit in permits:
        permit.arrived()
    await clock.advance(10.01)
    assert crowd.order == ["next"]


async def test_lost_in_front(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """A lost request does not delay those that were answered after it."""
    permits = [await limiter.acquire() for _ in range(4)]
    for name in "abcd":
        crowd.send(name)
    await turns()
    permits[0].lost()
    await clock.advance(0.1)
    for permit in permits[1:]:
        permit.arrived()
    await clock.advance(10.01)
    assert crowd.order == ["a", "b", "c"]
    await clock.advance(1.0)
    assert crowd.order == ["a", "b", "c", "d"]


async def test_slow_calls_do_not_starve_the_rest(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """Slots of requests that were written and are not answered come free all the same."""
    permits = [await limiter.acquire() for _ in range(4)]
    crowd.send("next")
    await turns()
    for permit in permits:
        permit.sent(lambda: True)
    await clock.advance(13.01)
    assert crowd.order == ["next"]


# Snapshot


async def test_snapshot(limiter: LocalLimiter, crowd: Crowd, clock: FakeClock) -> None:
    """It shows the state of the moment."""
    await crowd.come(0)
    held = await limiter.acquire()
    shown = limiter.snapshot()
    assert (shown.limit, shown.period, shown.used, shown.available) == (4, 10.0, 2, 2)
    assert (shown.cooldown, shown.pacing, shown.next_free_in) == (0.0, "burst", 0.0)
    await crowd.come(1)
    await crowd.come(2)
    for priority, count in ((BULK, 3), (NORMAL, 2), (INTERACTIVE, 1)):
        for index in range(count):
            crowd.send(index, priority)
    await turns()
    shown = limiter.snapshot()
    assert shown.waiting == {BULK: 3, NORMAL: 2, INTERACTIVE: 1}
    assert shown.used + shown.available == 4
    assert shown.next_free_in == pytest.approx(10.002)
    limiter.cool_down(42.0)
    assert limiter.snapshot().cooldown == 42.0
    assert limiter.snapshot().next_free_in >= 42.0
    held.arrived()
    await crowd.end()


# Loops and processes


def test_second_run_keeps_the_log(clock: FakeClock) -> None:
    """A second `asyncio.run` knows what the first has spent, and charges what was in flight and may still arrive."""
    limiter = LocalLimiter(4, 10.0, clock=clock)

    async def first() -> list[Permit]:
        (await limiter.acquire()).arrived()
        (await limiter.acquire()).refund()
        held = [await limiter.acquire() for _ in range(3)]
        parked = asyncio.create_task(limiter.acquire())
        await turns()
        assert limiter.snapshot().waiting[NORMAL] == 1
        parked.cancel()
        held[0].sent()
        return held

    async def second() -> tuple[list[int], float]:
        crowd = Crowd(limiter, clock.monotonic)
        for index in range(6):
            crowd.send(index)
        await clock.advance(10.01)
        early = list(crowd.order)
        await clock.advance(1.01)
        assert crowd.order == [0, 1, 2, 3]
        await crowd.end()
        return early, crowd.times[1]

    held = asyncio.run(first())
    started = clock.monotonic()
    early, then = asyncio.run(second())
    assert early == [0]
    assert then - started >= 11.0
    assert len(held) == 3


def test_abandoned_waiters(clock: FakeClock) -> None:
    """Tasks that their loop left behind do not disturb the next loop."""
    limiter = LocalLimiter(1, 10.0, clock=clock)
    loop = asyncio.new_event_loop()

    async def park() -> list[Any]:
        held = [await limiter.acquire()]
        task = asyncio.create_task(limiter.acquire())
        await turns()
        return [*held, task]

    left = loop.run_until_complete(park())
    loop.close()

    async def second() -> None:
        await asyncio.gather(clock.advance(12.0), limiter.acquire())
        assert limiter.snapshot().used == 1

    asyncio.run(second())
    left[1]._log_destroy_pending = False


def test_second_living_loop_on_the_same_thread(limiter: LocalLimiter) -> None:
    """Two loops that are alive cannot share a limiter, and the error says so."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    first.run_until_complete(limiter.acquire()).__exit__  # noqa: B018 # dropped between two runs
    with pytest.raises(ClientLoopError, match="another event loop that is still alive"):
        second.run_until_complete(limiter.acquire())
    assert not limiter.serves(second)
    first.close()
    assert limiter.serves(second)
    second.run_until_complete(limiter.acquire()).__repr__()
    second.close()


async def test_second_living_loop_on_another_thread(limiter: LocalLimiter) -> None:
    """The same from another thread, though a slot is free."""
    (await limiter.acquire()).arrived()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(limiter.acquire())
        except ClientLoopError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert limiter.snapshot().used == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(clock: FakeClock) -> None:
    """A forked child starts with the window charged, and the parent goes on as before."""
    limiter = LocalLimiter(4, 10.0, clock=clock)
    asyncio.run(limiter.acquire()).__repr__()
    child = os.fork()
    if child == 0:
        shown = limiter.snapshot()
        os._exit(0 if (shown.used, shown.next_free_in > 9.0) == (4, True) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert limiter.snapshot().used == 1


# How long a cooldown lasts


@pytest.mark.parametrize(
    ("asked", "lasts", "warned"),
    [
        (0.0, 10.0, False),
        (3.0, 10.0, False),
        (25.5, 25.5, False),
        (600.0, 600.0, False),
        (600.5, 600.0, True),
        (86400.0, 600.0, True),
        (1e300, 600.0, True),
    ],
)
async def test_how_long_a_cooldown_lasts(
    limiter: LocalLimiter, caplog: pytest.LogCaptureFixture, asked: float, lasts: float, warned: bool
) -> None:
    """At least a period and at most 600 s, which is logged when the server asks for more."""
    limiter.cool_down(asked)
    assert limiter.snapshot().cooldown == pytest.approx(lasts)
    assert any("taken as 600 s" in record.getMessage() for record in caplog.records) is warned


async def test_long_gate_is_logged_once(
    limiter: LocalLimiter, crowd: Crowd, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """That requests wait behind a gate of more than 30 s is logged, once for each cooldown."""
    limiter.cool_down(20.0)
    for name in range(3):
        crowd.send(name)
    await turns()
    assert "requests wait" not in caplog.text
    limiter.cool_down(45.0)
    crowd.send("another")
    await turns()
    assert caplog.text.count("requests wait for 45 s") == 1
    await clock.advance(70.0)
    limiter.cool_down(100.0)
    assert caplog.text.count("requests wait") == 1
    crowd.send("later")
    await turns()
    assert caplog.text.count("requests wait") == 2
    await crowd.end()


async def test_one_deadline(limiter: LocalLimiter, clock: FakeClock) -> None:
    """`max_wait` is counted from the call, also when the gate closes between grant and resumption."""
    permits = [await limiter.acquire() for _ in range(4)]
    asked = clock.monotonic()
    task = asyncio.create_task(limiter.acquire(max_wait=12.0))
    await clock.advance(4.0)
    permits[0].refund()  # granted, but not resumed yet
    limiter.cool_down(10.0)
    await clock.advance(0.1)
    with pytest.raises(RateLimitWaitError) as caught:
        await task
    assert caught.value.needed == pytest.approx(14.0)
    assert caught.value.allowed == 12.0
    assert clock.monotonic() - asked == pytest.approx(4.1)
