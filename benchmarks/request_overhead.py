"""What one request of the client costs in CPU, beside bare aiohttp in the same run.

    python benchmarks/request_overhead.py [--rounds 31] [--requests 200] [--json FILE]

The server runs in a process of its own, so that `time.process_time` counts the client alone. The contenders take turns
within every round, in an order that changes; what is shown is the median over the rounds, and the ratio of medians.
Bare aiohttp means `session.get` and `response.json()` on a default session: no limiter, no retries, no models, and of
the timeouts only a total. The second table takes the client's request apart, layer by layer.
"""

import argparse
import asyncio
import gc
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from _report import machine, save, table, versions

from comfycontrol_async import ComfyControl, LocalLimiter, Timeouts
from comfycontrol_async.events import RequestFinished
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.resources.user import _USER
from comfycontrol_async.testing import LocalServer

PAGE = 100
GOAL, GOAL_FILE = 1.2, 1.25
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}

Step = Callable[[], Awaitable[object]]


@attrs.frozen
class Contender:
    """A way of doing something, `width` at a time."""

    name: str
    step: Step
    width: int = 1


def serve(pipe: Connection) -> None:
    """Run a server without a limit that matters until the other end of the pipe closes."""

    async def main() -> None:
        async with LocalServer(limit=10**9, period=0.001, duration=0.0) as server:
            pipe.send((server.url, server.token))
            await asyncio.to_thread(pipe.poll, None)

    asyncio.run(main())


async def measure(contender: Contender, requests: int) -> float:
    """Return the microseconds of CPU that one request takes."""
    each = requests // contender.width

    async def some() -> None:
        for _ in range(each):
            await contender.step()

    gc.collect()
    started = time.process_time()
    if contender.width == 1:
        await some()
    else:
        await asyncio.gather(*(some() for _ in range(contender.width)))
    return (time.process_time() - started) / (each * contender.width) * 1e6


async def compare(contenders: Sequence[Contender], rounds: int, requests: int) -> dict[str, float]:
    """Return the median microseconds of each contender, by name."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    order = list(contenders)
    for number in range(rounds + 1):
        random.shuffle(order)
        for contender in order:
            spent = await measure(contender, requests)
            if number:  # the first round warms up
                times[contender.name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def contenders_of(url: str, token: str, session: aiohttp.ClientSession, comfy: ComfyControl) -> list[Contender]:
    headers = {"Authorization": f"Bearer {token}"}
    defaults = Timeouts()
    bounded = aiohttp.ClientTimeout(total=defaults.total, sock_connect=defaults.connect, sock_read=defaults.read)
    pipeline = comfy._pipeline
    raw = attrs.evolve(_USER, structure=lambda value: value)

    async def bare(path: str, **options: Any) -> Any:
        async with session.get(url + path, headers=headers, **options) as response:
            return await response.json()

    async def attempt() -> None:
        permit = await comfy.limiter.acquire()
        await pipeline.transport.fetch(_USER, permit, pipeline.timeouts)

    pager = comfy.workflows.list(per_page=PAGE)
    return [
        Contender("bare", lambda: bare("/v1/user")),
        Contender("bare, read timeout", lambda: bare("/v1/user", timeout=bounded)),
        Contender("transport", attempt),
        Contender("pipeline", lambda: pipeline.send(raw)),
        Contender("client", comfy.user.get),
        Contender("bare, 20", lambda: bare("/v1/user"), width=20),
        Contender("client, 20", comfy.user.get, width=20),
        Contender("bare, page", lambda: bare(f"/v1/workflow?page=1&per_page={PAGE}")),
        Contender("client, page", lambda: pager.page(1)),
    ]


async def run(url: str, token: str, rounds: int, requests: int) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # As many slots as the default has; each is free again before its turn comes.
        in_file = FileLimiter(folder / "budget", limit=40, period=0.001)
        comfy, filed, heard = [
            await stack.enter_async_context(ComfyControl(token, base_url=url, limiter=limiter))
            for limiter in (LocalLimiter(100_000, 10.0), in_file, LocalLimiter(100_000, 10.0))
        ]
        heard.on(RequestFinished, lambda event: None)
        for number in range(PAGE):
            await comfy.workflows.create(GRAPH, name=f"workflow {number}")
        page = await comfy.workflows.list(per_page=PAGE).page(1)
        assert len(page.items) == PAGE
        contenders = [
            *contenders_of(url, token, session, comfy),
            Contender("client, file", filed.user.get),
            Contender("client, listener", heard.user.get),
        ]
        return await compare(contenders, rounds, requests)


def report(times: dict[str, float], rounds: int, requests: int) -> str:
    def row(name: str, ending: str, goal: str = "", beside: str | None = None) -> list[str]:
        bare, client = times[f"bare{ending if beside is None else beside}"], times[f"client{ending}"]
        return [name, f"{bare:.0f}", f"{client:.0f}", f"{client / bare:.2f}", goal]

    layers = [
        ("bare `session.get` + `json()`", "bare"),
        ("+ a read timeout (`sock_read`)", "bare, read timeout"),
        ("transport: + limiter, middleware, classification; no JSON yet", "transport"),
        ("pipeline: + the retry loop, JSON", "pipeline"),
        ("`user.get()`: + the model", "client"),
    ]
    used = ", ".join(f"{name} {number}" for name, number in versions(("aiohttp", "attrs", "cattrs", "orjson")).items())
    main = table(
        ("request", "bare aiohttp, us", "client, us", "ratio", "goal"),
        [
            row("user.get(), one after another", "", f"<= {GOAL}"),
            row("the same with a FileLimiter, the default", ", file", f"<= {GOAL_FILE}", beside=""),
            row("the same with a listener for each request", ", listener", beside=""),
            row("user.get(), 20 at once", ", 20"),
            row(f"workflows.list().page(1), {PAGE} items", ", page"),
        ],
    )
    parts = table(("up to here", "us"), [(name, f"{times[key]:.0f}") for name, key in layers])
    return (
        "# CPU of one request\n\n"
        f"Machine: {machine()}; {used}. Medians of {rounds} rounds of {requests} requests.\n\n{main}\n\n"
        f"Layer by layer, one request after another:\n\n{parts}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--requests", type=int, default=200, help="requests of each contender in each round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    server = context.Process(target=serve, args=(other,), daemon=True)
    server.start()
    other.close()
    url, token = pipe.recv()
    try:
        times = asyncio.run(run(url, token, options.rounds, options.requests))
    finally:
        pipe.close()
        server.join(5)
    facts = {"machine": machine(), "microseconds": times, "ratio": times["client"] / times["bare"], "goal": GOAL}
    save("request_overhead", report(times, options.rounds, options.requests), facts, options.json)


if __name__ == "__main__":
    main()
