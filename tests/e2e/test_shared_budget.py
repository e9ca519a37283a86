"""Several processes behind one address, over real HTTP: the server's own count, and what becomes of the killed."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import comfycontrol_async
from comfycontrol_async.testing import LocalServer
from support.redis_server import RedisServer, servers
from support.waiting import eventually

WORKER = Path(__file__).parents[1] / "support" / "shared_worker.py"
LIMIT = 20
# The service's 10 s in half a second.
SPEED = 20.0


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis or Valkey server."""
    found = servers()
    if not found:
        pytest.skip("no Redis or Valkey server here")
    with RedisServer(next(iter(found.values()))) as running:
        yield running


@pytest.fixture(params=["file", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Say where the budget is kept."""
    if request.param == "file":
        return "file", str(tmp_path / "slots")
    server: RedisServer = request.getfixturevalue("redis_server")
    server.settle("e2e", LIMIT, 10.0 / SPEED)
    return "redis", server.url


class Workers:
    """Processes that want answers."""

    def __init__(self, processes: list[Process]) -> None:
        self.processes = processes

    async def tell(self) -> None:
        """Let them begin, or end."""
        for process in self.processes:
            if process.returncode is None and process.stdin is not None:
                process.stdin.write(b"\n")
                await process.stdin.drain()

    async def end(self) -> list[int]:
        """Let them end and return how many answers each got; one that was killed got -1."""
        await self.tell()
        outputs = await asyncio.gather(*(process.communicate() for process in self.processes))
        return [int(out) if out.strip() else -1 for out, _ in outputs]


@asynccontextmanager
async def working(
    server: LocalServer, place: tuple[str, str], count: int, width: int = 10, **options: Any
) -> AsyncIterator[Workers]:
    """Start processes that share the budget kept at `place`."""
    task = {
        "limiter": place,
        "url": server.url,
        "token": server.token,
        "width": width,
        "options": {"limit": server.limit, "period": server.period, **options},
    }
    root = str(Path(comfycontrol_async.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(WORKER), json.dumps(task)]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment)
        for _ in range(count)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert (await process.stdout.readline()).strip() == b"ready"
        workers = Workers(processes)
        await workers.tell()
        yield workers
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize(
    ("place", "count"),
    [
        ("redis", 2),  # programs that share a file are in test_default_budget.py
        pytest.param("redis", 8, marks=pytest.mark.slow),
        pytest.param("file", 3, marks=pytest.mark.slow),
        pytest.param("file", 8, marks=pytest.mark.slow),
    ],
    indirect=["place"],
)
async def test_nothing_over_the_limit(place: tuple[str, str], count: int) -> None:
    """However many processes share the budget: no 429, and each gets its part."""
    async with (
        LocalServer(limit=LIMIT, speed=SPEED, latency=1.0) as server,
        working(server, place, count) as workers,
    ):
        await asyncio.sleep(6.0 if count == 8 else 1.5)
        answers = await workers.end()
        assert server.refused == 0
        assert server.max_in_window <= LIMIT
    assert min(answers) > 0
    if count == 8:
        assert sum(answers) ** 2 / (count * sum(answer**2 for answer in answers)) >= 0.95


@pytest.mark.slow
async def test_one_refusal_stops_all(place: tuple[str, str]) -> None:
    """When another program used up the budget, one process gets the 429, and none sends until the cooldown is over."""
    async with (
        LocalServer(limit=LIMIT, speed=SPEED, latency=0.2) as server,
        working(server, place, 3) as workers,
    ):
        for _ in range(5):
            await asyncio.sleep(2 * server.period)
            before = server.refused
            while server.refused == before:  # until one of the processes runs into it
                server.consume(LIMIT)
                await asyncio.sleep(server.period / 50)
            refused = server.now
            await asyncio.sleep(9.9 / SPEED)
            # Seconds of the server, which are short here: a quarter of a real one is 5 of them.
            later = [record.at - refused for record in server.requests]
            assert [at for at in later if 0.25 * SPEED < at < 9.9] == []
        await workers.end()


@pytest.mark.slow
async def test_killed_process(place: tuple[str, str]) -> None:
    """A process that is killed with requests in flight delays no other, and its slots come back."""
    async with (
        LocalServer(limit=LIMIT, speed=SPEED, latency=2.0) as server,
        working(server, place, 2) as workers,
    ):
        await eventually(lambda: len(server.requests) > LIMIT)
        workers.processes[0].kill()
        killed = server.now
        await asyncio.sleep(3.25 + 3 * server.period)
        answers = await workers.end()
        assert server.refused == 0
        assert server.max_in_window <= LIMIT
        last = [record for record in server.requests if record.at > killed + 3.5 * SPEED + 10.0]
        assert len(last) >= LIMIT - 2
    assert answers[0] == -1
    assert answers[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["local", "wait"])
async def test_redis_is_killed_under_load(redis_server: RedisServer, policy: str) -> None:
    """No crash, no process is stuck, and the server never counts one too many."""
    redis_server.settle("e2e", LIMIT, 10.0 / SPEED)
    place = ("redis", redis_server.url)
    options: dict[str, Any] = {"on_unavailable": policy, "assumed_processes": 3}
    async with (
        LocalServer(limit=LIMIT, speed=SPEED, latency=1.0) as server,
        working(server, place, 3, **options) as workers,
    ):
        await eventually(lambda: len(server.requests) > LIMIT)
        for _ in range(2):
            redis_server.kill()
            await asyncio.sleep(2.5)
            redis_server.start()
            seen = len(server.requests)
            await eventually(lambda seen=seen: len(server.requests) > seen + LIMIT)  # type: ignore[misc] # mypy#15459
        answers = await workers.end()
        assert server.refused == 0
        assert server.max_in_window <= LIMIT
    assert min(answers) > 0
