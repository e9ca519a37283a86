"""A line that holds everything back for seconds, behind a relay that acknowledges at once: the limit is kept."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from comfycontrol_async import ComfyControl, File, LocalLimiter, Priority
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH
from support.limiters import most_in_any_period
from support.services import raw_server

PERIOD = 4.0


@asynccontextmanager
async def relay(target: str, held_until: float) -> AsyncIterator[str]:
    """Pass bytes on to a server, what the client sends not before a moment; give the relay's own address."""
    url = urlsplit(target)
    assert url.hostname is not None

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(url.hostname, url.port)

        async def up() -> None:
            while chunk := await reader.read(65536):
                await asyncio.sleep(max(0.0, held_until - time.monotonic()))
                ahead.write(chunk)

        async def down() -> None:
            while chunk := await behind.read(65536):
                writer.write(chunk)

        tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            ahead.close()

    async with raw_server(talk) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.mark.slow
@pytest.mark.parametrize("stall", [3.5, 5.0, 12.0])
async def test_stall(stall: float) -> None:
    """What a relay has acknowledged has not arrived: while nothing is answered, no slot is given up."""
    async with LocalServer(limit=40, period=PERIOD, cooldown=PERIOD) as server:
        async with (
            relay(server.url, time.monotonic() + stall) as url,
            ComfyControl(server.token, base_url=url, limiter=LocalLimiter(40, PERIOD)) as comfy,
        ):
            await asyncio.gather(*(comfy.user.get() for _ in range(100)))
        assert server.refused == 0
        assert most_in_any_period([request.at for request in server.requests], PERIOD) <= 40
        assert len(server.requests) == 100


@pytest.mark.slow
async def test_uploads_that_move_on() -> None:
    """Forty uploads of 20 s hold their slots for 3.5 s and a period: what leaves after them waits no longer."""
    seconds, period = 20.0, 10.0
    async with LocalServer() as server:
        url = urlsplit(server.url)
        body = 6_000_000

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Read uploads as slowly as a thin line delivers them, and pass other requests on."""
            head = await reader.readuntil(b"\r\n\r\n")
            behind, ahead = await asyncio.open_connection(url.hostname, url.port)
            try:
                ahead.write(head)
                while head.startswith(b"POST /v1/workflow ") and (chunk := await reader.read(30_000)):
                    ahead.write(chunk)
                    if chunk.endswith(b"--\r\n"):
                        break
                    await asyncio.sleep(seconds * len(chunk) / body)
                answer = await behind.readuntil(b"\r\n\r\n")
                writer.write(answer.replace(b"keep-alive", b"close") + await behind.read(65536))
            finally:
                ahead.close()

        async with raw_server(talk) as port:
            comfy = ComfyControl(
                server.token, base_url=f"http://127.0.0.1:{port}", limiter=LocalLimiter(server.limit, period)
            )
            async with comfy:
                uploads = [
                    asyncio.create_task(comfy.submit(FILE_GRAPH, params={"image": File(b"x" * body)}))
                    for _ in range(40)
                ]
                await asyncio.sleep(0.5)
                begun = time.monotonic()
                await comfy.with_options(priority=Priority.INTERACTIVE).user.get()
                waited = time.monotonic() - begun
                for upload in uploads:
                    upload.cancel()
                await asyncio.wait(uploads)
    assert waited < 14.5
