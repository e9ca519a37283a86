"""A raw HTTP server that misbehaves in every way: the first part of a path names the fault, `<name>` or `<name>*`.

With `*` every request meets the fault, else the first one does and the others are answered honestly. What is made by a
POST that arrived whole, and that no 429 refused, is counted by fault.
"""

import asyncio
import gzip
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs

from support import documented

Fault = Callable[["Exchange"], Awaitable[None]]

ID = documented.WORKFLOW_ID


@attrs.define
class Exchange:
    """One request on a connection; a fault writes what it likes."""

    method: str
    path: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    # How much of the body was not read yet; None for chunks.
    length: int | None

    async def read_all(self) -> None:
        """Read the request to its end."""
        if self.length is not None:
            await self.reader.readexactly(self.length)
            return
        while size := int(await self.reader.readline(), 16):
            await self.reader.readexactly(size + 2)
        await self.reader.readline()

    def honest(self, **changes: Any) -> bytes:
        """Return the right answer."""
        return http(200, honest_body(self.method, self.path), **changes)

    def reset(self) -> None:
        """Break the connection with a reset."""
        sock: Any = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


def honest_body(method: str, path: str) -> bytes:
    """Return the right JSON for a request."""
    if path.endswith("/subscribe"):
        return b'data: {"status": "completed", "outputs": []}\n\n'
    if path.endswith("/outputs"):
        value: Any = [{"id": "1", "workflow_id": ID, "src": "https://a.test/1.png"}]
    elif path.startswith("/v1/user"):
        value = documented.USER
    elif path.startswith("/v1/runner"):
        value = documented.RUNNER
    elif method == "POST":
        value = documented.ACCEPTED
    else:
        value = {"workflows": [documented.ACCEPTED], "total": 1}
    return json.dumps(value).encode()


