"""What a batch costs: `map` beside two ways of doing without it, and the other figures of waiting and submitting.

    python benchmarks/batch.py [--speed 10] [--rows 1000] [--long 100000] [--only PART ...] [--output FILE]

Parts: `table` (1,000 workflows of 30 s, at most 200 unfinished: ours, and the peers below), `single` (one workflow of
3 minutes), `hundred` (100 waiting and nothing else), `urgent` (5 concurrent `run` beside a 5,000-row batch) and
`memory` (a long `map` from a generator). The server is LocalServer, `speed` times as fast as the service, in a process
of its own; every contender runs in a fresh process too, which its CPU and peak memory are counted of. Times in the
tables are the server's.

Peers: "poll each" submits through the same limiter and asks for each workflow every 2 s through it; "semaphore" does
the same with bare aiohttp, at most 10 requests at once, no limiter, and another try 2 s after a 429.
"""

import argparse
import asyncio
import json
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import attrs

from comfycontrol_async import ComfyControl, LocalLimiter, RetryPolicy, WatchPolicy
from comfycontrol_async.runs._run import follow_to_end
from comfycontrol_async.testing import LocalServer

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "color": "$text(color)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
DURATION = 30.0
# From its creation to its end: accepted, uploaded, queued and running.
LIFE = 1.0 + DURATION
CONCURRENCY = 200
PER_SECOND = 4.0
POLL = 2.0

CONTEXT = multiprocessing.get_context("spawn")


@attrs.frozen(kw_only=True)
class Place:
    """Where the server is, and how fast it and its limit are."""

    url: str
    token: str
    limit: int
    period: float
    speed: float

    def client(self) -> ComfyControl:
        """Make a client that lives in the server's time."""
        return ComfyControl(
            self.token,
            base_url=self.url,
            limiter=LocalLimiter(self.limit, self.period),
            retry=RetryPolicy(base_delay=0.5 / self.speed),
            watch=WatchPolicy(min_interval=1 / self.speed, max_interval=10 / self.speed),
        )


# What a contender was told: moments of the monotonic clock, by the workflow's id.
Told = dict[str, float]
Contender = Callable[[Place, int], Awaitable[Any]]


@attrs.frozen(kw_only=True)
class Outcome:
    """What a contender did, in seconds of the server, and what it cost."""

    result: Any
    wall: float
    cpu: float
    peak: float
    requests: int
    refused: int
    most: int
    delays: list[float]


def serve(pipe: Connection, options: dict[str, Any]) -> None:
    """Run a server until the other end says so, then say what it saw."""

    async def main() -> None:
        async with LocalServer(**options) as server:
            pipe.send(
                Place(url=server.url, token=server.token, limit=server.limit, period=server.period, speed=server.speed)
            )
            await asyncio.to_thread(pipe.recv)
            origin = time.monotonic() - server.now / server.speed
            ended = {id: origin + record.life.ended / server.speed for id, record in server.workflows.items()}
            pipe.send((len(server.requests), server.refused, server.max_in_window, ended))

    asyncio.run(main())


