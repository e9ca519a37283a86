"""A storage host that answers byte for byte what a test says, and a run whose outputs lie there."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from aiohttp import web

from comfycontrol_async import RetryPolicy, WorkflowRun
from support.services import ID, Received, Recorder, client_at, raw_server, recording


@attrs.frozen
class Asked:
    """A request as it stood on the wire; header names in lower case."""

    target: str
    headers: dict[str, str]
    # How many requests came before it.
    number: int


Reply = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


@attrs.define
class RawStorage:
    """A host whose every answer is written by `reply`; the connection is closed after it."""

    url: str
    asked: list[Asked] = attrs.field(factory=list)


@asynccontextmanager
async def raw_storage(reply: Reply) -> AsyncIterator[RawStorage]:
    """Run a storage host."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines if one)}
        asked = Asked(line.split(" ", 1)[1].rpartition(" ")[0], headers, len(storage.asked))
        storage.asked.append(asked)
        await reply(asked, writer)
        await writer.drain()

    storage = RawStorage("")
    async with raw_server(talk) as port:
        storage.url = f"http://127.0.0.1:{port}"
        yield storage


def http(
    body: bytes = b"", *headers: str, status: int = 200, length: int | None = -1, kind: str = "image/png"
) -> bytes:
    """Write an answer; `length` is the body's own unless it is told, None leaves it out."""
    lines = [f"HTTP/1.1 {status} X", "Connection: close", *headers]
    if kind:
        lines.append(f"Content-Type: {kind}")
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def chunked(body: bytes, *headers: str, kind: str = "image/png") -> bytes:
    """Write an answer in chunks of 1000 bytes."""
    pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return http(b"", "Transfer-Encoding: chunked", *headers, length=None, kind=kind) + framed


def reset(writer: asyncio.StreamWriter) -> None:
    """Break the connection with a TCP reset."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def saying(*answers: bytes) -> Reply:
    """Reply with one answer after the other, and with the last one from then on."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[min(asked.number, len(answers) - 1)])

    return reply


@asynccontextmanager
async def run_with(*sources: str | Callable[[], str], **options: Any) -> AsyncIterator[tuple[WorkflowRun, Recorder]]:
    """Give a run whose outputs have these URLs, and the API that lists them; a function makes one for each listing."""

    def answer(received: Received) -> web.Response:
        urls = [source if isinstance(source, str) else source() for source in sources]
        return web.json_response([{"id": "output", "workflow_id": ID, "src": url} for url in urls])

    given: dict[str, Any] = {"retry": RetryPolicy(attempts=3, base_delay=0.001, max_delay=0.001)}
    async with recording(answer) as api, client_at(api.url, **(given | options)) as comfy:
        yield comfy.get_run(ID), api
