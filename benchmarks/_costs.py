"""What a limiter costs, and what it lets through: the measurements of `limiter.py`, one function each."""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs
from _peers import Acquire, Peer

SLOTS = 8192


@attrs.frozen
class Drain:
    """How a crowd went through: seconds per grant, how many overtook others, how many never went."""

    wall: float | None
    cpu: float | None
    inversions: int
    stuck: int


async def uncontended(peer: Peer, rounds: int) -> float:
    """Return the seconds of CPU of one acquire, settled where the limiter wants that, while there is always room."""
    # Few enough slots for the cache, and each is free again before its turn comes: ours adds 2 ms to the period.
    reuses = peer.settle is not None or peer.name.startswith("floor")
    acquire = peer.make(SLOTS, 0.0001) if reuses else peer.make(10 * rounds, 3600.0)
    if peer.settle is None:
        for _ in range(SLOTS):
            await acquire()
        started = time.process_time()
        for _ in range(rounds):
            await acquire()
        return (time.process_time() - started) / rounds
    # `permit.arrived()` as a user writes it, not through a function of ours.
    for _ in range(SLOTS):
        (await acquire()).arrived()
    started = time.process_time()
    for _ in range(rounds):
        (await acquire()).arrived()
    return (time.process_time() - started) / rounds


async def drain(peer: Peer, count: int, limit: int, period: float, patience: float, cancel: bool = False) -> Drain:
    """Send a crowd through a limiter; with `cancel` every second waiter gives up before the first period is over."""
    acquire = peer.make(limit, period)
    order: list[int] = []
    settles = peer.settle is not None

    async def wait(index: int) -> None:
        permit = await acquire()
        order.append(index)
        if settles:
            permit.arrived()

    gc.collect()
    started, cpu = time.perf_counter(), time.process_time()
    tasks = [asyncio.create_task(wait(index)) for index in range(count)]
    if cancel:
        await asyncio.sleep(period / 2)
        for task in tasks[1::2]:
            task.cancel()
    try:
        async with asyncio.timeout(patience):
            await asyncio.gather(*tasks, return_exceptions=True)
        in_time = True
    except TimeoutError:
        in_time = False
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    stuck = sum(task.cancelled() or not task.done() for task in (tasks[::2] if cancel else tasks))
    await _end(tasks)
    first = 0
    inversions = 0
    for index in order:
        inversions += index < first
        first = max(first, index)
    if not in_time:
        return Drain(None, None, inversions, stuck)
    return Drain(wall / count, cpu / count, inversions, 0)


async def _end(tasks: list["asyncio.Task[Any]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def memory(acquire: Acquire | None, count: int) -> float:
    """Return the bytes of one waiter; with no limiter, of a task that waits for a future."""
    loop = asyncio.get_running_loop()

    async def bare(future: "asyncio.Future[None]") -> None:
        await future

    async def wait(acquire: Acquire) -> None:
        await acquire()

    tasks: list[asyncio.Task[None]] = [asyncio.create_task(asyncio.sleep(0)) for _ in range(count)]
    await asyncio.gather(*tasks)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for index in range(count):
        tasks[index] = asyncio.create_task(bare(loop.create_future()) if acquire is None else wait(acquire))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    await _end(tasks)
    return used / count


async def waiter_memory(peer: Peer, count: int) -> float:
    """Return the bytes of one waiter at a limiter that has nothing to give."""
    acquire = peer.make(1, 3600.0)
    held = await acquire()
    used = await memory(acquire, count)
    if peer.settle is not None:
        peer.settle(held)
    return used


async def parked(peer: Peer, count: int, limit: int, period: float) -> tuple[float, int]:
    """Return the share of a core that a parked crowd costs over a period, and the timers that lie in the loop."""
    acquire = peer.make(limit, period)
    settles = peer.settle is not None

    async def wait() -> None:
        permit = await acquire()
        if settles:
            permit.arrived()

    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    await asyncio.sleep(1.0)
    gc.collect()
    gc.disable()
    # Only timers that are still due count: a cancelled one stays in the heap for a while. uvloop shows none.
    timers = [handle for handle in getattr(asyncio.get_running_loop(), "_scheduled", ()) if not handle.cancelled()]
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.sleep(period - 1.5)
    share = (time.process_time() - cpu) / (time.perf_counter() - started)
    gc.enable()
    await _end(tasks)
    return share, len(timers)


async def timers(peer: Peer, count: int, limit: int, period: float) -> float:
    """Return the timers that are set per admission."""
    loop = asyncio.get_running_loop()
    made = 0
    call_at = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: Any, **options: Any) -> asyncio.TimerHandle:
        nonlocal made
        made += 1
        return call_at(when, callback, *args, **options)

    loop.call_at = counted  # type: ignore[method-assign, assignment] # asyncio's own call_later goes through it
    try:
        await drain(peer, count, limit, period, patience=30.0)
    finally:
        loop.call_at = call_at  # type: ignore[method-assign]
    return made / count


PATTERNS: dict[str, list[tuple[float, int]]] = {
    # In periods and limits: wait so long, then want so many.
    "burst": [(0.0, 3)],
    "burst after idle": [(1.5, 3)],
    "edge": [(0.9, 1), (0.2, 1), (0.8, 1), (0.2, 1)],
    "trickle and burst": [*[(0.05, 0)] * 20, (0.0, 2)],
}


async def most_admitted(peer: Peer, pattern: str, limit: int, period: float) -> int:
    """Return the most admissions in any half-open period when requests are wanted in this pattern."""
    acquire = peer.make(limit, period)
    settles = peer.settle is not None
    times: list[float] = []

    async def wait() -> None:
        permit = await acquire()
        times.append(time.monotonic())
        if settles:
            permit.arrived()

    tasks: list[asyncio.Task[None]] = []
    for pause, limits in PATTERNS[pattern]:
        await asyncio.sleep(pause * period)
        tasks += [asyncio.create_task(wait()) for _ in range(limits * limit or 1)]
    with suppress(TimeoutError):
        async with asyncio.timeout(6 * period):
            await asyncio.gather(*tasks)
    await _end(tasks)
    most = first = 0
    for index, at in enumerate(times):
        while at - times[first] >= period:
            first += 1
        most = max(most, index - first + 1)
    return most
