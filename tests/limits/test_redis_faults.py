"""Whatever the Redis server, the line or redis-py do wrong: the policy applies, and Redis is used again afterwards."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio
from redis import exceptions

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.errors import ConfigurationError, ConnectionFailedError, InvalidArgumentError
from comfycontrol_async.limits.redis import RedisLimiter
from support.limiters import most_in_any_period
from support.redis_server import RedisServer, servers

pytestmark = [
    pytest.mark.skipif(not servers(), reason="no Redis or Valkey server here"),
    pytest.mark.asyncio(loop_factories=["asyncio"]),
]

LIMIT, PERIOD = 4, 0.04
HANG = "hang"
CUT = b"cut"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run a server."""
    with RedisServer(next(iter(servers().values()))) as running:
        yield running


class FaultyClient:
    """A client of redis.asyncio whose second and third call go wrong."""

    def __init__(self, real: Any, fault: Any) -> None:
        self.real = real
        self.fault = fault
        self.calls = 0

    async def evalsha(self, *arguments: Any) -> Any:
        """Run the script, or not."""
        self.calls += 1
        if self.calls not in (2, 3):
            return await self.real.evalsha(*arguments)
        if isinstance(self.fault, BaseException):
            raise self.fault
        if self.fault == HANG:
            await asyncio.Event().wait()
        if callable(self.fault):
            return self.fault(await self.real.evalsha(*arguments))
        return self.fault

    async def eval(self, *arguments: Any) -> Any:
        """Run the script."""
        return await self.real.eval(*arguments)


@asynccontextmanager
async def faulty_wire(server: RedisServer, answer: bytes) -> AsyncIterator[str]:
    """Lead to the server, but answer the second and third run of the script with these bytes; return the URL."""
    runs = 0
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal runs
        behind, ahead = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while data := await behind.read(65536):
                writer.write(data)

        returning = asyncio.create_task(back())
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                runs += b"EVALSHA" in data
                if b"EVALSHA" not in data or runs not in (2, 3):
                    ahead.write(data)
                    continue
                if answer != CUT:
                    writer.write(answer)
                if not answer.endswith(b"\r\n"):
                    break
        returning.cancel()
        for one in (writer, ahead):
            one.close()
            with suppress(ConnectionError):
                await one.wait_closed()
        ended.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        await asyncio.wait_for(ended.wait(), 5.0)
        await asyncio.sleep(0.01)


def changed(**fields: Any) -> Callable[[Any], Any]:
    """Return what changes fields of an answer."""
    return lambda answer: json.dumps({**json.loads(answer), **fields})


# What the client raises or returns.
CLIENT_FAULTS: dict[str, Any] = {
    "RuntimeError": RuntimeError("once"),
    "AttributeError": AttributeError("a bug"),
    "OSError": OSError("no route"),
    "ConnectionResetError": ConnectionResetError(104, "reset"),
    "TimeoutError": TimeoutError(),
    "EOFError": EOFError(),
    "UnicodeDecodeError": UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
    "CancelledError of another task": asyncio.CancelledError(),
    "ExceptionGroup": ExceptionGroup("many", [ValueError("one")]),
    "redis ConnectionError": exceptions.ConnectionError("gone"),
    "redis TimeoutError": exceptions.TimeoutError("late"),
    "full server": exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    "loading": exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    "read only": exceptions.ReadOnlyError("You can't write against a read only replica."),
    "try again": exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
    "cluster down": exceptions.ClusterDownError("The cluster is down"),
    "master down": exceptions.MasterDownError("Link with MASTER is down"),
    "no cluster": exceptions.RedisClusterException("no node"),
    "slot not covered": exceptions.SlotNotCoveredError("slot 1"),
    "moved": exceptions.MovedError("1234 127.0.0.1:1"),
    "invalid response": exceptions.InvalidResponse("Protocol Error"),
    "data error": exceptions.DataError("Invalid input"),
    "unknown response error": exceptions.ResponseError("upstream failure"),
    "None": None,
    "a number": 7,
    "an empty list": [],
    "numbers as the script once returned": [-1],
    "OK": b"OK",
    "bytes that are no text": b"\xff\xfe",
    "JSON of another kind": "[1, 2]",
    "nothing in it": "{}",
    "other rule, but odd": '{"other": "no"}',
    "endless JSON": '{"taken": 1e999}',
    "more slots than wanted": changed(taken=1000),
    "less than no slot": changed(taken=-1),
    "texts as numbers": changed(wake="soon"),
    "not a number": changed(gate=float("nan")),
    "a gate in ten years": changed(gate=3e14),
    "an object for a list": changed(others={"a": 1}),
    "no answer": HANG,
}

