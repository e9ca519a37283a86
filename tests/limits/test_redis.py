"""RedisLimiter: one budget for every machine behind an address, against a real server that is killed, too."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio

import comfycontrol_async
from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InvalidArgumentError,
    RateLimitWaitError,
)
from comfycontrol_async.limits import Limiter, Permit
from comfycontrol_async.limits.redis import RedisLimiter
from support.limiters import Process, ProcessClock, most_in_any_period
from support.redis_server import RedisServer, servers
from support.waiting import eventually

pytestmark = pytest.mark.skipif(not servers(), reason="no Redis or Valkey server here")

# What may differ between event loops is in the conformance table.
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

LIMIT, PERIOD = 8, 0.4

MEMBER = Path(__file__).parents[1] / "support" / "redis_member.py"


def environment() -> dict[str, str]:
    """Return what a process needs to use this package."""
    root = str(Path(comfycontrol_async.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module", params=list(servers().items()), ids=list(servers()))
def executable(request: pytest.FixtureRequest) -> Path:
    """Take each server that there is."""
    path: Path = request.param[1]
    return path


@pytest.fixture(scope="module")
def server(executable: Path) -> Iterator[RedisServer]:
    """Run a server."""
    with RedisServer(executable) as running:
        yield running


@pytest.fixture
def own_server(executable: Path) -> Iterator[RedisServer]:
    """Run a server that the test may kill."""
    with RedisServer(executable) as running:
        yield running


@asynccontextmanager
async def connected(server: RedisServer, key: str, count: int = 1, **options: Any) -> AsyncIterator[list[RedisLimiter]]:
    """Make limiters with one key, each of which stands for a process."""
    options = {"limit": LIMIT, "period": PERIOD, "on_unavailable": "raise", "url": server.url, **options}
    url = options.pop("url")
    server.settle(key, options["limit"], options["period"])
    limiters = [RedisLimiter(url, key=key, **options) for _ in range(count)]
    yield limiters
    for limiter in limiters:
        await limiter.aclose()


@pytest.fixture
async def limiter(server: RedisServer) -> AsyncIterator[RedisLimiter]:
    """Connect one limiter."""
    async with connected(server, uuid4().hex) as limiters:
        yield limiters[0]


def all_sent(processes: list[Process]) -> list[float]:
    """Return when requests were sent, by all processes."""
    return sorted(moment for process in processes for moment in process.sent)


# Sharing


@on_one_loop
async def test_shared_budget(server: RedisServer) -> None:
    """Saturated processes keep the limit together, use it, get the same, and ask about once for each request."""
    async with connected(server, uuid4().hex, 4, limit=3 * LIMIT) as limiters:
        before = server.calls()
        processes = [Process(limiter, SYSTEM_CLOCK, lambda: 0.01, 12) for limiter in limiters]
        await asyncio.sleep(8 * PERIOD)
        for process in processes:
            await process.end()
        asked = server.calls() - before
    sent = all_sent(processes)
    assert most_in_any_period(sent, PERIOD) <= 3 * LIMIT
    assert len(sent) >= 15 * LIMIT
    assert asked <= 1.5 * len(sent)
    counts = [len(process.sent) for process in processes]
    assert sum(counts) ** 2 / (len(counts) * sum(count**2 for count in counts)) >= 0.9


@on_one_loop
async def test_batch_in_one_question(server: RedisServer, limiter: RedisLimiter) -> None:
    """All that are wanted at once are asked for at once."""
    before = server.calls()
    permits = await asyncio.gather(*(limiter.acquire() for _ in range(LIMIT)))
    assert server.calls() - before <= 2
    for permit in permits:
        permit.arrived()
    await asyncio.sleep(0.2)
    assert server.calls() - before <= 3


@on_one_loop
async def test_cooldown_reaches_the_others(server: RedisServer) -> None:
    """A 429 that one process got holds the others that slept when it came, at once and until it is over."""
    async with connected(server, uuid4().hex, 3) as limiters:
        processes = [Process(limiter, SYSTEM_CLOCK, lambda: 0.01, 6) for limiter in limiters]
        await asyncio.sleep(1.5 * PERIOD)
        closed = SYSTEM_CLOCK.monotonic()
        limiters[0].cool_down(1.0)
        await asyncio.sleep(1.5)
        for process in processes:
            await process.end()
        late = [moment for moment in all_sent(processes) if moment > closed + 0.05]
        assert late
        assert min(late) >= closed + 1.0
        assert len([process for process in processes if process.sent[-1] >= closed + 1.0]) == 3


@on_one_loop
async def test_cooldown_before_the_first_use(server: RedisServer) -> None:
    """What is said before anything was asked holds, and the others hear of it."""
    async with connected(server, uuid4().hex, 2) as (first, second):
        first.cool_down(0.5)
        began = SYSTEM_CLOCK.monotonic()
        task = asyncio.create_task(first.acquire())
        await asyncio.sleep(0.05)
        with pytest.raises(RateLimitWaitError):
            await second.acquire(max_wait=0.1)
        (await task).arrived()
        assert SYSTEM_CLOCK.monotonic() - began >= 0.5


@on_one_loop
async def test_killed_with_slots_in_flight(server: RedisServer) -> None:
    """What a process has taken is charged for a lease and a period, in the server."""
    key = uuid4().hex
    async with connected(server, key, 2) as (dead, alive):
        held = [await dead.acquire() for _ in range(LIMIT)]
        with server.client() as client:
            slots = client.zrange(f"{{comfycontrol:{key}}}:1:slots", 0, -1, withscores=True)
            now = client.time()
        until = [score / 1e6 - now[0] - now[1] / 1e6 for _, score in slots]
        assert len(until) == LIMIT
        assert all(1.5 < left - PERIOD < 3.26 for left in until)
        waiter = asyncio.create_task(alive.acquire())
        await asyncio.sleep(2 * PERIOD)
        assert not waiter.done()
        for permit in held:
            permit.arrived()
        (await waiter).arrived()


@on_one_loop
@pytest.mark.slow
async def test_slots_of_the_dead_come_back(server: RedisServer) -> None:
    """A lease and a period after they were taken, by themselves."""
    key, clock = uuid4().hex, ProcessClock(SYSTEM_CLOCK)
    async with connected(server, key) as (alive,), connected(server, key, clock=clock) as (dead,):
        held = [await dead.acquire() for _ in range(LIMIT)]
        began = SYSTEM_CLOCK.monotonic()
        clock.stop()
        (await alive.acquire()).arrived()
        assert 3.2 + PERIOD < SYSTEM_CLOCK.monotonic() - began < 4.0 + PERIOD
        for permit in held:
            permit.arrived()


@on_one_loop
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_gone_while_it_waited(server: RedisServer, how: signal.Signals) -> None:
    """A process that is killed or stopped while it waits does not delay the others: its turns go to them."""
    key, period = uuid4().hex, 2.0
    async with connected(server, key, period=period) as (limiter,):
        held = [await limiter.acquire() for _ in range(LIMIT)]
        command = [sys.executable, str(MEMBER), json.dumps([server.url, key, LIMIT, period])]
        member = await asyncio.create_subprocess_exec(*command, env=environment())
        try:
            with server.client() as client:
                await eventually(lambda: client.hlen(f"{{comfycontrol:{key}}}:1:members") == 1)
            for permit in held:
                permit.arrived()
            answered = SYSTEM_CLOCK.monotonic()
            waiters = [asyncio.create_task(limiter.acquire()) for _ in range(LIMIT)]
            await asyncio.sleep(period / 4)
            member.send_signal(how)
            for permit in await asyncio.gather(*waiters):
                permit.arrived()
            assert period < SYSTEM_CLOCK.monotonic() - answered < period + 0.6  # a busy machine included
        finally:
            if member.returncode is None:
                member.kill()
            await member.wait()


@on_one_loop
async def test_keys(server: RedisServer) -> None:
    """They share one slot of a cluster, and expire."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        (await limiter.acquire()).arrived()
        waiters = [asyncio.create_task(limiter.acquire()) for _ in range(LIMIT)]
        await asyncio.sleep(0.1)
        with server.client() as client:
            keys = client.keys(f"*{key}*")
            assert sorted(name.rpartition(":")[2] for name in keys) == ["members", "slots", "state"]
            assert {name[: name.index("}") + 1] for name in keys} == {f"{{comfycontrol:{key}}}"}
            assert all(0 < client.ttl(name) <= 120 for name in keys)
        for permit in await asyncio.gather(*waiters):
            permit.arrived()


