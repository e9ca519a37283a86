"""Listening HTTP ports, and how answers leave them: whole, bit by bit, broken off, or not at all."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.testing.server._records import Answer, CutError, Stream

# What aiohttp raises for requests that are no HTTP, or whose body cannot be unpacked.
MALFORMED = (HttpProcessingError, web.RequestPayloadError)


def _is_ours(record: logging.LogRecord) -> bool:
    """Keep malformed requests out of the log: they are answered with 400, and the error quotes their headers."""
    return record.exc_info is None or not isinstance(record.exc_info[1], MALFORMED)


# Below aiohttp's own, which Python shows on stderr: an error of a handler stays visible.
_LOGGER = logging.getLogger("aiohttp.server.comfycontrol_async")
_LOGGER.addFilter(_is_ours)

_STOPPING = 0.5  # real seconds that requests under way get when the server stops
_HANDED_OVER = 5  # turns of the loop that asyncio takes for it, and some more
_MISSING = 64  # bytes that a truncated answer promises and does not send


class HttpPort:
    """Serves one handler on one address; can be stopped and started again."""

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], keepalive: float) -> None:
        self._handle = handle
        self._keepalive = keepalive
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port, which is a free one for 0."""
        self._server = web.Server(self._handle, keepalive_timeout=self._keepalive, access_log=None, logger=_LOGGER)
        runner = web.ServerRunner(self._server, shutdown_timeout=_STOPPING)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        bound: int = runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the port and every connection."""
        runner, self._runner, self._server = self._runner, None, None
        if runner is None:
            return
        # A connection that is accepted and not handed over yet when the port closes would be lost, unclosed.
        for _ in range(_HANDED_OVER):
            await SYSTEM_CLOCK.sleep(0)
        await runner.cleanup()

    def close_idle(self) -> int:
        """Close the connections on which no request is under way, and return how many those were."""
        idle = [protocol for protocol in self._server.connections if _is_idle(protocol)] if self._server else []
        for protocol in idle:
            protocol.force_close()
        return len(idle)


def _is_idle(protocol: RequestHandler) -> bool:
    if protocol.transport is None:
        return False
    # aiohttp does not say so in public; without the attributes every connection counts as idle.
    return not getattr(protocol, "_request_in_progress", False) and not getattr(protocol, "_messages", ())


async def send(request: web.BaseRequest, answer: Answer | Stream, headers: Mapping[str, str]) -> web.StreamResponse:
    """Return the response for `answer`; a stream is sent to its end first."""
    if isinstance(answer, Stream):
        return await _send_stream(request, answer, headers)
    return web.Response(body=answer.body, status=answer.status, headers={**headers, **_own_headers(answer)})


async def send_truncated(
    request: web.BaseRequest, answer: Answer | Stream, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send less than the headers promise, then close the connection; of a stream, its first event."""
    response = web.StreamResponse(headers=headers)
    if isinstance(answer, Stream):
        response.content_type = answer.content_type
        async with aclosing(answer.chunks) as chunks:
            body = await anext(chunks)
    else:
        body = answer.body
        response.set_status(answer.status)
        response.headers.update(_own_headers(answer))
        response.content_length = len(body) + _MISSING
    return await send_and_cut(request, response, body)


async def send_and_cut(request: web.BaseRequest, response: web.StreamResponse, body: bytes) -> web.StreamResponse:
    """Send the headers of `response` and this much of a body, then close the connection."""
    with suppress(ConnectionError):  # the client may have gone before
        await response.prepare(request)
        await response.write(body)
    return cut(request)


def cut(request: web.BaseRequest) -> web.StreamResponse:
    """Close the connection of a request that gets no (further) answer; what was written still goes out."""
    transport = request.transport
    if transport is not None:
        transport.close()
    # aiohttp wants a response; it finds the connection closed and sends none.
    return web.Response()


async def _send_stream(request: web.BaseRequest, stream: Stream, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "Content-Type": stream.content_type, "Cache-Control": "no-cache"})
    try:
        await response.prepare(request)
        async with aclosing(stream.chunks) as chunks:
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
    except (ConnectionError, CutError):  # the client has gone, as clients of streams do; or the server cuts it off
        return cut(request)
    return response


def _own_headers(answer: Answer) -> dict[str, str]:
    own = dict(answer.headers)
    if answer.body:
        own.setdefault("Content-Type", answer.content_type)
    return own
