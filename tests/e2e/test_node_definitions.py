"""`NodeDefinitions.fetch` against real sockets: what a ComfyUI answers, and one clear error for each way to fail."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import (
    AuthenticationError,
    BadRequestError,
    ComfyControlError,
    ConnectionFailedError,
    InvalidArgumentError,
    NodeDefinitions,
    NotFoundError,
    PermissionDeniedError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
)
from comfycontrol_async.errors import APIError
from comfycontrol_async.graph import _fetch

INFO = (Path(__file__).parents[1] / "data" / "comfyui" / "object_info.json").read_bytes()
SECRET = "Bearer s3cret"

Serve = Callable[[bytes], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve raw bytes, whatever is asked, and hang up."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(65_536)
            if answer == b"silence":
                await reader.read()
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def answer(status: str, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    """Write an answer of HTTP/1.1."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("path", ["", "/", "/object_info", "/object_info/", "/proxy/8188", "/proxy/8188/?key=s3cret"])
async def test_fetch(path: str) -> None:
    """A ComfyUI is asked once, behind a proxy too, with the headers given and no others of ours."""
    asked: list[web.Request] = []

    async def info(request: web.Request) -> web.Response:
        asked.append(request)
        response = web.Response(body=INFO, content_type="application/json")
        if path.startswith("/proxy"):
            response.enable_compression()
        return response

    app = web.Application()
    app.router.add_get("/object_info", info)
    app.router.add_get("/proxy/8188/object_info", info)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
        definitions = await NodeDefinitions.fetch(address, {"Authorization": SECRET})
    finally:
        await runner.cleanup()
    assert list(definitions) == list(json.loads(INFO))
    (request,) = asked
    assert request.headers["Authorization"] == SECRET
    assert request.query_string == ("key=s3cret" if "?" in path else "")


def packed(body: bytes) -> bytes:
    """Write an answer that says that it is packed."""
    return answer("200 OK", body, Encoding="gzip").replace(b"Encoding", b"Content-Encoding")


TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"


@pytest.mark.parametrize(
    ("raw", "error", "text"),
    [
        (answer("200 OK", b"<html><title>Login</title></html>"), ResponseFormatError, "is an HTML page"),
        (answer("200 OK", INFO[:-10]), ResponseFormatError, "is not JSON, or was cut"),
        (answer("200 OK", b'{"error": "x"}'), ResponseFormatError, "'error' is 'x'"),
        (answer("200 OK", b'{"KSampler": {"inputs": {}}}'), ResponseFormatError, "of another version"),
        (answer("200 OK", INFO[:100], length=len(INFO)), ResponseLostError, "was cut"),
        (answer("401 Unauthorized"), AuthenticationError, "give the headers that it needs"),
        (answer("403 Forbidden"), PermissionDeniedError, "give the headers that it needs"),
        (answer("404 Not Found", b"<html>"), NotFoundError, "is this a ComfyUI?"),
        (answer("400 Bad Request", b"plain HTTP to HTTPS port"), BadRequestError, "https only"),
        (answer("502 Bad Gateway", b"<html>"), ServerError, "no node definitions"),
        (answer("302 Found", Location="https://x:y@login.test/a?s3cret"), APIError, "redirects to https://login.test"),
        (answer("302 Found", Location="http://[bad"), APIError, "it redirects: give"),
        (TLS_ALERT, ResponseLostError, "does it speak https only?"),
        (b"", ResponseLostError, "does it speak https only?"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ResponseLostError, "no answer that HTTP knows"),
        (packed(b"not gzip"), ResponseFormatError, "cannot be unpacked"),
        (packed(gzip.compress(INFO)[:-20]), ResponseLostError, "was cut"),
    ],
    ids=[
        *("html", "cut-json", "error", "version", "cut", "401", "403", "404", "400", "502", "redirect", "bad-redirect"),
        *("tls-port", "hangs-up", "ssh", "no-gzip", "cut-gzip"),
    ],
)
async def test_odd_answers(serve: Serve, raw: bytes, error: type[ComfyControlError], text: str) -> None:
    """Each is one sentence of ours with the address, and no secret in it."""
    address = await serve(raw)
    with pytest.raises(error) as caught:
        await NodeDefinitions.fetch(address.replace("//", "//user:s3cret@") + "?key=s3cret", {"X-Key": "s3cret"})
    assert text in str(caught.value)
    assert f"{address}/object_info" in str(caught.value)
    assert "s3cret" not in str(caught.value) + repr(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_port_without_tls(serve: Serve) -> None:
    """An https address of a ComfyUI that speaks plain http says so."""
    address = await serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectionFailedError, match="does not speak https: try http://"):
        await NodeDefinitions.fetch(address.replace("http:", "https:"))


async def test_nothing_listens() -> None:
    """A ComfyUI that is not there is an error at once, which says what to look at."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(ConnectionFailedError, match=rf"127\.0\.0\.1:{port}/object_info.*is ComfyUI running there"):
            await NodeDefinitions.fetch(f"http://127.0.0.1:{port}")


async def test_silence_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers is given up."""
    monkeypatch.setattr(_fetch, "_TOTAL", 0.1)
    address = await serve(b"silence")
    with pytest.raises(RequestTimeoutError, match=r"did not answer within 0\.1 s"):
        await NodeDefinitions.fetch(address)


@pytest.mark.parametrize(
    "raw", [answer("200 OK", bytes(3_000_000)), packed(gzip.compress(bytes(3_000_000)))], ids=["plain", "packed"]
)
async def test_a_large_answer_is_bounded(serve: Serve, raw: bytes) -> None:
    """What never ends is not kept, packed or not."""
    address = await serve(raw)
    with pytest.raises(ResponseFormatError, match="answers more than 1 MB"):
        await _fetch.fetch_json(address, None, 1024**2)


@pytest.mark.parametrize(
    ("url", "headers", "text"),
    [
        ("127.0.0.1:8188", None, "with http:// or https://"),
        ("localhost", None, "with http:// or https://"),
        ("ftp://x", None, "with http:// or https://"),
        ("http://", None, "with http:// or https://"),
        ("http://x:99999", None, "url is no address"),
        ("http://[::1", None, "url is no address"),
        (f"http://{'a' * 64}.test", None, "url is no address"),
        (None, None, "as a str, not a NoneType"),
        ("http://x", ["a"], "headers map names to texts"),
        ("http://x", {"A": 1}, "headers map texts to texts"),
        ("http://x", {"A": "s3cret\r\nB: 1"}, "the header 'A' holds what no header can hold"),
        ("http://x", {"A\n": "s3cret"}, "holds what no header can hold"),
    ],
)
async def test_what_cannot_be_asked(url: Any, headers: Any, text: str) -> None:
    """A wrong argument is an error before anything is sent, and shows no value of a header."""
    with pytest.raises(InvalidArgumentError) as caught:
        await NodeDefinitions.fetch(url, headers)
    assert text in str(caught.value)
    assert "s3cret" not in str(caught.value)
