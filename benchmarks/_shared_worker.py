"""One process of `shared_budget.py`: wants answers without end through one limiter, and says what it got.

    python benchmarks/_shared_worker.py '{"kind": "file", "url": ..., ...}'

Prints "ready", waits for a line on its standard input, and prints one line of JSON at the end.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import attrs

from comfycontrol_async import Limiter, LocalLimiter
from comfycontrol_async.limits.file import FileLimiter


@attrs.frozen
class Task:
    """What a worker gets: `place` is a file or the URL of a Redis server."""

    kind: str
    url: str
    token: str
    limit: int
    period: float
    cooldown: float
    duration: float
    width: int
    place: str
    pacing: Any = "auto"


@attrs.define
class Result:
    """When answers came (seconds of the machine's clock), how many were refused, what it cost."""

    answers: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)
    cpu: float = 0.0


def make_limiter(task: Task) -> Limiter:
    if task.kind == "file":
        return FileLimiter(task.place, limit=task.limit, period=task.period, pacing=task.pacing)
    if task.kind == "redis":
        redis: Any = importlib.import_module("comfycontrol_async.limits.redis")
        made: Limiter = redis.RedisLimiter(
            task.place, key="benchmark", limit=task.limit, period=task.period, pacing=task.pacing
        )
        return made
    return LocalLimiter(task.limit, task.period)


async def make_peer(task: Task) -> Callable[[], Awaitable[Any]]:
    """Return the acquire of a peer."""
    if task.kind == "limits, Redis":
        package: Any = importlib.import_module("limits")
        storage: Any = importlib.import_module("limits.aio.storage")
        strategies: Any = importlib.import_module("limits.aio.strategies")
        where = task.place.replace("redis://", "async+redis://")
        limiter = strategies.MovingWindowRateLimiter(storage.RedisStorage(where, implementation="redispy"))
        item = package.RateLimitItemPerSecond(task.limit, round(task.period))

        async def hit() -> None:
            while not await limiter.hit(item):
                window = await limiter.get_window_stats(item)
                await asyncio.sleep(max(0.001, window.reset_time - time.time()))

        return hit
    pyrate: Any = importlib.import_module("pyrate_limiter")
    rates = [pyrate.Rate(task.limit, round(task.period * 1000))]
    if task.kind == "pyrate-limiter, Redis":
        redis: Any = importlib.import_module("redis.asyncio")
        bucket = await pyrate.RedisBucket.init(rates, redis.Redis.from_url(task.place), "benchmark")
    else:
        bucket = pyrate.SQLiteBucket.init_from_file(rates, db_path=task.place, use_file_lock=True)
    made = pyrate.Limiter(bucket)
    return lambda: made.try_acquire_async("benchmark")


def sender(
    task: Task, limiter: Limiter, session: aiohttp.ClientSession, result: Result
) -> Callable[[], Awaitable[None]]:
    async def send() -> None:
        permit = await limiter.acquire()
        while True:
            async with session.get("/v1/user") as response:
                permit.arrived()
                await response.read()
            if response.status != 429:
                result.answers.append(time.monotonic())
                return
            result.refused.append(time.monotonic())
            limiter.cool_down(task.cooldown)
            permit = await permit.requeue()

    return send


def peer_sender(
    task: Task, acquire: Callable[[], Awaitable[Any]], session: aiohttp.ClientSession, result: Result
) -> Callable[[], Awaitable[None]]:
    blocked_until = 0.0

    async def send() -> None:
        nonlocal blocked_until
        while True:
            await acquire()
            while (left := blocked_until - time.monotonic()) > 0:  # noqa: ASYNC110 # it may grow meanwhile
                await asyncio.sleep(left)
            async with session.get("/v1/user") as response:
                await response.read()
            if response.status != 429:
                result.answers.append(time.monotonic())
                return
            result.refused.append(time.monotonic())
            blocked_until = time.monotonic() + task.cooldown

    return send


async def work(task: Task) -> Result:
    result = Result()
    headers = {"Authorization": f"Bearer {task.token}"}
    async with aiohttp.ClientSession(task.url, headers=headers, connector=aiohttp.TCPConnector(limit=0)) as session:
        if task.kind in ("local", "file", "redis"):
            send = sender(task, make_limiter(task), session, result)
        else:
            send = peer_sender(task, await make_peer(task), session, result)

        async def want() -> None:
            while True:
                await send()

        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = time.process_time()
        wanting = [asyncio.create_task(want()) for _ in range(task.width)]
        await asyncio.wait(wanting, timeout=task.duration)
        result.cpu = time.process_time() - before
        for one in wanting:
            one.cancel()
        ends = await asyncio.gather(*wanting, return_exceptions=True)
        faults = [str(end) for end in ends if not isinstance(end, asyncio.CancelledError)]
        if faults:
            print(f"{task.kind}: {faults[0]}", file=sys.stderr)
    return result


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(asyncio.run(work(Task(**json.loads(sys.argv[1])))))), flush=True)
