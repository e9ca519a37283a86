"""Bounds of our own: on silence until the headers are here, and on bodies after decompression."""

import asyncio
import gzip
import json
import re
import socket
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohappyeyeballs
import aiohttp
import pytest
from aiohttp import web

from comfycontrol_async import (
    BadRequestError,
    ComfyControl,
    File,
    RequestTimeoutError,
    ResponseFormatError,
    SubmitOutcomeUnknownError,
    Timeouts,
)
from support import documented
from support.graphs import FILE_GRAPH, GRAPH
from support.services import ONCE, UNKNOWN_ID, USER, Received, client_at, raw_server, recording


@asynccontextmanager
async def client_of_raw(talk: Any, given: bool, *, total: float | None) -> AsyncIterator[ComfyControl]:
    """Make a client that bears 0.2 s of silence, with its own session or a given one, of a server that talks so."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(raw_server(talk))
        session = await stack.enter_async_context(aiohttp.ClientSession()) if given else None
        timeouts = Timeouts(read=0.2, total=total)
        yield await stack.enter_async_context(
            client_at(f"http://127.0.0.1:{port}", session=session, timeouts=timeouts, retry=ONCE)
        )


class TestSilence:
    """Between the request and its headers there is a bound of our own, whatever comes in between."""

    @pytest.mark.parametrize("given", [False, True], ids=["own-session", "given-session"])
    @pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
    @pytest.mark.parametrize("kind", ["call", "upload", "stream"])
    async def test_interim_answers(self, kind: str, interim: bytes, given: bool) -> None:
        """An interim answer does not extend it: not for calls, uploads or streams, also without a total."""

        async def tease(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(interim)
                await reader.read(65536)
                await asyncio.sleep(0.02)

        async with client_of_raw(tease, given, total=None) as comfy:
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "call": comfy.user.get,
                "upload": lambda: comfy.workflows.create(GRAPH, name="n"),
                "stream": lambda: anext(comfy.workflows.subscribe(UNKNOWN_ID)),
            }
            with pytest.raises((RequestTimeoutError, SubmitOutcomeUnknownError)) as caught:
                await asyncio.wait_for(calls[kind](), 10)
        assert isinstance(caught.value if kind != "upload" else caught.value.__cause__, RequestTimeoutError)

    @pytest.mark.parametrize("total", [None, 60.0], ids=["no-total", "total"])
    @pytest.mark.parametrize("given", [False, True], ids=["own-session", "given-session"])
    @pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"], ids=["all", "body"])
    async def test_silent(self, said: bytes, given: bool, total: float | None) -> None:
        """Silence before the headers or within the body ends a call, long before the total and without one."""

        async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(said)
            await reader.read(65536)  # until the client goes

        async with client_of_raw(fall_silent, given, total=total) as comfy:
            with pytest.raises(RequestTimeoutError):
                await asyncio.wait_for(comfy.user.get(), 10)

    async def test_silence_begins_when_it_is_written(self) -> None:
        """A connection that took long to be made leaves an answer its whole time."""

        start_connection = aiohappyeyeballs.start_connection

        async def connect_slowly(**options: Any) -> socket.socket:
            await asyncio.sleep(0.5)
            return await start_connection(**options)

        async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.5)
            body = json.dumps(USER).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(aiohappyeyeballs, "start_connection", connect_slowly)
            async with (
                raw_server(answer_slowly) as port,
                client_at(f"http://127.0.0.1:{port}", timeouts=Timeouts(read=0.9), retry=ONCE) as comfy,
            ):
                assert (await comfy.user.get()).name == USER["name"]

    async def test_an_upload_that_stands_still(self) -> None:
        """A server that stops reading ends an upload, although its end was never written."""

        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined] # of sockets
            await asyncio.Event().wait()

        async with (
            raw_server(stall) as port,
            client_at(f"http://127.0.0.1:{port}", timeouts=Timeouts(read=0.3), retry=ONCE) as comfy,
        ):
            image = File(b"x" * 30_000_000, filename="a.png")
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await asyncio.wait_for(
                    comfy.workflows.create(FILE_GRAPH, name="n", params={"image": image, "prefix": "p"}), 10
                )
        assert isinstance(caught.value.__cause__, RequestTimeoutError)

    async def test_a_slow_upload_is_not_cut(self) -> None:
        """While bytes move, however slowly, nothing is silent."""

        async def sip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            left = int(re.search(rb"Content-Length: (\d+)", head)[1])  # type: ignore[index] # it is there
            for _ in range(8):
                await asyncio.sleep(0.2)
                left -= len(await reader.readexactly(min(left, 1_000_000)))
            await reader.readexactly(left)
            body = json.dumps(documented.ACCEPTED).encode()
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

        async with (
            raw_server(sip) as port,
            client_at(f"http://127.0.0.1:{port}", timeouts=Timeouts(read=1.0), retry=ONCE) as comfy,
        ):
            image = File(b"x" * 20_000_000, filename="a.png")
            made = await comfy.workflows.create(FILE_GRAPH, name="n", params={"image": image, "prefix": "p"})
        assert made.id == documented.ACCEPTED["id"]


class TestLargeBodies:
    """Bodies are bounded after decompression."""

    @pytest.mark.parametrize("status", [200, pytest.param(400, marks=pytest.mark.slow)])
    async def test_bomb(self, status: int) -> None:
        """A small answer that unpacks to 110 MB is refused long before, or read as far as an error page goes."""
        packed = gzip.compress(b" " * 110_000_000, 1)

        def reply(received: Received) -> web.Response:
            headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
            return web.Response(status=status, body=packed, headers=headers)

        async with recording(reply) as server, client_at(server.url, retry=ONCE) as comfy:
            tracemalloc.start()
            try:
                with pytest.raises(ResponseFormatError if status == 200 else BadRequestError) as caught:
                    await comfy.user.get()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert ("larger than 64 MB" in str(caught.value)) is (status == 200)
        assert peak < 100_000_000

    async def test_a_large_answer(self) -> None:
        """What is large and within the bound is read whole."""
        text = "x" * 5_000_000

        def reply(received: Received) -> web.Response:
            return web.json_response({**USER, "name": text})

        async with recording(reply) as server, client_at(server.url, retry=ONCE) as comfy:
            assert (await comfy.user.get()).name == text