@on_one_loop
async def test_server_clock_put_back(server: RedisServer) -> None:
    """Moments that lie too far in the future are not believed: it costs one period."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        with server.client() as client:
            hour = (client.time()[0] + 3600) * 1_000_000
            client.zadd(f"{{comfycontrol:{key}}}:1:slots", {f"x:{number}": hour for number in range(LIMIT)})
        asked = SYSTEM_CLOCK.monotonic()
        (await limiter.acquire(max_wait=5.0)).arrived()
        assert SYSTEM_CLOCK.monotonic() - asked >= PERIOD


@on_one_loop
async def test_aclose_tells(server: RedisServer) -> None:
    """What became of the last requests is told before the connection is closed."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        (await limiter.acquire()).refund()
        await limiter.aclose()
        with server.client() as client:
            assert client.zcard(f"{{comfycontrol:{key}}}:1:slots") == 0


@on_one_loop
async def test_used_after_aclose(server: RedisServer) -> None:
    """Tasks that wait when it is closed, and those that come later, are served all the same."""
    async with connected(server, uuid4().hex) as (limiter,):

        async def send() -> None:
            (await limiter.acquire()).arrived()

        waiters = [asyncio.create_task(send()) for _ in range(3 * LIMIT)]
        for _ in range(5):
            await asyncio.sleep(PERIOD / 4)
            await limiter.aclose()
        await asyncio.wait_for(asyncio.gather(*waiters), 20.0)
        await send()


