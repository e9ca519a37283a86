"""Attempt: one request on the wire, counted once, whose permit is settled at the moment that is due.

Refunded when the request certainly never left, arrived when the response headers are here, lost otherwise. Until the
headers come there is a bound of our own on silence: aiohttp drops its timer at an interim answer (100, 103), and has
none while an upload stands still.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

import aiohttp

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async._http._faults import Resent
from comfycontrol_async._http._retry import Fate
from comfycontrol_async._http._tcp import headers_size, is_direct, tcp_state, watch_arrival, watch_progress
from comfycontrol_async.limits import Permit

# Connections out of the pool that turn out unusable before anything is written: each is dropped for another.
_MOST_STALE = 20
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
# How often within the bound an upload is looked at.
_LOOKS = 4


class _Stale(Exception):  # noqa: N818 # a signal between two functions of ours, never seen by a user
    """A kept-alive connection cannot be used: the server closed it, or sent something that was not asked for."""


class Attempt:
    """What happens to one request on the wire: aiohttp's per-request middleware.

    Args:
        permit: settled here.
        silence: seconds without progress until the response headers are here; None for no bound.
        clock: whose timer that bound is where there is no limit.
        limit: of a request that is written at once: narrowed here when it is written, to the bound on silence.
        until: the moment of the loop's clock at which the whole attempt ends.
    """

    # Whether the request was given to aiohttp; was written; and whether it reports that it is written. Defaults of the
    # class, as most attempts change few of them.
    started = False
    sent = False
    reports = False
    _timer: Timer | None = None
    _moved = 0
    _looks = 0

    def __init__(
        self,
        permit: Permit,
        silence: float | None,
        clock: Clock,
        limit: asyncio.Timeout | None = None,
        until: float | None = None,
    ) -> None:
        self.permit = permit
        self.limit = limit
        self._silence = silence
        self._clock = clock
        self._until = until

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Let the request out once.

        aiohttp sends an idempotent request again by itself when a kept-alive connection turns out dead: a request
        that has no permit, and with a body that was read already. Our own loop sends it again, with a permit.
        """
        if self.started:
            raise Resent
        self.started = True
        if type(request) is aiohttp.ClientRequest:
            request.__class__ = CountedRequest  # of a session that was given: it differs in what it reports only
        if isinstance(request, CountedRequest):
            request.attempt = self
            self.reports = True
        else:
            self._narrow()
        for _ in range(_MOST_STALE):
            try:
                return await handler(request)
            except _Stale:
                pass  # nothing was written
        raise aiohttp.ClientConnectionError("no kept-alive connection is usable")

    def settle(self, fate: Fate) -> None:
        """Settle the permit of a request that got no response headers."""
        if fate is Fate.NEVER_LEFT or fate is Fate.FINAL:
            self.permit.refund()
        else:
            self.permit.lost()

    def written(self, request: "CountedRequest", connection: aiohttp.connector.Connection) -> None:
        """Record that the connection is there and the request is about to be written.

        Raises:
            _Stale: the connection cannot be used.
        """
        protocol, transport = connection.protocol, connection.transport
        # An answer that no request asked for must not be taken for this one's. From here on that cannot be known:
        # HTTP/1.1 has no number that ties an answer to its request.
        if protocol is None or transport is None or protocol.should_close:
            raise _Stale
        # What may be sent again without harm is not worth the question whether the server has closed the connection.
        state = None if request.method in _REPEATABLE else tcp_state(transport)
        if state is not None and not state.is_open:
            raise _Stale
        self.sent = True
        uploads = request.uploads
        if uploads and (request.proxy is not None or not is_direct(transport)):
            self.permit.sent(watch_progress(lambda: _moved(connection)))
        elif request.proxy is not None:
            self.permit.sent()
        elif uploads:
            self.permit.sent(watch_arrival(transport, state, request.size_of_headers()))
        else:
            self.permit.sent(watch_arrival(transport))
        if self.limit is not None:
            self._narrow()
        elif self._silence is not None:
            self._watch(uploads, connection, self._silence)

    def end(self, answer: aiohttp.ClientResponse | None = None) -> None:
        """Stop watching: the headers are here, or the attempt is over. aiohttp's own timer goes on with the body."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection = None if answer is None else answer.connection
        if connection is not None and connection.protocol is not None and connection.protocol.read_timeout is None:
            connection.protocol.read_timeout = self._silence
            connection.protocol.start_timeout()

    def _narrow(self) -> None:
        """Let the limit end after so many seconds of silence, or with the whole attempt."""
        if self.limit is None:
            return
        end = self._until
        if self._silence is not None:
            silent = asyncio.get_running_loop().time() + self._silence
            end = silent if end is None or silent < end else end
        self.limit.reschedule(end)

    def _watch(self, uploads: bool, connection: aiohttp.connector.Connection, silence: float) -> None:
        """Break the connection when nothing moves for `silence` seconds until the headers are here."""
        if uploads and connection.protocol is not None:
            # While bytes are on their way the server is not silent: aiohttp's timer knows only what the kernel took.
            connection.protocol.read_timeout = None
            self._moved = _moved(connection)
        pause = silence / _LOOKS if uploads else silence
        self._timer = self._clock.call_later(pause, partial(self._look, uploads, connection, pause))

    def _look(self, uploads: bool, connection: aiohttp.connector.Connection, pause: float) -> None:
        moved = _moved(connection) if uploads else 0
        self._looks = 0 if moved != self._moved else self._looks + 1
        self._moved = moved
        if uploads and self._looks < _LOOKS:
            self._timer = self._clock.call_later(pause, partial(self._look, uploads, connection, pause))
        elif connection.protocol is not None:
            connection.protocol.set_exception(aiohttp.SocketTimeoutError("no response headers in time"))


def _moved(connection: aiohttp.connector.Connection) -> int:
    """Return a number that changes as long as bytes leave: those acknowledged, or those that the kernel took."""
    transport = connection.transport
    if transport is None:
        return 0
    state = tcp_state(transport)
    return state.acknowledged if state is not None else -transport.get_write_buffer_size()


class CountedRequest(aiohttp.ClientRequest):
    """A request that reports to its attempt when it is written.

    aiohttp's trace `on_request_headers_sent` reports the same, but then awaits a signal at every step of every request.
    """

    attempt: Attempt | None = None

    # No `async def`, which would cost a second coroutine for every request.
    def send(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, conn: aiohttp.connector.Connection
    ) -> Coroutine[Any, Any, aiohttp.ClientResponse]:
        """Write the request, once its attempt has seen the connection."""
        if self.attempt is not None:
            self.attempt.written(self, conn)
        return super().send(conn)

    @property
    def uploads(self) -> bool:
        """Whether a body is sent piece by piece, which may take long."""
        return not isinstance(self.body, (bytes, aiohttp.BytesPayload))

    def size_of_headers(self) -> int:
        """Return how many bytes its request line and headers have."""
        headers: Any = self.headers
        return headers_size(self.method, self.url.raw_path_qs, headers)
