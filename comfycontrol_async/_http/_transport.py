"""Transport: one attempt of one request on the wire; the only place that knows aiohttp's client.

It settles the attempt's permit at the moment that is due: refunded when the request certainly never left, arrived when
the response headers are here, lost otherwise. It opens its session on first use, follows no redirect, and sends the
token to the API's origin only: downloads go through a session of their own that knows no credential.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._http._config import Timeouts, environment_proxy
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._request import Answer, Request, Response
from comfycontrol_async._http._retry import Fate, parse_date
from comfycontrol_async._loop import close_with_loop
from comfycontrol_async.errors import (
    ClientClosedError,
    ClientLoopError,
    ConnectionFailedError,
    RequestTimeoutError,
    ResponseLostError,
    TransportError,
)
from comfycontrol_async.limits import Permit


@attrs.frozen
class Failure:
    """An attempt that brought no usable answer: what is known of its fate, and the error to raise for it."""

    fate: Fate
    error: TransportError


@attrs.frozen(eq=False)
class Stream:
    """An answer whose body is read as it comes; whoever gets it closes it."""

    status: int
    headers: Mapping[str, str]
    method: str
    path: str
    _answer: aiohttp.ClientResponse = attrs.field(repr=False)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the body in pieces as they arrive.

        Raises:
            ResponseLostError: the connection broke before the end.
            RequestTimeoutError: the server was silent for too long.
        """
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except _TRANSPORT_FAULTS as error:
            raise _classify(error, True, self.method, self.path).error from error

    def close(self) -> None:
        """Drop the connection; harmless when the body was read to its end."""
        self._answer.close()


class _Resent(Exception):  # noqa: N818 # a signal between our own two functions, never seen by a user
    """aiohttp was about to send a request a second time by itself."""


class _Attempt:
    """What happens to one request on the wire: aiohttp's per-request middleware."""

    __slots__ = ("permit", "sent", "started")

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.sent = False
        self.started = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Let the request out once.

        aiohttp sends an idempotent request again by itself when a kept-alive connection turns out dead: a request
        that nobody counted, and with a body that was read already. Our own loop sends it again, with a permit.
        """
        if self.started:
            raise _Resent
        self.started = True
        if isinstance(request, _Request):
            request.attempt = self
        return await handler(request)


class _Request(aiohttp.ClientRequest):
    """A request of our own sessions, which tells its attempt when it is written.

    aiohttp's trace `on_request_headers_sent` tells the same, but then awaits a signal at every step of every request.
    """

    attempt: _Attempt | None = None

    def send(self, conn: aiohttp.connector.Connection) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Take note that the connection is there and the request headers are about to be written."""
        if self.attempt is not None:
            self.attempt.sent = True
            self.attempt.permit.sent()
        return super().send(conn)


_TRANSPORT_FAULTS = (aiohttp.ClientError, TimeoutError, OSError, _Resent)
_NOT_CONNECTED = (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)


