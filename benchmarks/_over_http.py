"""All limiters at the real limit over real HTTP: each has a server of its own, and a batch wanted at once."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import attrs
from _peers import OURS, PEERS, Peer, installed

from comfycontrol_async import ComfyControl, LocalLimiter, RetryPolicy, TransportError
from comfycontrol_async.testing import LocalServer

LIMIT, PERIOD, COOLDOWN = 40, 10.0, 10.0
SIGMA = math.log(510 / 80) / 2.3263

NETWORKS: dict[str, tuple[Callable[[random.Random], float], float]] = {
    "uniform 20-200 ms": (lambda chance: chance.uniform(0.02, 0.2), 0.0),
    "heavy tail, 1 % lost": (lambda chance: 0.08 * math.exp(chance.gauss(0.0, SIGMA)), 0.01),
}


@attrs.frozen
class Answered:
    """What became of a batch: seconds until the last of it, refusals, arrivals in the worst window, lost requests."""

    peer: str
    network: str
    elapsed: float | None
    refused: int
    most: int
    lost: int


async def batch(peer: Peer, network: str, count: int, patience: float) -> Answered:
    """Want `count` answers at once; a lost request is not sent again, a refused one is, after the cooldown."""
    draw, loss = NETWORKS[network]
    chance = random.Random(network)
    async with LocalServer(latency=lambda: draw(chance), loss=loss, seed=1) as server:
        started = time.monotonic()
        try:
            async with asyncio.timeout(patience), _ours(server) if peer is OURS else _theirs(peer, server) as send:
                started = time.monotonic()
                await asyncio.gather(*(send() for _ in range(count)))
                elapsed = time.monotonic() - started
        except TimeoutError:
            elapsed = None
        return Answered(peer.name, network, elapsed, server.refused, server.max_in_window, server.lost)


Send = Callable[[], Awaitable[None]]


@asynccontextmanager
async def _ours(server: LocalServer) -> AsyncIterator[Send]:
    """Send with the client, once: it sends again what was refused, and lets aiohttp resend nothing by itself."""
    limiter = LocalLimiter(LIMIT, PERIOD)
    once = RetryPolicy(attempts=1)
    async with ComfyControl(server.token, base_url=server.url, limiter=limiter, retry=once) as comfy:

        async def send() -> None:
            with suppress(TransportError):
                await comfy.user.get()

        yield send


@asynccontextmanager
async def _theirs(peer: Peer, server: LocalServer) -> AsyncIterator[Send]:
    """Send with bare aiohttp, which sends again by itself when a kept-alive connection breaks."""
    acquire = peer.make(LIMIT, PERIOD)
    headers = {"Authorization": f"Bearer {server.token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, headers=headers, connector=connector) as session:

        async def send() -> None:
            while True:
                await acquire()
                try:
                    async with session.get("/v1/user") as response:
                        await response.read()
                except aiohttp.ClientError:
                    return
                if response.status != 429:
                    return
                await asyncio.sleep(COOLDOWN)

        yield send


async def all_at_once(count: int, patience: float) -> list[Answered]:
    """Run every limiter beside the others, one network after the other."""
    results: list[Answered] = []
    for network in NETWORKS:
        jobs: list[Any] = [batch(peer, network, count, patience) for peer in [OURS, *installed(PEERS)]]
        results += await asyncio.gather(*jobs)
    return results
