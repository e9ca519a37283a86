"""Tasks cancelled at any moment leave no slot, no socket, no stream, no task and no half file behind."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, ComfyControlError, LocalLimiter
from support.graphs import FILE_GRAPH, GRAPH
from support.services import client_of, connected, own_tasks, serving
from support.waiting import eventually

Call = Callable[[ComfyControl, Path], Awaitable[Any]]


async def _run_and_download(comfy: ComfyControl, directory: Path) -> None:
    run = await comfy.run(GRAPH)
    await run.download(directory / run.id)


async def _subscribe(comfy: ComfyControl, directory: Path) -> None:
    made = await comfy.workflows.create(GRAPH, name="w")
    async for _ in comfy.workflows.subscribe(made.id):
        pass


CALLS: dict[str, Call] = {
    "get": lambda comfy, directory: comfy.user.get(),
    "list": lambda comfy, directory: comfy.workflows.list(per_page=5).all(),
    "create": lambda comfy, directory: comfy.workflows.create(GRAPH, name="w"),
    "upload": lambda comfy, directory: comfy.submit(FILE_GRAPH, params={"prefix": "p", "image": bytes(500_000)}),
    "run": lambda comfy, directory: comfy.run(GRAPH),
    "run-cancel": lambda comfy, directory: comfy.run(GRAPH, on_cancel="cancel"),
    "download": _run_and_download,
    "subscribe": _subscribe,
}


def sockets() -> int:
    """Count the sockets of this process."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
        except OSError:
            continue  # the one that lists the directory
    return found


def part_files(directory: Path) -> list[Path]:
    """List the files that are half done."""
    return list(directory.rglob("*.part"))


def free(comfy: ComfyControl) -> bool:
    """Return whether no task waits for the limiter and no slot is taken."""
    state = comfy.limiter.snapshot()
    return state.used == 0 and not sum(state.waiting.values())


async def cancel_after(task: "asyncio.Task[Any]", turns: int) -> None:
    """Cancel a task after so many turns of the loop, and wait until it has ended, one way or the other."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        assert task.exception() is None or isinstance(task.exception(), ComfyControlError)


async def test_one_at_a_time(tmp_path: Path) -> None:
    """A call of each kind is cancelled at every turn of the loop in which it runs; no slot stays taken."""
    async with connected(duration=1.0) as (server, comfy):
        before = own_tasks()
        await comfy.user.get()
        for call in CALLS.values():
            for turns in [*range(14), 17, 21, 26, 35, 50, 80, 120]:
                await cancel_after(asyncio.ensure_future(call(comfy, tmp_path)), turns)
        assert (await comfy.user.get()).name == "Local User"
        await eventually(lambda: free(comfy))
        await eventually(lambda: server.open_streams == 0)
        await eventually(lambda: not [task for task in own_tasks() - before if "comfycontrol" in task.get_name()])
        assert part_files(tmp_path) == []


async def test_many_at_once(tmp_path: Path) -> None:
    """Of 80 tasks that share a budget, most are cancelled at random; the rest get through, and nothing is left."""
    choose = random.Random(1)
    before_sockets, before_tasks = sockets(), own_tasks()
    async with serving(limit=40, duration=1.0) as server, client_of(server) as comfy:
        kinds = [choose.choice(list(CALLS)) for _ in range(80)]
        tasks = [asyncio.ensure_future(CALLS[kind](comfy, tmp_path)) for kind in kinds]
        doomed = choose.sample(tasks, 60)
        await asyncio.gather(*(cancel_after(task, choose.randrange(250)) for task in doomed))
        kept = [task for task in tasks if task not in doomed]
        async with asyncio.timeout(30):
            assert len(await asyncio.gather(*kept)) == 20
        await eventually(lambda: free(comfy))
        await eventually(lambda: server.open_streams == 0)
        assert server.refused == 0
        assert server.max_in_window <= 40
        # The whole budget is there again: a full burst does not wait.
        await asyncio.gather(*(comfy.user.get() for _ in range(40)))
        assert comfy.limiter.snapshot().used <= 40
    assert part_files(tmp_path) == []
    await eventually(lambda: sockets() <= before_sockets)
    await eventually(lambda: own_tasks() <= before_tasks)


async def test_while_waiting_for_the_limit() -> None:
    """Those who are cancelled while they wait cost nothing: the others get their turns in order."""
    async with serving(limit=5) as server, client_of(server) as comfy:
        tasks = [asyncio.create_task(comfy.user.get()) for _ in range(100)]
        await eventually(lambda: sum(comfy.limiter.snapshot().waiting.values()) == 95)
        for task in tasks[5:95]:
            task.cancel()
        assert len(await asyncio.gather(*tasks[:5], *tasks[95:])) == 10
        assert len(server.requests) == 10
        assert server.refused == 0


async def test_what_never_left_costs_nothing() -> None:
    """A request that is cancelled before it is on the wire gives its slot back; one that is on it keeps it."""
    async with serving(speed=1.0) as server:
        limiter = LocalLimiter(10, 60.0)
        async with client_of(server, limiter=limiter) as comfy:
            task = asyncio.create_task(comfy.user.get())
            await asyncio.sleep(0)  # it has its permit and asks for a connection
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert limiter.snapshot().used == 0
            server.delay_next("GET", "/v1/user", 1000.0)
            task = asyncio.create_task(comfy.user.get())
            await eventually(lambda: len(server.requests) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert limiter.snapshot().used == 1


async def test_closing_in_the_middle() -> None:
    """Closing the client ends all its streams and connections, while others still wait for runs."""
    async with serving(duration=10_000.0) as server:
        before = own_tasks()
        comfy = client_of(server)
        runs = [await comfy.submit(GRAPH) for _ in range(3)]
        waiting = [asyncio.create_task(run.wait()) for run in runs]
        await eventually(lambda: server.open_streams == 3)
        await comfy.aclose()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, ComfyControlError) for result in results)
        await eventually(lambda: server.open_streams == 0)
        await eventually(lambda: not [task for task in own_tasks() - before if "comfycontrol" in task.get_name()])