class Transport:
    """The sessions of a client, and how a request is put on the wire."""

    def __init__(
        self,
        token: str,
        base_url: URL,
        *,
        session: aiohttp.ClientSession | None = None,
        user_agent: str,
        proxy: str | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self.base_url = base_url
        self._prefix = str(base_url)
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": user_agent}
        # In the form that aiohttp would otherwise make of them for every request.
        self._headers = CIMultiDict(headers)
        self._json_headers = CIMultiDict(headers | {"Content-Type": "application/json"})
        self._stream_headers = CIMultiDict(headers | {"Accept": "text/event-stream, application/json"})
        self._given = session
        self._proxy = proxy
        self._user_agent = user_agent
        self._trace_configs = tuple(trace_configs)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None
        self._storage: aiohttp.ClientSession | None = None
        self._opened: list[tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]] = []
        self._resolved_proxy = proxy
        self._timeouts: dict[tuple[Timeouts, bool], aiohttp.ClientTimeout] = {}
        # The server's Date as it last came, and when that was.
        self._dated: tuple[str | None, float] = (None, 0.0)
        self.closed = False

    # Sessions

    def bind(self) -> bool:
        """Tie this transport to the running loop; tell whether it is another one than before.

        Raises:
            ClientClosedError: the client was closed.
            ClientLoopError: it belongs to another loop that is still alive.
        """
        if self.closed:
            raise ClientClosedError("this client is closed; make a new one")
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return False
        if self._loop is not None and not self._loop.is_closed():
            raise ClientLoopError(
                "this client belongs to another event loop that is still alive; make one client for each loop"
            )
        self._abandon()
        self._loop, self._session, self._storage, self._opened = loop, self._given, None, []
        return True

    def loop_changed(self) -> bool:
        """Tell whether the running loop is not the one this transport is tied to."""
        return self._loop is not asyncio._get_running_loop()

    def _api_session(self) -> aiohttp.ClientSession:
        self.bind()
        if self._session is None:
            self._resolved_proxy = self._proxy or environment_proxy(self.base_url)
            self._session = self._open(self._trace_configs)
        elif self._session is self._given and self._session.closed:
            raise ClientClosedError("the aiohttp session that was given to this client is closed")
        return self._session

    def _storage_session(self) -> aiohttp.ClientSession:
        self.bind()
        if self._storage is None:
            self._storage = self._open(())
        return self._storage

    def _open(self, trace_configs: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            # The limiter bounds what is in flight; a second bound in the pool would only hide the waiting from it.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=list(trace_configs),
            request_class=_Request,
        )
        self._opened.append((session, close_with_loop(session)))
        return session

    def _abandon(self) -> None:
        """Let go of the sessions of a loop that is closed, as far as that did not close them."""
        for session, _ in self._opened:
            if (connector := session.connector) is not None:
                session.detach()
                with suppress(RuntimeError, StopIteration):  # without its loop there is nothing to wait for
                    next(connector.close().__await__())

    async def close(self) -> None:
        """Close the sessions that were opened here; a session that was given stays as it is."""
        self.closed = True
        if self._loop is not asyncio.get_running_loop():
            self._abandon()
        opened, self._opened, self._session, self._storage = self._opened, [], None, None
        for session, closer in opened:
            if not session.closed:
                await closer.aclose()

    # API

    async def attempt(self, request: Request[Any], permit: Permit, timeouts: Timeouts) -> Response | Stream | Failure:
        """Send `request` once and settle its permit, whatever happens."""
        if request.form is None:
            answer = await self._send(request, _Attempt(permit), timeouts, None)
            return answer if isinstance(answer, Failure) else await _read(request, answer)
        async with AsyncExitStack() as files:  # they stay open until the answer was read
            answer = await self._send(request, _Attempt(permit), timeouts, files)
            return answer if isinstance(answer, Failure) else await _read(request, answer)

    async def _send(
        self, request: Request[Any], attempt: _Attempt, timeouts: Timeouts, files: AsyncExitStack | None
    ) -> aiohttp.ClientResponse | Failure:
        """Send the request, wait for the response headers and settle the permit."""
        try:
            session = self._api_session()
            data: bytes | aiohttp.FormData | None = request.body
            if files is not None and request.form is not None:
                data = await files.enter_async_context(_open_form(request.form))
            answer = await session.request(
                request.method,
                self._url(request),
                data=data,
                headers=self._headers_of(request),
                allow_redirects=False,
                raise_for_status=False,  # a given session may say otherwise
                timeout=self._timeout(timeouts, total=request.form is None and not request.stream),
                proxy=self._resolved_proxy,
                # Middlewares given per request replace those of the session, which aiohttp has no public way to read.
                middlewares=(*getattr(session, "_middlewares", ()), attempt),
            )
        except _TRANSPORT_FAULTS as error:
            failure = _classify(error, self._may_have_left(attempt), request.method, request.path)
            _settle(attempt.permit, failure.fate)
            failure.error.__cause__ = None if isinstance(error, _Resent) else error
            return failure
        except BaseException:
            _settle(attempt.permit, Fate.UNKNOWN if self._may_have_left(attempt) else Fate.NEVER_LEFT)
            raise
        attempt.permit.arrived()
        self._dated = answer.headers.get("Date"), SYSTEM_CLOCK.monotonic()
        return answer

    def _may_have_left(self, attempt: _Attempt) -> bool:
        """Tell whether bytes may have reached the server; a given session's requests do not tell when."""
        return attempt.sent if self._given is None else attempt.started

    def _headers_of(self, request: Request[Any]) -> CIMultiDict[str]:
        bare = self._stream_headers if request.stream else self._headers
        return bare if request.body is None else self._json_headers

    def _url(self, request: Request[Any]) -> URL:
        url = URL(self._prefix + request.path)
        return url.update_query(request.query) if request.query else url

    def _timeout(self, timeouts: Timeouts, *, total: bool) -> aiohttp.ClientTimeout:
        found = self._timeouts.get((timeouts, total))
        if found is None:
            found = self._timeouts[timeouts, total] = aiohttp.ClientTimeout(
                total=timeouts.total if total else None,
                connect=timeouts.connect,
                sock_connect=timeouts.connect,
                sock_read=timeouts.read,
            )
        return found

    def server_time(self, moment: float) -> datetime | None:
        """Translate a moment of the monotonic clock to the server's time, to the second; None when it never told."""
        text, received = self._dated
        told = None if text is None else parse_date(text)
        return None if told is None else told + timedelta(seconds=moment - received)

    # Storage

    @asynccontextmanager
    async def download(self, url: str, *, offset: int = 0, timeouts: Timeouts) -> AsyncIterator[Stream]:
        """Open a signed URL from byte `offset` on, without any credential of ours and without spending a request.

        Raises:
            ConnectionFailedError, ResponseLostError, RequestTimeoutError: no answer.
        """
        try:
            target = URL(url, encoded=True)
        except ValueError as error:
            raise ConnectionFailedError(f"the signed URL is no URL: {error}", method="GET") from None
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        timeout = self._timeout(timeouts, total=False)
        proxy = self._proxy or environment_proxy(target)
        try:
            answer = await self._storage_session().get(target, headers=headers, timeout=timeout, proxy=proxy)
        except _TRANSPORT_FAULTS as error:
            raise _classify(error, True, "GET", target.path).error from error
        try:
            yield Stream(answer.status, answer.headers, "GET", target.path, answer)
        finally:
            answer.close()