def http(
    status: int, body: bytes = b"", *, headers: Mapping[str, str] | None = None, length: int | None = None
) -> bytes:
    """Return an answer as bytes; `length` is what it says of its body."""
    size = len(body) if length is None else length
    lines = {"Content-Type": "application/json", "Content-Length": str(size), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


async def _forever() -> None:
    await asyncio.Event().wait()


def sends(
    answer: bytes | Callable[[Exchange], bytes], then: str = "close", *, every: tuple[bytes, float] | None = None
) -> Fault:
    """Make a fault that reads the request, writes this, and then closes, resets, goes on or falls silent.

    `every` is what it writes again and again after that, with a pause.
    """

    async def fault(exchange: Exchange) -> None:
        await exchange.read_all()
        exchange.writer.write(answer(exchange) if callable(answer) else answer)
        await exchange.writer.drain()
        while every is not None:
            exchange.writer.write(every[0])
            await exchange.writer.drain()
            await asyncio.sleep(every[1])
        if then == "silence":
            await _forever()
        elif then == "reset":
            exchange.reset()
        elif then == "close":
            exchange.writer.close()

    return fault


def _half(exchange: Exchange) -> bytes:
    answer = exchange.honest()
    return answer[: -len(honest_body(exchange.method, exchange.path)) // 2 - 1]


def _chunked(pieces: bytes, length: str = "") -> bytes:
    return http(200, pieces, headers={"Content-Length": length, "Transfer-Encoding": "chunked"})


def _status(status: int, body: bytes = b'{"message": "no"}', headers: Mapping[str, str] | None = None) -> Fault:
    return sends(http(status, body, headers=headers), "go on")


def _json(body: bytes, headers: Mapping[str, str] | None = None) -> Fault:
    return sends(http(200, body, headers=headers), "go on")


async def _close_unread(exchange: Exchange) -> None:
    exchange.writer.close()


async def _reset_unread(exchange: Exchange) -> None:
    exchange.reset()


async def _never_read(exchange: Exchange) -> None:
    await _forever()


_HALF_HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: appl"
_BOMB = gzip.compress(b" " * 5_000_000)

FAULTS: dict[str, Fault] = {
    # Connections that break
    "closed-before-the-body-was-read": _close_unread,
    "reset-before-the-body-was-read": _reset_unread,
    "never-read": _never_read,
    "closed-after-the-request": sends(b""),
    "reset-after-the-request": sends(b"", "reset"),
    "silence": sends(b"", "silence"),
    # Interim answers
    "100-and-silence": sends(b"HTTP/1.1 100 Continue\r\n\r\n", "silence"),
    "103-and-silence": sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "silence"),
    "100-again-and-again": sends(b"", every=(b"HTTP/1.1 100 Continue\r\n\r\n", 0.02)),
    "100-and-closed": sends(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "100-and-an-answer": sends(lambda it: b"HTTP/1.1 100 Continue\r\n\r\n" + it.honest(), "go on"),
    "102-and-an-answer": sends(lambda it: b"HTTP/1.1 102 Processing\r\n\r\n" + it.honest(), "go on"),
    "101": sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "silence"),
    # Headers
    "half-a-status-line-and-closed": sends(b"HTTP/1.1 20"),
    "half-a-status-line-and-silence": sends(b"HTTP/1.1 20", "silence"),
    "half-the-headers-and-closed": sends(_HALF_HEADERS),
    "half-the-headers-and-reset": sends(_HALF_HEADERS, "reset"),
    "half-the-headers-and-silence": sends(_HALF_HEADERS, "silence"),
    "headers-without-end": sends(b"HTTP/1.1 200 OK\r\n", every=(b"X-More: 1\r\n", 0.001)),
    "a-header-of-100-kB": sends(http(200, b"{}", headers={"X-Big": "x" * 100_000})),
    "a-thousand-headers": sends(http(200, b"{}", headers={f"X-{n}": "1" for n in range(1000)})),
    "a-header-without-a-colon": sends(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"),
    "a-header-that-is-no-text": sends(b"HTTP/1.1 200 OK\r\nX-Odd: \xff\x01\r\nContent-Length: 0\r\n\r\n"),
    "a-date-that-is-none": sends(lambda it: it.honest(headers={"Date": "soon"}), "go on"),
    # Status lines
    "status-99": sends(b"HTTP/1.1 99 X\r\n\r\n"),
    "status-999": _status(999),
    "status-that-is-no-number": sends(b"HTTP/1.1 abc X\r\n\r\n"),
    "http-3": sends(b"HTTP/3.0 200 OK\r\n\r\n"),
    "no-headers-at-all": sends(b'{"id": 1}'),
    "a-tls-alert": sends(b"\x15\x03\x01\x00\x02\x02\x46"),
    "an-http-2-frame": sends(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80"),
    "an-ssh-banner": sends(b"SSH-2.0-OpenSSH_9.6\r\n", "silence"),
    "garbage": sends(bytes(range(256)) * 10),
    # Lengths
    "half-the-body-and-closed": sends(_half),
    "half-the-body-and-reset": sends(_half, "reset"),
    "half-the-body-and-silence": sends(_half, "silence"),
    "a-body-that-trickles": sends(http(200, b"{", length=1000), every=(b" ", 0.02)),
    "a-length-too-short": sends(lambda it: it.honest(length=10)),
    "a-length-below-zero": sends(lambda it: it.honest(length=-5)),
    "a-length-that-is-none": sends(lambda it: it.honest(headers={"Content-Length": "many"})),
    "two-lengths": sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "no-length-and-closed": sends(lambda it: it.honest(headers={"Content-Length": ""})),
    "no-length-and-silence": sends(lambda it: it.honest(headers={"Content-Length": ""}), "silence"),
    "no-length-and-half-the-body": sends(http(200, b'{"id": ', headers={"Content-Length": ""}), "reset"),
    # Chunks and codings
    "a-chunk-size-that-is-none": sends(_chunked(b"zz\r\n{}\r\n")),
    "a-chunk-that-is-cut": sends(_chunked(b"ff\r\n{}")),
    "a-chunk-without-its-end": sends(_chunked(b"2\r\n{}xx0\r\n\r\n")),
    "chunks-without-the-last": sends(_chunked(b"2\r\n{}\r\n"), "silence"),
    "chunks-and-a-length": sends(_chunked(b"2\r\n{}\r\n0\r\n\r\n", "2")),
    "an-unknown-transfer-coding": sends(http(200, b"{}", headers={"Transfer-Encoding": "x-new"})),
    "gzip-that-is-none": _json(b"{}", {"Content-Encoding": "gzip"}),
    "an-unknown-coding": _json(b"{}", {"Content-Encoding": "x-new"}),
    "a-bomb-as-an-error": _status(400, _BOMB, {"Content-Encoding": "gzip"}),
    "a-bomb": _json(_BOMB, {"Content-Encoding": "gzip"}),
    # Bodies
    "html": _json(b"<html><title>Welcome</title></html>", {"Content-Type": "text/html"}),
    "an-empty-body": _json(b""),
    "null": _json(b"null"),
    "a-list": _json(b"[]"),
    "a-number": _json(b"17"),
    "json-that-is-cut": _json(b'{"id": "7c9e'),
    "json-100,000-deep": _json(b"[" * 100_000),
    "json-100,000-deep-inside": _json(b'{"workflow_json": ' + b'{"a":' * 100_000),
    "json-that-is-no-utf-8": _json(b'{"id": "\xff"}'),
    "json-in-utf-16": _json('{"id": "1"}'.encode("utf-16")),
    "json-behind-a-mark": sends(lambda it: http(200, b"\xef\xbb\xbf" + honest_body(it.method, it.path)), "go on"),
    "an-object-of-odd-types": _json(b'{"id": {}, "workflows": 5, "status": [], "total": "x"}'),
    "about-another": _json(json.dumps({**documented.RUNNER, "id": "9" * 8 + "-9999-4999-a999-" + "9" * 12}).encode()),
    "answered-twice": sends(lambda it: it.honest() + http(200, b'{"not": "asked for"}'), "go on"),
    # Statuses
    "204": sends(b"HTTP/1.1 204 No Content\r\n\r\n", "go on"),
    "302": _status(302, headers={"Location": "http://127.0.0.1:1/"}),
    "307-to-itself": _status(307, headers={"Location": "?"}),
    "304": sends(b"HTTP/1.1 304 Not Modified\r\n\r\n", "go on"),
    "401": _status(401),
    "403-html": _status(403, b"<title>Blocked</title>", {"Content-Type": "text/html"}),
    "404": _status(404),
    "408": _status(408),
    "418": _status(418),
    "425": _status(425),
    "429": _status(429),
    "429-absurd": _status(429, headers={"Retry-After": "1e300"}),
    "500": _status(500),
    "502-html": _status(502, b"<title>" * 5000, {"Content-Type": "text/html"}),
    "503-soon": _status(503, headers={"Retry-After": "0"}),
    "503-in-the-past": _status(503, headers={"Retry-After": "Mon, 15 Jan 2024 10:30:00 GMT"}),
    "520-empty": _status(520, b""),
}


@attrs.define
class FaultyServer:
    """What ran, and what it made: whole POSTs that no 429 refused, by the first part of their path."""

    url: str = ""
    made: Counter[str] = attrs.field(factory=Counter)
    met: Counter[str] = attrs.field(factory=Counter)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                await self._exchange(reader, writer)
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value for name, _, value in (it.partition(": ") for it in lines)}
        length = None if "chunked" in headers.get("transfer-encoding", "") else int(headers.get("content-length", 0))
        label, path = target[1:].partition("/")[::2]
        exchange = Exchange(method, "/" + path.partition("?")[0], reader, writer, length)
        self.met[label] += 1
        name = label.removesuffix("*")
        if name == label and self.met[label] > 1:
            await exchange.read_all()
            self._count(label, exchange, "")
            writer.write(exchange.honest())
            await writer.drain()
            return
        fault = FAULTS[name]
        if fault not in (_close_unread, _reset_unread, _never_read):
            self._count(label, exchange, name)
        await fault(exchange)

    def _count(self, label: str, exchange: Exchange, name: str) -> None:
        if exchange.method == "POST" and not name.startswith("429"):
            self.made[label] += 1


@asynccontextmanager
async def faulty_server() -> AsyncIterator[FaultyServer]:
    """Run the server."""
    faulty, tasks = FaultyServer(), set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await faulty.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000)
    faulty.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield faulty
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
