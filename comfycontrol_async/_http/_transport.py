"""Transport: one attempt of one request on the wire.

It follows no redirect and sends the token to the API's origin only.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._http._attempt import Attempt
from comfycontrol_async._http._body import MOST_JSON, MOST_PAGE, TooLargeError, read_beginning, read_body
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._decode import error_of
from comfycontrol_async._http._faults import TRANSPORT_FAULTS, Failure, classify
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._redact import redactor
from comfycontrol_async._http._request import Answer, Request, Response
from comfycontrol_async._http._retry import Fate, fate_of, parse_date
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import ConfigurationError, ResponseFormatError
from comfycontrol_async.limits import Permit

B = TypeVar("B", bytes, bytes | bytearray)


class Transport:
    """Puts requests on the wire, with the token, through the sessions of a client."""

    def __init__(self, sessions: Sessions, token: str, *, user_agent: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.sessions = sessions
        self._clean = redactor(token)
        self._prefix = str(sessions.base_url)
        self._clock = clock
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": user_agent}
        # In the form that aiohttp would otherwise make of them for every request.
        self._headers = CIMultiDict(headers)
        self._json_headers = CIMultiDict(headers | {"Content-Type": "application/json"})
        self._stream_headers = CIMultiDict(headers | {"Accept": "text/event-stream, application/json"})
        self._timeouts: dict[tuple[Timeouts, bool], aiohttp.ClientTimeout] = {}
        # The server's Date as it last came, and when that was.
        self._dated: tuple[str | None, float] = (None, 0.0)
        self.bind = sessions.bind

    async def fetch(self, request: Request[Any], permit: Permit, timeouts: Timeouts) -> Response | Failure:
        """Send `request` once, read its answer to the end, and settle its permit, whatever happens.

        Raises:
            ResponseFormatError: the answer is larger than any that the API gives.
        """
        if request.form is None:
            until = _moment_in(timeouts.total)
            answer = await self._send(request, permit, timeouts, request.body, _limit_of(timeouts, until), until)
            if isinstance(answer, Failure):
                return answer
            return await self._read(request, answer, until)
        async with AsyncExitStack() as files:  # they stay open until the answer was read
            try:
                data = await files.enter_async_context(_open_form(request.form))
            except BaseException:
                permit.refund()
                raise
            answer = await self._send(request, permit, timeouts, data)
            if isinstance(answer, Failure):
                return answer
            return await self._read(request, answer, _moment_in(timeouts.total))

    async def open(self, request: Request[Any], permit: Permit, timeouts: Timeouts) -> Stream | Failure:
        """Send `request` once, and return its answer when the headers are here; the caller closes it."""
        answer = await self._send(request, permit, timeouts, request.body)
        if isinstance(answer, Failure):
            return answer
        if 200 <= answer.status < 300:
            return Stream(answer.status, answer.headers, request.method, request.path, answer)
        return await self._read_refusal(request, answer, _moment_in(timeouts.total))

    def clean(self, error: ResponseFormatError) -> None:
        """Take secrets out of what an error quotes of an answer."""
        error.message = self._clean(error.message[:2000])
        error.json_path = self._clean(error.json_path[:2000])
        error.args = (error.message,)
        if (cause := error.__cause__) is not None and self._clean(shown := f"{cause}"[:2000]) != shown:
            error.__cause__ = ValueError(self._clean(shown))

    def server_time(self, moment: float) -> datetime | None:
        """Translate a moment of the monotonic clock to the server's time, to the second; None without its Date."""
        text, received = self._dated
        date = None if text is None else parse_date(text)
        if date is None or not 2000 <= date.year < 3000:  # an edge without a clock
            return None
        return date + timedelta(seconds=moment - received)

    async def _send(
        self,
        request: Request[Any],
        permit: Permit,
        timeouts: Timeouts,
        data: bytes | aiohttp.FormData | None,
        limit: asyncio.Timeout | None = None,
        until: float | None = None,
    ) -> aiohttp.ClientResponse | Failure:
        """Send the request, wait for the response headers, within the limit if there is one, and settle the permit."""
        attempt = Attempt(permit, timeouts.read, self._clock, limit, until)
        answer: aiohttp.ClientResponse | None = None
        try:
            async with limit or asyncio.timeout(None):
                response = answer = await self._request(request, timeouts, data, attempt)
        except TRANSPORT_FAULTS as error:
            failure = self._classify(error, self._may_have_left(attempt), request)
            attempt.settle(failure.fate)
            return failure
        except BaseException as error:
            if isinstance(error, ValueError) and not attempt.started and "AUTH" in str(error):
                # Credentials that only aiohttp found: of .netrc, for a given session with trust_env.
                attempt.settle(Fate.NEVER_LEFT)
                raise ConfigurationError(
                    f"the session's own credentials (.netrc?) clash with the token: {error}"
                ) from None
            attempt.settle(Fate.UNKNOWN if self._may_have_left(attempt) else Fate.NEVER_LEFT)
            raise
        finally:
            attempt.end(answer)
        permit.arrived()
        self._dated = response.headers.get("Date"), self._clock.monotonic()
        return response

    def _request(
        self, request: Request[Any], timeouts: Timeouts, data: bytes | aiohttp.FormData | None, attempt: Attempt
    ) -> Awaitable[aiohttp.ClientResponse]:
        session = self.sessions.api()
        return session.request(
            request.method,
            self._url(request),
            data=data,
            headers=self._headers_of(request),
            allow_redirects=False,
            raise_for_status=False,  # a given session may say otherwise
            timeout=self._timeout(timeouts, attempt.limit is not None),
            proxy=self.sessions.proxy,
            # Middlewares given per request replace those of the session, which aiohttp has no public way to read.
            middlewares=(*getattr(session, "_middlewares", ()), attempt),
        )

    def _may_have_left(self, attempt: Attempt) -> bool:
        """Return True if bytes may have reached the server; not every given session reports when it writes."""
        return attempt.sent if attempt.reports or self.sessions.given is None else attempt.started

    def _classify(self, error: Exception, may_have_left: bool, request: Request[Any]) -> Failure:
        return classify(error, may_have_left, request.method, request.path, self._clean)

    def _headers_of(self, request: Request[Any]) -> CIMultiDict[str]:
        bare = self._stream_headers if request.stream else self._headers
        return bare if request.body is None else self._json_headers

    def _url(self, request: Request[Any]) -> URL:
        url = URL(self._prefix + request.path)
        return url.update_query(request.query) if request.query else url

    def _timeout(self, timeouts: Timeouts, limited: bool) -> aiohttp.ClientTimeout:
        found = self._timeouts.get((timeouts, limited))
        if found is None:
            found = self._timeouts[timeouts, limited] = aiohttp.ClientTimeout(
                # The total is ours: when aiohttp's ends in the same turn of the loop in which the task is cancelled,
                # the cancellation is lost (its timer counts it twice where two of its blocks are nested).
                total=None,
                connect=timeouts.connect,
                sock_connect=timeouts.connect,
                # Two timers of the loop for each request, which a limit of ours on the headers makes needless.
                sock_read=None if limited else timeouts.read,
            )
        return found

    async def _read(
        self, request: Request[Any], answer: aiohttp.ClientResponse, until: float | None
    ) -> Response | Failure:
        """Read an answer whose headers are here to its end, until a moment of the loop's clock."""
        if not 200 <= answer.status < 300:
            return await self._read_refusal(request, answer, until)
        silent = request.answer is Answer.NOTHING
        body: bytes | bytearray = b""
        try:
            reading = read_beginning(answer, MOST_PAGE) if silent else read_body(answer, MOST_JSON, self._clock)
            body = await _finished(reading, answer, until)
        except TooLargeError:
            text = f"the body is larger than {MOST_JSON // 1024**2} MB"
            raise ResponseFormatError(text, method=request.method, path=request.path) from None
        except TRANSPORT_FAULTS as error:
            if not silent:  # else the status says it all
                return self._classify(error, True, request)
        finally:
            answer.release()
        return Response(answer.status, answer.headers, body)

    async def _read_refusal(
        self, request: Request[Any], answer: aiohttp.ClientResponse, until: float | None
    ) -> Failure:
        """Read the answer that is no success, and return what it means."""
        body = b""
        try:
            body = await _finished(read_beginning(answer, MOST_PAGE), answer, until)
        except TRANSPORT_FAULTS:
            pass  # the status says it all
        finally:
            answer.release()
        response = Response(answer.status, answer.headers, body)
        error = error_of(response, request.method, request.path, self._clock.utcnow(), self._clean)
        return Failure(fate_of(answer.status), error)


def _limit_of(timeouts: Timeouts, until: float | None) -> asyncio.Timeout:
    """Return the limit of an attempt, which narrows it once the request is written; aiohttp bounds connecting."""
    connect, total = timeouts.connect, timeouts.total
    return asyncio.timeout_at(until if connect is None or (total is not None and total < connect) else None)


def _moment_in(seconds: float | None) -> float | None:
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


async def _finished(reading: Awaitable[B], answer: aiohttp.ClientResponse, until: float | None) -> B:
    """Wait for a body until then. One that is here, as most are with their headers, needs no timer."""
    if answer.content.is_eof():
        return await reading
    async with asyncio.timeout_at(until):
        return await reading


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