def play(pipe: Connection, contender: Contender, place: Place, rows: int) -> None:
    """Run one contender and say what it was told and what that cost."""

    async def main() -> tuple[Any, float, float]:
        cpu, wall = time.process_time(), time.monotonic()
        result = await contender(place, rows)
        return result, time.monotonic() - wall, time.process_time() - cpu

    outcome = asyncio.run(main())
    pipe.send((*outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def contend(contender: Contender, rows: int, speed: float, **options: Any) -> Outcome:
    """Run a server and a contender, each in a process of its own."""
    here, there = CONTEXT.Pipe()
    server = CONTEXT.Process(target=serve, args=(there, {"speed": speed, "duration": DURATION} | options), daemon=True)
    server.start()
    place = here.recv()
    mine, theirs = CONTEXT.Pipe()
    client = CONTEXT.Process(target=play, args=(theirs, contender, place, rows), daemon=True)
    client.start()
    theirs.close()
    result, wall, cpu, peak = mine.recv()
    here.send(None)
    requests, refused, most, ended = here.recv()
    client.join()
    server.join()
    told: Told = result if isinstance(result, dict) else {}
    delays = sorted((moment - ended[id]) * speed for id, moment in told.items())
    return Outcome(
        result=result,
        wall=wall * speed,
        cpu=cpu,
        peak=peak,
        requests=requests,
        refused=refused,
        most=most,
        delays=delays,
    )


def rows_of(number: int) -> Iterator[dict[str, Any]]:
    return ({"color": index} for index in range(number))


# Contenders


async def map_rows(place: Place, rows: int, *, outputs: bool = False) -> Told:
    """Run all rows by `map`; told is when each result came."""
    told: Told = {}
    async with place.client() as comfy:
        async for result in comfy.map(GRAPH, rows_of(rows), concurrency=CONCURRENCY, outputs=outputs):
            assert result.run is not None, result.error
            assert len(result.outputs) == outputs, result.error
            told[result.run.id] = time.monotonic()
    return told


async def map_with_outputs(place: Place, rows: int) -> Told:
    return await map_rows(place, rows, outputs=True)


async def each_row(rows: int, one: Callable[[dict[str, Any], Told], Awaitable[None]]) -> Told:
    """Do something for all rows, at most CONCURRENCY at once."""
    told: Told = {}
    waiting = rows_of(rows)

    async def work() -> None:
        for row in waiting:
            await one(row, told)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return told


async def poll_each(place: Place, rows: int) -> Told:
    """Submit, and ask for each workflow every 2 s, through the limiter."""
    async with place.client() as comfy:

        async def one(row: dict[str, Any], told: Told) -> None:
            workflow = await comfy.workflows.create(GRAPH, name="row", params=row)
            while not workflow.status.terminal:
                await asyncio.sleep(POLL / place.speed)
                workflow = await comfy.workflows.get(workflow.id)
            told[workflow.id] = time.monotonic()

        return await each_row(rows, one)


async def semaphore(place: Place, rows: int) -> Told:
    """Submit and poll with bare aiohttp: at most 10 requests at once, no limiter, again 2 s after a 429."""
    turn = asyncio.Semaphore(10)
    headers = {"Authorization": f"Bearer {place.token}"}
    async with aiohttp.ClientSession(place.url, headers=headers) as session:

        async def ask(method: str, path: str, form: Callable[[], aiohttp.FormData] | None = None) -> Any:
            while True:
                async with turn, session.request(method, path, data=form() if form else None) as response:
                    if response.status < 300:
                        return await response.json()
                    assert response.status == 429, response.status
                await asyncio.sleep(POLL / place.speed)

        async def one(row: dict[str, Any], told: Told) -> None:
            def form() -> aiohttp.FormData:
                data = aiohttp.FormData(quote_fields=False)
                data.add_field("name", "row")
                data.add_field("$color", str(row["color"]))
                data.add_field("workflow_json", json.dumps(GRAPH).encode(), filename="workflow.json")
                return data

            workflow = await ask("POST", "/v1/workflow", form)
            while workflow["status"] != "completed":
                await asyncio.sleep(POLL / place.speed)
                workflow = await ask("GET", f"/v1/workflow/{workflow['id']}")
            told[workflow["id"]] = time.monotonic()

        return await each_row(rows, one)


async def run_one(place: Place, rows: int) -> Told:
    """Run one workflow and take its outputs."""
    async with place.client() as comfy:
        run = await comfy.run(GRAPH, params={"color": 1})
        told = {run.id: time.monotonic()}
        assert len(await run.outputs()) == 1
    return told


async def wait_for_all(place: Place, rows: int) -> Told:
    """Wait for workflows that were submitted before, and do nothing else."""
    told: Told = {}
    async with place.client() as comfy:
        runs = [await comfy.submit(GRAPH, params=row) for row in rows_of(rows)]

        async def one(run: Any) -> None:
            await follow_to_end(run, None, outputs=False)
            told[run.id] = time.monotonic()

        await asyncio.gather(*map(one, runs))
    return told


async def run_beside_batch(place: Place, rows: int) -> list[float]:
    """Submit 5 at once, eight times, while a batch is under way; how long each took, in windows of the limit."""
    took: list[float] = []

    async def submit(comfy: ComfyControl) -> None:
        started = time.monotonic()
        await comfy.submit(GRAPH, params={"color": 0})
        took.append((time.monotonic() - started) / place.period)

    async def disturb(comfy: ComfyControl) -> None:
        for _ in range(8):
            await asyncio.sleep(1.3 * place.period)
            await asyncio.gather(*(submit(comfy) for _ in range(5)))

    async with place.client() as comfy:
        disturbing = asyncio.create_task(disturb(comfy))
        async with aclosing(comfy.map(GRAPH, rows_of(rows), concurrency=CONCURRENCY)) as results:
            async for _ in results:
                if disturbing.done():
                    break
        await disturbing
    return took


async def map_long(place: Place, rows: int) -> int:
    """Run many rows from a generator, and keep none."""
    done = 0
    async with place.client() as comfy:
        results = comfy.map(GRAPH, rows_of(rows), key="color", concurrency=CONCURRENCY, outputs=False)
        async for result in results:
            assert result.error is None, result.error
            done += 1
    return done


# Parts


def percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def table(rows: int, speed: float) -> Iterator[str]:
    contenders: list[tuple[str, Contender, int]] = [
        ("`map`, no outputs", map_rows, 1),
        ("`map`, with outputs", map_with_outputs, 2),
        ("poll each every 2 s, same limiter", poll_each, 1),
        ("semaphore of 10, no limiter", semaphore, 1),
    ]
    yield (
        f"{rows} workflows of {DURATION:g} s, at most {CONCURRENCY} unfinished. Ideal wall time: one request "
        f"(two with outputs) for each at {PER_SECOND:g} a second, and one workflow's {LIFE:g} s.\n"
    )
    yield (
        "| way | wall, s | x ideal | requests per workflow | most in 10 s | 429s | told after, median s | p99 s "
        "| peak MB | CPU s |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for name, contender, floor in contenders:
        it = contend(contender, rows, speed)
        ideal = rows * floor / PER_SECOND + LIFE
        yield (
            f"| {name} | {it.wall:.0f} | {it.wall / ideal:.2f} | {it.requests / rows:.3f} | {it.most} | {it.refused} "
            f"| {statistics.median(it.delays):.1f} | {percentile(it.delays, 0.99):.1f} | {it.peak:.0f} | {it.cpu:.1f} |"
        )
        if contender is map_rows:
            bound = 1.05 * it.requests / PER_SECOND + LIFE
            wall = f"wall of `map` without outputs: {it.wall:.0f} s, goal <= {bound:.0f} s"
    yield f"\n{wall} (1.05 x requests / budget + one workflow's duration)\n"


def single(rows: int, speed: float) -> Iterator[str]:
    it = contend(run_one, 1, speed, duration=180.0)
    yield f"one `run` of 3 minutes with outputs: {it.requests} requests (goal 2), told after {it.delays[0]:.1f} s\n"


def hundred(rows: int, speed: float) -> Iterator[str]:
    # 100 that end one after another, long after all were submitted, so that nothing else is going on.
    it = contend(wait_for_all, 100, speed, duration=staggered)
    yield (
        f"100 waiting and nothing else: told after {statistics.median(it.delays):.1f} s in the median (goal 2), "
        f"p99 {percentile(it.delays, 0.99):.1f} s, {it.requests - 100} requests for looking\n"
    )


def staggered(index: int) -> float:
    return 60.0 + (index * 37 % 100) * 0.6


def urgent(rows: int, speed: float) -> Iterator[str]:
    it = contend(run_beside_batch, 5 * rows, speed)
    took = sorted(it.result)
    yield (
        f"5 concurrent `run` beside a batch of {5 * rows} rows with outputs, eight times: submitted after "
        f"{statistics.median(took):.2f} windows in the median, {took[-1]:.2f} at the most (goal 1)\n"
    )


def memory(rows: int, speed: float) -> Iterator[str]:
    peaks = {}
    for number in (1000, rows):
        it = contend(map_long, number, 20.0, duration=1.0, limit=100_000)
        peaks[number] = it.peak
        yield (
            f"`map` of {number} rows from a generator: peak {it.peak:.1f} MB, "
            f"{it.requests / number:.2f} requests each, CPU {it.cpu:.0f} s"
        )
    yield f"difference {peaks[rows] - peaks[1000]:.1f} MB (goal 20)\n"


PARTS = {"table": table, "single": single, "hundred": hundred, "urgent": urgent, "memory": memory}


def machine() -> str:
    cores = multiprocessing.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "attrs", "cattrs"))
    return f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=float, default=10.0, help="server seconds in a real one")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--long", type=int, default=100_000, help="rows of the memory part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--output", type=Path, help="write the tables here too")
    arguments = parser.parse_args()
    lines = [f"{machine()}; server at speed {arguments.speed:g}\n"]
    print(lines[0])
    for part in arguments.only:
        for line in PARTS[part](arguments.long if part == "memory" else arguments.rows, arguments.speed):
            print(line, flush=True)
            lines.append(line)
    if arguments.output:
        arguments.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
