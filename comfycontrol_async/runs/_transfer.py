"""Transfer: downloads one output, with retries, resumption, and a fresh URL when the signed one has expired."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._retry import RetryPolicy, backoff
from comfycontrol_async._http._storage import Storage
from comfycontrol_async.errors import DownloadError, ResponseLostError, TransportError
from comfycontrol_async.models import Output
from comfycontrol_async.runs._assembly import Assembly

# What hosts answer to a signed URL that has expired: 403 (S3, Azure), 410, 400 (Google), 401.
_EXPIRED = frozenset({400, 401, 403, 410})
# Transient statuses: the host is slow or busy.
_PASSING = frozenset({408, 425, 429})
# For so many seconds after they were renewed URLs count as fresh; they live for five minutes.
_FRESH = 10.0
# Fewer bytes are no progress: otherwise a transfer of a few bytes per attempt would be retried for ever.
_PROGRESS = 16 * 1024
# Slower than 1 kB a second for a minute counts as a stalled connection.
_SLOW_WINDOW, _SLOW_BYTES = 60.0, 60 * 1024

Refresh = Callable[[], Awaitable[Sequence[Output]]]


class SignedUrls:
    """The signed URLs of a workflow's outputs, identified by position; one request renews them all."""

    def __init__(self, outputs: Sequence[Output], refresh: Refresh, clock: Clock) -> None:
        self._urls = [output.src for output in outputs]
        self._refresh = refresh
        self._clock = clock
        self._generation = 0
        self._renewed_at = -math.inf
        self._lock = asyncio.Lock()

    def get(self, place: int) -> tuple[str, int]:
        """Return the URL of the output at `place` (from 0), and how often the URLs were renewed before."""
        return self._urls[place], self._generation

    async def renew(self, generation: int) -> None:
        """Fetch fresh URLs, unless that was done since `generation` or a moment ago.

        Raises:
            DownloadError: the workflow has another number of outputs now.
        """
        async with self._lock:
            # A fresh URL that is refused has not expired: another one would be refused too.
            if generation != self._generation or self._clock.monotonic() - self._renewed_at < _FRESH:
                return
            fresh = [output.src for output in await self._refresh()]
            if len(fresh) != len(self._urls):
                raise DownloadError(f"the workflow had {len(self._urls)} outputs, and now has {len(fresh)}")
            self._urls, self._generation = fresh, self._generation + 1
            self._renewed_at = self._clock.monotonic()


@attrs.frozen(eq=False, repr=False, kw_only=True)
class TransferTools:
    """What every transfer of a client needs; `chance` gives random numbers in [0, 1) for the jitter."""

    storage: Storage
    timeouts: Timeouts
    retry: RetryPolicy
    clock: Clock
    chance: Callable[[], float]


class _Refused(Exception):  # noqa: N818 # a signal between two methods, never seen by a user
    """The storage host answered with a status that brings no file."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the storage host answers {status}")
        self.status = status


class Transfer:
    """The transfer of one output.

    Args:
        urls, place: which output.
        label: what errors call it.
        extension, media_type: what its URL says that it is.
    """

    def __init__(
        self, tools: TransferTools, urls: SignedUrls, place: int, *, label: str, extension: str, media_type: str
    ) -> None:
        self._tools = tools
        self._urls = urls
        self._place = place
        self._label = label
        self._assembly = Assembly(extension, media_type)
        self._attempt = 0
        self._renewed = False
        # How far any attempt came, in bytes.
        self._furthest = 0

    async def pieces(self) -> AsyncGenerator[bytes | None, None]:
        """Give the content in pieces; None where it begins again, and what was given before does not count.

        Raises:
            DownloadError: it cannot be fetched.
            TransportError, APIError: its URL had expired, and there was no fresh one.
        """
        while True:
            url, generation = self._urls.get(self._place)
            try:
                async with aclosing(self._attempt_once(url)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except (TransportError, _Refused) as error:
                failure = error
            except DownloadError as error:
                raise self._failed(error.message) from error
            await self._recover(failure, generation)

    async def _attempt_once(self, url: str) -> AsyncGenerator[bytes | None, None]:
        """Give what one answer adds to what is here, to the end of the file."""
        offset, etag = self._assembly.wanted
        clock = self._tools.clock
        async with self._tools.storage.download(url, offset=offset, etag=etag, timeouts=self._tools.timeouts) as answer:
            if answer.status not in (200, 206, 416):
                raise _Refused(answer.status)
            if self._assembly.begin(answer.status, answer.headers):
                yield None
            if answer.status != 416:  # else all of it was here: the connection broke at its very end
                pace = _Pace(clock.monotonic())
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        pace.check(len(chunk), clock.monotonic())
                        for piece in self._assembly.take(chunk):
                            yield piece
                        pace.wait_from(clock.monotonic())
            for piece in self._assembly.finish(has_length=answer.has_length):
                yield piece

    async def _recover(self, failure: TransportError | _Refused, generation: int) -> None:
        """Do what the next attempt needs: fresh URLs, or a pause.

        Raises:
            DownloadError: there is no next attempt.
        """
        if self._assembly.received - self._furthest >= _PROGRESS:
            self._attempt, self._renewed, self._furthest = 0, False, self._assembly.received
        status = failure.status if isinstance(failure, _Refused) else None
        if status in _EXPIRED and not self._renewed:
            self._renewed = True
            await self._urls.renew(generation)
            return
        self._attempt += 1
        passing = status is None or status >= 500 or status in _PASSING
        retry = self._tools.retry
        if not passing or self._attempt >= retry.attempts:
            raise self._failed(str(failure)) from (failure if isinstance(failure, TransportError) else None)
        await self._tools.clock.sleep(backoff(retry, self._attempt, self._tools.chance()))

    def _failed(self, reason: str) -> DownloadError:
        return DownloadError(f"{self._label} could not be fetched: {reason}")


class _Pace:
    """Counts what comes in a window of waiting; the time that the consumer takes is its own."""

    def __init__(self, now: float) -> None:
        self._from = now
        self._waited = 0.0
        self._bytes = 0

    def wait_from(self, now: float) -> None:
        """Begin to wait for the next bytes."""
        self._from = now

    def check(self, size: int, now: float) -> None:
        """Count `size` bytes that came.

        Raises:
            ResponseLostError: too few came in the last window.
        """
        self._bytes += size
        self._waited += now - self._from
        if self._waited < _SLOW_WINDOW:
            return
        if self._bytes < _SLOW_BYTES:
            raise ResponseLostError(f"only {self._bytes} bytes came in {_SLOW_WINDOW:.0f} s")
        self._waited, self._bytes = 0.0, 0