@on_one_loop
async def test_script_was_flushed(server: RedisServer, limiter: RedisLimiter) -> None:
    """A server that has forgotten the script is given it again."""
    (await limiter.acquire()).arrived()
    with server.client() as client:
        client.script_flush()
    (await limiter.acquire()).arrived()


@on_one_loop
@pytest.mark.parametrize("decode", [False, True])
async def test_client_of_the_user(server: RedisServer, decode: bool) -> None:
    """A client that was given is used as it is, and not closed."""
    make: Any = redis.asyncio.Redis
    client = make(port=server.port, decode_responses=decode)
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    limiter = RedisLimiter(client, key=key, limit=LIMIT, period=PERIOD)
    (await limiter.acquire()).arrived()
    await limiter.aclose()
    assert await client.ping()
    await client.aclose()


# A server that goes


@on_one_loop
async def test_young_server_is_charged(own_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that was started a moment ago may have served others before: the window counts as spent."""
    limiter = RedisLimiter(own_server.url, limit=LIMIT, period=PERIOD, on_unavailable="raise")
    with pytest.raises(RateLimitWaitError) as caught:
        await limiter.acquire(max_wait=1.0)
    assert 2.0 < caught.value.needed < 4.0
    assert "was started a moment ago" in caplog.text
    await limiter.aclose()


@on_one_loop
async def test_old_data_is_charged(server: RedisServer) -> None:
    """The state that a server had on disk when it crashed is older than what happened."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        with server.client() as client:
            client.hset(f"{{comfycontrol:{key}}}:1:state", "server", "another")
        asked = SYSTEM_CLOCK.monotonic()
        (await limiter.acquire()).arrived()
        assert SYSTEM_CLOCK.monotonic() - asked >= PERIOD


@on_one_loop
async def test_lost_data_is_charged(server: RedisServer) -> None:
    """A client that has just used the key knows that its state was lost."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        (await limiter.acquire()).arrived()
        await asyncio.sleep(0.1)
        with server.client() as client:
            client.flushall()
        asked = SYSTEM_CLOCK.monotonic()
        (await limiter.acquire()).arrived()
        assert SYSTEM_CLOCK.monotonic() - asked >= PERIOD


@on_one_loop
@pytest.mark.parametrize(
    "policy", [pytest.param("local", marks=pytest.mark.slow), "wait", pytest.param("raise", marks=pytest.mark.slow)]
)
async def test_killed_and_restarted(own_server: RedisServer, policy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Under load: no crash, no task is stuck, the limit is kept, and all go on when it is back."""
    caplog.set_level(logging.WARNING)
    options = {"on_unavailable": policy, "assumed_processes": 2, "timeout": 0.3}
    async with connected(own_server, "key", 2, **options) as limiters:
        processes = [Process(limiter, SYSTEM_CLOCK, lambda: 0.01, 6) for limiter in limiters]
        await asyncio.sleep(2.5 * PERIOD)
        own_server.kill()
        killed = SYSTEM_CLOCK.monotonic()
        await asyncio.sleep(2.5 if policy == "local" else 0.6)
        own_server.start()
        back = SYSTEM_CLOCK.monotonic()
        await eventually(lambda: all(process.sent[-1] > back + PERIOD for process in processes))
        await asyncio.sleep(2 * PERIOD)
        for process in processes:
            await process.end()
    sent = all_sent(processes)
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    meanwhile = [moment for moment in sent if killed + 0.05 < moment < back]
    assert bool(meanwhile) == (policy == "local")
    assert bool(processes[0].errors) == (policy == "raise")
    assert "Redis cannot be used" in caplog.text
    assert "Redis is back: the window counts as spent" in caplog.text


@on_one_loop
async def test_server_hangs(own_server: RedisServer) -> None:
    """A server that does not answer is as good as gone, and a patient waiter is refused when its time is up."""
    async with connected(own_server, "key", on_unavailable="wait", timeout=0.2) as (limiter,):
        (await limiter.acquire()).arrived()
        with own_server.stopped():
            asked = SYSTEM_CLOCK.monotonic()
            patient = asyncio.create_task(limiter.acquire())
            with pytest.raises(RateLimitWaitError):
                await limiter.acquire(max_wait=0.7)
            assert SYSTEM_CLOCK.monotonic() - asked < 1.0
            assert not patient.done()
        (await asyncio.wait_for(patient, 5.0)).arrived()


@on_one_loop
async def test_never_there() -> None:
    """A server that cannot be reached at first is the policy's business."""
    url = "redis://127.0.0.1:1"
    refusing = RedisLimiter(url, on_unavailable="raise")
    for _ in range(2):
        with pytest.raises(ConnectionFailedError, match="Redis server of the rate limit cannot be used"):
            await asyncio.gather(*(refusing.acquire() for _ in range(3)))
    assert refusing.snapshot().waiting == dict.fromkeys(refusing.snapshot().waiting, 0)
    await refusing.aclose()


@pytest.mark.slow
@on_one_loop
async def test_share_of_a_server_that_was_never_there() -> None:
    """What a process may send alone is charged at first, as others may have sent before."""
    url = "redis://127.0.0.1:1"
    alone = RedisLimiter(url, limit=8, period=0.2, assumed_processes=4)
    began = SYSTEM_CLOCK.monotonic()
    tasks = [asyncio.create_task(alone.acquire()) for _ in range(3)]
    done, _ = await asyncio.wait(tasks, timeout=3.0)
    assert len(done) == 2  # its share
    assert SYSTEM_CLOCK.monotonic() - began > 1.0
    shown = alone.snapshot()
    assert (shown.limit, shown.used) == (2, 2)
    for task in done:
        task.result().arrived()
    (await tasks[0]).__repr__()
    for permit in await asyncio.gather(*tasks):
        assert isinstance(permit, Permit)
    await alone.aclose()


@pytest.mark.slow
@on_one_loop
async def test_local_share_obeys_the_gate(own_server: RedisServer) -> None:
    """A cooldown that begins while the server is gone holds, and is told when it is back."""
    async with connected(own_server, "key", 2, on_unavailable="local", assumed_processes=1) as (first, second):
        (await first.acquire()).arrived()
        own_server.kill()
        first.cool_down(3.0)
        began = SYSTEM_CLOCK.monotonic()
        task = asyncio.create_task(first.acquire())
        await asyncio.sleep(0.5)
        assert not task.done()
        own_server.start()
        (await task).arrived()
        assert SYSTEM_CLOCK.monotonic() - began >= 3.0
        assert second.snapshot().cooldown == 0.0


@pytest.mark.slow
@on_one_loop
async def test_idle_process_notices_that_the_server_is_back(own_server: RedisServer) -> None:
    """A process that goes on with its share looks for the server though no task waits: others use all of the budget."""
    async with connected(own_server, "key", on_unavailable="local") as (limiter,):
        (await limiter.acquire()).arrived()
        own_server.kill()
        waiter = asyncio.create_task(limiter.acquire())
        await eventually(lambda: limiter.snapshot().limit == LIMIT // 4)
        (await waiter).arrived()
        own_server.start()
        await eventually(lambda: limiter.snapshot().limit == LIMIT)


@on_one_loop
async def test_no_share_to_go_on_with() -> None:
    """More processes than slots: one that went on alone would break the limit."""
    limiter = RedisLimiter("redis://127.0.0.1:1", limit=3, period=0.1, assumed_processes=4)
    with pytest.raises(RateLimitWaitError):
        await limiter.acquire(max_wait=2.0)
    await limiter.aclose()


# Bad input


@on_one_loop
async def test_another_rule_under_the_key(server: RedisServer) -> None:
    """It is refused with both values."""
    key = uuid4().hex
    async with connected(server, key) as (limiter,):
        (await limiter.acquire()).arrived()
        for limit, period in ((9, PERIOD), (LIMIT, 2.0)):
            other = RedisLimiter(server.url, key=key, limit=limit, period=period)
            for _ in range(2):
                message = f"for 8 requests per 0.4 s, not {limit} per {period:g} s"
                with pytest.raises(ConfigurationError, match=message):
                    await asyncio.gather(other.acquire(), other.acquire())
            await other.aclose()


@on_one_loop
async def test_wrong_password(executable: Path) -> None:
    """It is a clear error, and shows no secret."""
    with RedisServer(executable, "--requirepass", "hunter2") as server:
        for url in (server.url, server.url.replace("//", "//:s3cr3t@"), server.url.replace("//", "//bob:s3cr3t@")):
            limiter = RedisLimiter(url)
            with pytest.raises(ConfigurationError, match="the Redis server refuses us") as caught:
                await limiter.acquire()
            shown = f"{caught.value!s} {caught.value!r} {limiter!r}"
            assert "s3cr3t" not in shown
            await limiter.aclose()
        right = RedisLimiter(server.url.replace("//", "//:hunter2@"), on_unavailable="raise")
        with pytest.raises(RateLimitWaitError):  # it is young
            await right.acquire(max_wait=0.1)
        await right.aclose()


RIGHTS = ["+evalsha +eval", "+@all -evalsha -eval", "+@all -zadd"]


@on_one_loop
@pytest.mark.parametrize("rights", RIGHTS)
async def test_lack_of_rights(server: RedisServer, rights: str) -> None:
    """A user who may not run the script, or what is in it, is told so."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "bob", "RESET", "on", ">pass", "~*", *rights.split())
    limiter = RedisLimiter(server.url.replace("//", "//bob:pass@"))
    with pytest.raises(ConfigurationError, match=r"refuses us|cannot run the script"):
        await limiter.acquire()
    await limiter.aclose()


@on_one_loop
async def test_without_info(server: RedisServer) -> None:
    """A user who may not ask for the server's identity can do everything else."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "eve", "RESET", "on", ">pass", "~*", "+@all", "-info")
    url = server.url.replace("//", "//eve:pass@")
    limiter = RedisLimiter(url, key=uuid4().hex, limit=LIMIT, period=PERIOD, on_unavailable="raise")
    for _ in range(LIMIT):
        (await limiter.acquire(max_wait=0.2)).arrived()
    await limiter.aclose()


@on_one_loop
async def test_key_of_another_type(server: RedisServer) -> None:
    """A key that is used for something else is not ours to overwrite."""
    key = uuid4().hex
    with server.client() as client:
        client.set(f"{{comfycontrol:{key}}}:1:state", "something else")
    limiter = RedisLimiter(server.url, key=key)
    with pytest.raises(ConfigurationError, match="cannot run the script"):
        await limiter.acquire()
    await limiter.aclose()


@on_one_loop
async def test_no_url() -> None:
    """A URL that is none is a clear error at first use."""
    with pytest.raises(ConfigurationError, match="URL of the Redis server"):
        await RedisLimiter("http://example.com").acquire()


@on_one_loop
@pytest.mark.parametrize(
    "options",
    [
        {"key": ""},
        {"key": "a{b}"},
        {"key": 3},
        {"on_unavailable": "panic"},
        {"assumed_processes": 0},
        {"assumed_processes": True},
        {"timeout": 0},
        {"timeout": float("inf")},
    ],
    ids=str,
)
async def test_bad_options(options: dict[str, Any]) -> None:
    """Invalid arguments are refused when the limiter is made."""
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        RedisLimiter("redis://127.0.0.1", **options)


# Loops and processes


def test_second_run(server: RedisServer) -> None:
    """A second `asyncio.run` opens a connection of its own; what was in flight in the first is charged."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    limiter = RedisLimiter(server.url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="raise")
    checked: Limiter = limiter

    async def first() -> list[Permit]:
        return [await checked.acquire() for _ in range(2)]

    async def second() -> int:
        (await checked.acquire()).arrived()
        await asyncio.sleep(0.1)
        with server.client() as client:
            return int(client.zcard(f"{{comfycontrol:{key}}}:1:slots"))

    held = asyncio.run(first())
    assert asyncio.run(second()) == 3
    assert len(held) == 2
    assert repr(limiter) == "<RedisLimiter 8 per 0.4 s, 0 waiting>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(server: RedisServer) -> None:
    """A forked child is another process that shares the budget."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    limiter = RedisLimiter(server.url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="raise")

    async def use() -> None:
        (await limiter.acquire()).arrived()
        await limiter.aclose()

    asyncio.run(use())
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(use())
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with server.client() as client:
        owners = {token.partition(":")[0] for token in client.zrange(f"{{comfycontrol:{key}}}:1:slots", 0, -1)}
    assert len(owners) == 2
