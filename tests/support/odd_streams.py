"""A raw server whose event streams are odd in one of many ways, and which refuses further ones in one of a few.

The workflow completes a moment after its first stream was asked for; its full object and the listing tell the truth.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs

from support.services import ID, raw_server

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
PLAIN = HEAD + b"Connection: close\r\n\r\n"
CREATED = "2024-01-15T10:30:00Z"
# Seconds after which the workflow is completed, and between the pieces of a stream that goes on for ever.
ENDS = 0.15
STEP = 0.02

Writer = asyncio.StreamWriter
Odd = Callable[["OddServer", Writer], Awaitable[None]]


def event(status: str = "running", **fields: Any) -> bytes:
    """Write an event."""
    known: dict[str, Any] = {"prompt": None, "queue_number": None, "outputs": [], "cause": None}
    return b"data: " + json.dumps({"status": status, **known, **fields}).encode() + b"\n\n"


def whole(*pieces: bytes, head: bytes = PLAIN) -> Odd:
    """Send some bytes, and close."""

    async def talk(server: "OddServer", writer: Writer) -> None:
        writer.write(head + b"".join(pieces))
        await writer.drain()

    return talk


def stalling(*pieces: bytes, head: bytes = PLAIN) -> Odd:
    """Send some bytes, and nothing more."""

    async def talk(server: "OddServer", writer: Writer) -> None:
        writer.write(head + b"".join(pieces))
        await writer.drain()
        await asyncio.Event().wait()

    return talk


def endless(piece: bytes, *first: bytes, head: bytes = PLAIN) -> Odd:
    """Send some bytes, and then a piece again and again."""

    async def talk(server: "OddServer", writer: Writer) -> None:
        writer.write(head + b"".join(first))
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(STEP)

    return talk


async def abort(server: "OddServer", writer: Writer) -> None:
    """Reset the connection."""
    writer.transport.abort()


async def silence(server: "OddServer", writer: Writer) -> None:
    """Answer nothing at all."""
    await asyncio.Event().wait()


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ODD: dict[str, Odd] = {
    "nothing": whole(),
    "no-answer": silence,
    "reset": abort,
    "closed-before-headers": whole(head=b""),
    "half-a-header": stalling(head=b"HTTP/1.1 200 OK\r\nContent-Ty"),
    "interim-for-ever": endless(b"HTTP/1.1 103 Early Hints\r\n\r\n", head=b""),
    "headers-only": stalling(),
    "one-update": whole(event()),
    "one-update-then-silence": stalling(event()),
    "half-an-update": whole(event()[:20]),
    "half-an-update-then-silence": stalling(event()[:20]),
    "comments": endless(b": ping\n\n"),
    "comments-after-an-update": endless(b": ping\n\n", event()),
    "comments-without-an-end": endless(b": ping"),
    "newlines": endless(b"\n"),
    "stale": endless(event()),
    "queued-for-ever": endless(event("queued", queue_number=1)),
    "unknown-status": endless(event("archived")),
    "back-and-forth": endless(event("queued") + event("running")),
    "pings": endless(b'event: ping\ndata: {"type": "ping"}\n\n', event()),
    "end-marks": endless(b"data: [DONE]\n\n", event()),
    "words": endless(b"data: : PROCESSING\n\n"),
    "empty-data": endless(b"data:\n\n"),
    "numbers": endless(b"data: 17\n\n"),
    "lists": endless(b"data: []\n\n"),
    "status-of-something-else": endless(b'data: {"status": "ok"}\n\n'),
    "faulty-update": whole(event(outputs=5)),
    "about-another": whole(event(workflow_id="00000000-0000-4000-a000-000000000000")),
    "no-utf-8": whole(b"data: \xff\xfe\n\n"),
    "one-long-line": endless(b"x" * 1000),
    "one-long-event": endless(b"data: " + b"x" * 1000 + b"\n"),
    "html": whole(b"<title>One moment</title>", head=b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"),
    "json": whole(b"{}", head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"),
    "bad-chunk": whole(b"zz\r\n" + event(), head=CHUNKED),
    "chunk-cut-short": whole(b"ff\r\n" + event(), head=CHUNKED),
    "gzip-that-is-none": whole(event(), head=HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"),
}


def answer(status: int, body: bytes = b"{}", kind: str = "application/json", extra: str = "") -> bytes:
    """Write an answer with a body."""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


# How further streams are refused; "odd" sends the odd one again.
REFUSALS: dict[str, bytes | None] = {
    "odd": None,
    "403-page": answer(403, b"<title>Forbidden</title>", "text/html"),
    "503": answer(503, b'{"message": "no"}'),
    "302": answer(302, b"", extra="Location: https://other.test/\r\n"),
}


@attrs.define
class OddServer:
    """What the server does, and how many streams it was asked for."""

    odd: Odd
    refusal: bytes | None
    streams: int = 0
    ends: float = 0.0

    async def talk(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        """Answer the requests of one connection."""
        loop = asyncio.get_running_loop()
        while True:
            target = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
            self.ends = self.ends or loop.time() + ENDS
            if target.endswith("/subscribe"):
                self.streams += 1
                if self.streams > 1 and self.refusal is not None:
                    writer.write(self.refusal)
                    continue
                return await self.odd(self, writer)
            status = "completed" if loop.time() >= self.ends else "running"
            workflow = {"id": ID, "name": "w", "status": status, "created_at": CREATED, "updated_at": CREATED}
            shown = {"workflows": [workflow], "total": 1} if "?" in target else workflow
            writer.write(answer(200, json.dumps(shown).encode()))


@asynccontextmanager
async def odd_server(odd: str, refusal: str) -> AsyncIterator[str]:
    """Run such a server, and give its URL."""
    server = OddServer(ODD[odd], REFUSALS[refusal])
    async with raw_server(server.talk) as port:
        yield f"http://127.0.0.1:{port}"
