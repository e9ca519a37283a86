"""Answers on their way out: whole, bit by bit, broken off, or not at all."""

from collections.abc import Mapping
from contextlib import aclosing, suppress

from aiohttp import web

from comfycontrol_async.testing.server._records import Answer, CutError, Stream

_MISSING = 64  # bytes that a truncated answer promises and does not send


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
    await response.prepare(request)
    try:
        async with aclosing(stream.chunks) as chunks:
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
    except ConnectionError:
        pass  # the client has gone, as clients of streams do
    except CutError:
        return cut(request)
    return response


def _own_headers(answer: Answer) -> dict[str, str]:
    own = dict(answer.headers)
    if answer.body:
        own.setdefault("Content-Type", answer.content_type)
    return own
