"""Transport: one attempt of one request on the wire.

It follows no redirect and sends the token to the API's origin only.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._http._attempt import Attempt
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._decode import error_of, fate_of
from comfycontrol_async._http._faults import TRANSPORT_FAULTS, Failure, classify
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._request import Answer, Request, Response
from comfycontrol_async._http._retry import Fate, parse_date
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits import Permit


class Transport:
    """Puts requests on the wire, with the token, through the sessions of a client."""

    def __init__(self, sessions: Sessions, token: str, *, user_agent: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.sessions = sessions
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
        """Send `request` once, read its answer to the end, and settle its permit, whatever happens."""
        if request.form is None:
            answer = await self._send(request, permit, timeouts, request.body)
            return answer if isinstance(answer, Failure) else await self._read(request, answer)
        async with AsyncExitStack() as files:  # they stay open until the answer was read
            try:
                data = await files.enter_async_context(_open_form(request.form))
            except BaseException:
                permit.refund()
                raise
            answer = await self._send(request, permit, timeouts, data)
            return answer if isinstance(answer, Failure) else await self._read(request, answer)

    async def open(self, request: Request[Any], permit: Permit, timeouts: Timeouts) -> Stream | Failure:
        """Send `request` once, and return its answer when the headers are here; the caller closes it."""
        answer = await self._send(request, permit, timeouts, request.body)
        if isinstance(answer, Failure):
            return answer
        if 200 <= answer.status < 300:
            return Stream(answer.status, answer.headers, request.method, request.path, answer)
        return await self._refused(request, answer)

    def server_time(self, moment: float) -> datetime | None:
        """Translate a moment of the monotonic clock to the server's time, to the second; None when it never told."""
        text, received = self._dated
        told = None if text is None else parse_date(text)
        return None if told is None else told + timedelta(seconds=moment - received)

    async def _send(
        self, request: Request[Any], permit: Permit, timeouts: Timeouts, data: bytes | aiohttp.FormData | None
    ) -> aiohttp.ClientResponse | Failure:
        """Send the request, wait for the response headers and settle the permit."""
        attempt = Attempt(permit)
        try:
            session = self.sessions.api()
            answer = await session.request(
                request.method,
                self._url(request),
                data=data,
                headers=self._headers_of(request),
                allow_redirects=False,
                raise_for_status=False,  # a given session may say otherwise
                timeout=self._timeout(timeouts, total=request.form is None and not request.stream),
                proxy=self.sessions.proxy,
                # Middlewares given per request replace those of the session, which aiohttp has no public way to read.
                middlewares=(*getattr(session, "_middlewares", ()), attempt),
            )
        except TRANSPORT_FAULTS as error:
            failure = classify(error, self._may_have_left(attempt), request.method, request.path)
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
        permit.arrived()
        self._dated = answer.headers.get("Date"), self._clock.monotonic()
        return answer

    def _may_have_left(self, attempt: Attempt) -> bool:
        """Tell whether bytes may have reached the server; a given session's requests do not tell when."""
        return attempt.sent if self.sessions.given is None else attempt.started

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

    async def _read(self, request: Request[Any], answer: aiohttp.ClientResponse) -> Response | Failure:
        """Read an answer whose headers are here to its end."""
        if not 200 <= answer.status < 300:
            return await self._refused(request, answer)
        try:
            body = await answer.read()
        except TRANSPORT_FAULTS as error:
            if request.answer is not Answer.NOTHING:
                return classify(error, True, request.method, request.path)
            body = b""  # the status says it all
        finally:
            answer.release()
        return Response(answer.status, answer.headers, body)

    async def _refused(self, request: Request[Any], answer: aiohttp.ClientResponse) -> Failure:
        """Read the answer that is no success, and return what it means."""
        try:
            body = await answer.read()
        except TRANSPORT_FAULTS:
            body = b""  # the status says it all
        finally:
            answer.release()
        response = Response(answer.status, answer.headers, body)
        error = error_of(response, request.method, request.path, self._clock.utcnow())
        return Failure(fate_of(answer.status), error)


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