# What comes over the wire.
WIRE_FAULTS = {
    "OOM": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "LOADING": b"-LOADING Redis is loading the dataset in memory\r\n",
    "BUSY": b"-BUSY Redis is busy running a script.\r\n",
    "MISCONF": b"-MISCONF Redis is configured to save RDB snapshots\r\n",
    "NOREPLICAS": b"-NOREPLICAS Not enough good replicas to write.\r\n",
    "READONLY": b"-READONLY You can't write against a read only replica.\r\n",
    "MASTERDOWN": b"-MASTERDOWN Link with MASTER is down\r\n",
    "CLUSTERDOWN": b"-CLUSTERDOWN The cluster is down\r\n",
    "MOVED": b"-MOVED 1234 127.0.0.1:1\r\n",
    "ASK": b"-ASK 1234 127.0.0.1:1\r\n",
    "clients": b"-ERR max number of clients reached\r\n",
    "proxy": b"-ERR upstream failure\r\n",
    "error without a text": b"-\r\n",
    "status": b"+OK\r\n",
    "null": b"$-1\r\n",
    "list": b"*1\r\n:1\r\n",
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n",
    "half an answer": b"$500\r\n{",
    "cut": CUT,
}


QUICK = {
    "RuntimeError",
    "CancelledError of another task",
    "full server",
    "moved",
    "numbers as the script once returned",
    "more slots than wanted",
    "no answer",
    "OOM",
    "BUSY",
    "half an answer",
    "cut",
}


def some_slow(faults: Iterable[str]) -> list[Any]:
    """Return the names of faults, most of them for slow runs."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in faults]


async def use(limiter: RedisLimiter, count: int) -> list[float]:
    """Send requests at once, and return when."""

    async def send() -> float:
        permit = await limiter.acquire()
        sent = SYSTEM_CLOCK.monotonic()
        permit.arrived()
        return sent

    return await asyncio.wait_for(asyncio.gather(*(send() for _ in range(count))), 20.0)


async def check_recovery(limiter: RedisLimiter, caplog: pytest.LogCaptureFixture) -> None:
    """All are served, within the limit; it is logged once, with its traceback; the loop has nothing to complain of."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    sent = await use(limiter, 1)
    sent += await use(limiter, 3 * LIMIT)
    await limiter.aclose()
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    told = [record for record in caplog.records if "Redis cannot be used" in record.getMessage()]
    # Each time that it is gone is logged once: a busy machine may be late with an answer, and then it is gone again.
    back = caplog.text.count("Redis is back")
    assert back >= 1
    assert len(told) in (back, back + 1)
    assert told[0].exc_info is not None
    assert complaints == []