@asynccontextmanager
async def _open_form(form: Form) -> AsyncIterator[aiohttp.FormData]:
    async with form.open() as parts:
        # `quote_fields` would percent-encode the file names, and the `$` and `#` of the field names stay as they are.
        data = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
        for part in parts:
            if len(part) == 2:
                data.add_field(part[0], part[1])
            else:
                name, stream, filename, content_type = part
                data.add_field(name, stream, filename=filename, content_type=content_type)
        yield data


async def _read(request: Request[Any], answer: aiohttp.ClientResponse) -> Response | Stream | Failure:
    """Read an answer whose headers are here to its end, or hand it on as a stream."""
    success = 200 <= answer.status < 300
    if request.stream and success:
        return Stream(answer.status, answer.headers, request.method, request.path, answer)
    try:
        body = await answer.read()
    except _TRANSPORT_FAULTS as error:
        if success and request.answer is not Answer.NOTHING:
            failure = _classify(error, True, request.method, request.path)
            failure.error.__cause__ = error
            return failure
        body = b""  # the status says it all
    finally:
        answer.release()
    return Response(answer.status, answer.headers, body)


def _settle(permit: Permit, fate: Fate) -> None:
    if fate is Fate.NEVER_LEFT or fate is Fate.FINAL:
        permit.refund()
    else:
        permit.lost()


def _classify(error: Exception, may_have_left: bool, method: str, path: str) -> Failure:
    """Tell from an aiohttp error what became of the request."""
    where = {"method": method, "path": path}
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        return Failure(Fate.FINAL, ConnectionFailedError(f"the server's certificate is not trusted: {error}", **where))
    if isinstance(error, aiohttp.InvalidURL):
        return Failure(Fate.FINAL, ConnectionFailedError("the URL is not one that can be called", **where))
    if isinstance(error, _NOT_CONNECTED) or not may_have_left:
        text = "no connection in time" if isinstance(error, TimeoutError) else _text(error)
        return Failure(Fate.NEVER_LEFT, ConnectionFailedError(text, **where))
    if isinstance(error, TimeoutError):
        return Failure(Fate.UNKNOWN, RequestTimeoutError("no answer in time", **where))
    if isinstance(error, _Resent):
        return Failure(Fate.UNKNOWN, ResponseLostError("the kept-alive connection had been closed", **where))
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(Fate.UNKNOWN, ResponseLostError("the answer was cut short", **where))
    return Failure(Fate.UNKNOWN, ResponseLostError(_text(error), **where))


def _text(error: Exception) -> str:
    """Return what an aiohttp error says, without a query that might be signed."""
    return str(error).partition("?")[0] or type(error).__name__
