"""What the end-to-end tests share: a server with a client of it, and a bare HTTP server that keeps what it is sent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from aiohttp import web

from comfycontrol_async import ComfyControl, LocalLimiter, RetryPolicy, WatchPolicy, WorkflowRun
from comfycontrol_async.testing import LocalServer
from support.graphs import several

# Fifty times as fast as the service, and so many requests that only tests of the limit meet it.
SPEED = 50.0
LIMIT = 1000

# A policy for those who want to see the first error.
ONCE = RetryPolicy(attempts=1)

UNKNOWN_ID = "00000000-0000-4000-a000-000000000000"
# What a server that is no LocalServer is given and answers.
ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
TOKEN = "cfc_0123456789abcdefSECRET"
USER = {
    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "name": "John Doe",
    "email": "john@example.com",
    "deleted": False,
    "tier": "pro",
    "created_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
}

# Bytes of each output of a `finished` run.
SIZE = 300_000


def client_of(server: LocalServer, token: str | None = None, **options: Any) -> ComfyControl:
    """Make a client that keeps pace with the server: its limit, its speed, and hardly a pause between attempts."""
    defaults: dict[str, Any] = {
        "base_url": server.url,
        "limiter": LocalLimiter(server.limit, server.period),
        "retry": RetryPolicy(base_delay=0.01, max_delay=0.05),
        "watch": WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed),
    }
    return ComfyControl(token or server.token, **(defaults | options))


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[LocalServer]:
    """Run a fast server with a large budget, unless told otherwise."""
    async with LocalServer(**({"speed": SPEED, "limit": LIMIT} | options)) as server:
        yield server


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[tuple[LocalServer, ComfyControl]]:
    """Run a server as `serving` does, with a client of it."""
    async with serving(**options) as server, client_of(server) as comfy:
        yield server, comfy


def sent(server: LocalServer, method: str = "*", end: str = "") -> list[str]:
    """List what arrived at the API as "METHOD path": of one method, with paths that end in `end`."""
    return [
        f"{record.method} {record.path}"
        for record in server.requests
        if method in ("*", record.method) and record.path.endswith(end)
    ]


@attrs.frozen
class Received:
    """A request as a recorder got it; `target` stands as it does in the request line."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Recorder:
    """A bare HTTP server that keeps what it is sent."""

    url: str
    received: list[Received] = attrs.field(factory=list)


Reply = Callable[[Received], web.Response]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def recording(reply: Reply) -> AsyncIterator[Recorder]:
    """Run a bare HTTP server that answers every request with what `reply` makes of it."""
    received: list[Received] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        target = request._message.path  # as it was written: `path` and `raw_path` leave out a proxy's host
        kept = Received(request.method, target, dict(request.headers), await request.read())
        received.append(kept)
        return reply(kept)

    async with _listening(web.Server(handle, access_log=None)) as port:
        yield Recorder(f"http://127.0.0.1:{port}", received)


@asynccontextmanager
async def _listening(server: web.Server) -> AsyncIterator[int]:
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)  # transports close in the next turn of the loop


@asynccontextmanager
async def raw_server(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Run a TCP server whose connections are handled by `talk`, and give its port."""
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


def own_tasks() -> set[asyncio.Task[Any]]:
    """Return every task but the one that asks."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def answer_user(received: Received) -> web.Response:
    """Answer every request with a user."""
    return web.json_response(USER)


def client_at(url: str, **options: Any) -> ComfyControl:
    """Make a client of something that is no LocalServer."""
    defaults: dict[str, Any] = {"limiter": LocalLimiter(1000, 10.0), "retry": RetryPolicy(base_delay=0.01)}
    return ComfyControl(TOKEN, base_url=url, **(defaults | options))


@asynccontextmanager
async def finished(
    number: int = 1, *, retry: RetryPolicy | None = None, **options: Any
) -> AsyncIterator[tuple[LocalServer, ComfyControl, WorkflowRun]]:
    """Run a server, a client and a completed workflow with so many outputs, whose URLs are known."""
    at_once: dict[str, Any] = {"output_size": SIZE, "delays": (0.0, 0.0, 0.0), "duration": 0.0}
    async with serving(**(at_once | options)) as server:
        chosen: dict[str, Any] = {} if retry is None else {"retry": retry}
        async with client_of(server, **chosen) as comfy:
            run = await comfy.run(several(number), name="pic")
            await run.outputs()
            yield server, comfy, run


def names_in(directory: Path) -> list[str]:
    """List everything under a directory, as paths below it."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