@pytest.mark.parametrize("name", some_slow(CLIENT_FAULTS))
async def test_client(server: RedisServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the client raises or returns counts as a server that is gone."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    make: Any = redis.asyncio.Redis
    async with make(port=server.port) as real:
        client = FaultyClient(real, CLIENT_FAULTS[name])
        limiter = RedisLimiter(client, key=key, limit=LIMIT, period=PERIOD, on_unavailable="wait", timeout=1.0)
        await check_recovery(limiter, caplog)


@pytest.mark.parametrize("name", some_slow(WIRE_FAULTS))
async def test_wire(server: RedisServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes over the wire but a lack of rights counts as a server that is gone."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    async with faulty_wire(server, WIRE_FAULTS[name]) as url:
        limiter = RedisLimiter(url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="wait", timeout=1.0)
        await check_recovery(limiter, caplog)


@pytest.mark.parametrize(
    "answer",
    [
        b"-NOPERM User bob has no permissions to run the 'evalsha' command\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        b"-ERR unknown command 'EVALSHA', with args beginning with:\r\n",
    ],
    ids=lambda answer: answer.split()[0].decode(),
)
async def test_no_rights(server: RedisServer, answer: bytes) -> None:
    """They are said to the caller, whatever the policy, and looked at again with the next request."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    async with faulty_wire(server, answer) as url:
        limiter = RedisLimiter(url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="local")
        (await limiter.acquire()).arrived()
        await asyncio.sleep(0.02)
        with pytest.raises(ConfigurationError, match="the Redis server"):
            await use(limiter, LIMIT)
        for _ in range(2):
            with suppress(ConfigurationError):
                await use(limiter, 1)
        await use(limiter, 1)
        await limiter.aclose()


async def test_script_is_unknown(server: RedisServer) -> None:
    """NOSCRIPT is answered with the script."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    async with faulty_wire(server, b"-NOSCRIPT No matching script. Please use EVAL.\r\n") as url:
        limiter = RedisLimiter(url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="raise")
        await use(limiter, 3 * LIMIT)
        await limiter.aclose()


@pytest.mark.parametrize("policy", ["local", "raise"])
async def test_other_policies(server: RedisServer, policy: Any) -> None:
    """The share is used, or the waiters get one error each; then all is as before."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    make: Any = redis.asyncio.Redis
    async with make(port=server.port) as real:
        client = FaultyClient(real, RuntimeError("once"))
        limiter = RedisLimiter(client, key=key, limit=LIMIT, period=PERIOD, on_unavailable=policy)
        await use(limiter, 1)
        waiters = [asyncio.create_task(limiter.acquire()) for _ in range(LIMIT)]
        ends = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 20.0)
        refused = [end for end in ends if isinstance(end, ConnectionFailedError)]
        assert len(refused) == (LIMIT if policy == "raise" else 0)
        assert len({id(error) for error in refused}) == len(refused)
        del ends, waiters
        with suppress(ConnectionFailedError):
            await use(limiter, 1)
        await use(limiter, 2 * LIMIT)
        await limiter.aclose()


async def test_cancelled_question(server: RedisServer) -> None:
    """A program that cancels every task but its own leaves no waiter behind that hangs."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    make: Any = redis.asyncio.Redis
    async with make(port=server.port) as real:
        limiter = RedisLimiter(FaultyClient(real, HANG), key=key, limit=LIMIT, period=PERIOD, timeout=5.0)
        await use(limiter, 1)
        waiters = [asyncio.create_task(limiter.acquire()) for _ in range(2)]
        await asyncio.sleep(0.1)
        for _ in range(2):
            for task in asyncio.all_tasks() - {*waiters, asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.1)
        for permit in await asyncio.wait_for(asyncio.gather(*waiters), 5.0):
            permit.arrived()
        await limiter.aclose()


# What is stored


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("state", "gate", "junk"),
        ("state", "gate", "nan"),
        ("state", "gate", "1e300"),
        ("state", "gate", "HOUR"),
        ("state", "pace", "HOUR"),
        ("state", "smooth", "inf"),
        ("state", "granted", "-7"),
        ("state", "limit", "many"),
        ("state", "period", ""),
        ("state", "unknown", "\x00"),
        ("members", "aa", "junk"),
        ("members", "aa", "1:2"),
        ("members", "", "::"),
        ("members", "0", "9" * 400 + ":1:1"),
        ("members", "0", "HOUR:3:-9"),
        ("slots", "charged", "HOUR"),
        ("slots", "junk", "inf"),
        ("slots", "", "-inf"),
        ("slots", "a:b:c", "1e300"),
    ],
)
async def test_junk(server: RedisServer, part: str, field: str, value: str) -> None:
    """Junk in one field is skipped, and what lies too far ahead costs at most one span (here: is served soon)."""
    key = uuid4().hex
    server.settle(key, LIMIT, PERIOD)
    with server.client() as client:
        value = value.replace("HOUR", f"{(client.time()[0] + 3600) * 1_000_000}")
        name = f"{{comfycontrol:{key}}}:1:{part}"
        if part == "slots":
            client.zadd(name, {f"{field}{number}": float(value) for number in range(LIMIT)})
        else:
            client.hset(name, field, value)
    limiter = RedisLimiter(server.url, key=key, limit=LIMIT, period=PERIOD, on_unavailable="raise")
    began = SYSTEM_CLOCK.monotonic()
    sent = await use(limiter, 2 * LIMIT)
    assert max(sent) - began < 3.0
    assert most_in_any_period(sent, PERIOD) <= LIMIT
    await limiter.aclose()


async def test_client_that_blocks() -> None:
    """A client for threads is refused when the limiter is made."""
    clients: list[Any] = [redis.Redis(), None, 7]
    for client in clients:
        with pytest.raises(InvalidArgumentError, match="url_or_client"):
            RedisLimiter(client)


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
