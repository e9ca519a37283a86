"""Streams: the event streams of a watcher, each bounded, each read until its workflow ends or streams are no use.

A stream tells that it is alive by its updates alone: comments and keep-alives may come from a proxy whose other side is
gone. So one without an update for 30 s, or older than 5 minutes (the API closes them after 4), is dropped, and so is
one that is refused for any reason; the workflow is then fetched and from there on polled. One that broke is opened
again, three times in a row at most.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    RateLimitedError,
    RateLimitWaitError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from comfycontrol_async.models import WorkflowUpdate
from comfycontrol_async.resources._calls import Open
from comfycontrol_async.resources._events import open_events, read_events
from comfycontrol_async.runs._deadline import Deadline
from comfycontrol_async.runs._watched import Watched, not_own

log = logging.getLogger("comfycontrol_async.watch")

# Seconds without an update, and seconds of age, after which a stream is dropped.
_QUIET = 30.0
_OLD = 300.0
# Streams that end early in a row before the workflow is polled instead, and the seconds of one that did not.
MOST_FAILED = 3
_GOOD = 10.0

# What the next stream may be spared.
_MAY_PASS = (TransportError, ServerError, RateLimitedError, RateLimitWaitError)


class Streams:
    """The open streams of a watcher.

    Args:
        unit: seconds that stand for one, for a service in scaled time.
        most: how many may be open at once.
        update: called with each update.
        fetch: asks for a workflow by its id, when its stream was no use; its errors are taken note of there.
        poll: called when a workflow has lost its stream for good.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        unit: float,
        most: int,
        update: Callable[[Watched, WorkflowUpdate], None],
        fetch: Callable[[Watched], Awaitable[None]],
        poll: Callable[[], None],
    ) -> None:
        self._clock, self._unit, self._most = clock, unit, most
        self._update, self._fetch, self._poll = update, fetch, poll
        self._open = 0

    @property
    def open(self) -> int:
        """How many workflows have a stream."""
        return self._open

    @property
    def room(self) -> int:
        """How many more may be opened."""
        return self._most - self._open

    def forget(self) -> None:
        """Begin with none: their loop is closed."""
        self._open = 0

    def start(self, watched: Watched, open: Open) -> None:
        """Follow a workflow by streams that are opened with `open`."""
        self._open += 1
        watched.stream = asyncio.get_running_loop().create_task(
            self._follow(watched, open), name=f"comfycontrol stream {watched.id}"
        )

    def drop(self, watched: Watched) -> asyncio.Task[None] | None:
        """Take its stream from a workflow; return the task, for the caller to stop."""
        task, watched.stream = watched.stream, None
        self._open -= task is not None
        return task

    async def _follow(self, watched: Watched, open: Open) -> None:
        """Read its streams, one after another, until it has ended or they are no use."""
        try:
            while watched.failed < MOST_FAILED and not watched.ended:
                await self._try(watched, open)
                if not watched.ended and watched.failed < MOST_FAILED:
                    # The API closes a good one every four minutes.
                    watched.failed += 1
                    await self._clock.sleep(self._unit * watched.failed)
            if not watched.ended:
                await self._fetch(watched)
        except (Exception, asyncio.CancelledError) as error:  # followers would wait for a task that is gone
            watched.fail(not_own(error))
        if not watched.ended:
            self.drop(watched)
            self._poll()

    async def _try(self, watched: Watched, open: Open) -> None:
        try:
            if not await self._read(watched, open):
                log.info("the stream of %s brings nothing more: polling it", watched.id)
                watched.failed = MOST_FAILED
        except AuthenticationError:
            raise
        except _MAY_PASS as error:
            log.debug("the stream of %s broke: %s", watched.id, error)
        except (APIError, ResponseFormatError) as error:
            log.info("the stream of %s is refused: polling it (%s)", watched.id, error)
            watched.failed = MOST_FAILED

    async def _read(self, watched: Watched, open: Open) -> bool:
        """Read one stream to its end; return False if it was dropped before."""
        stream = await open_events(open, watched.id)
        try:
            return await self._read_open(watched, stream)
        finally:
            stream.close()

    async def _read_open(self, watched: Watched, stream: Stream) -> bool:
        opened = self._clock.monotonic()
        first: float | None = None
        async with Deadline(self._clock) as deadline:
            deadline.expire_in(_QUIET * self._unit)
            async with aclosing(read_events(stream, watched.id)) as updates:
                async for update in updates:
                    self._update(watched, update)
                    if update.status.terminal:
                        break
                    now = self._clock.monotonic()
                    first = now if first is None else first
                    if now - first >= _GOOD * self._unit:
                        watched.failed = 0
                    deadline.expire_in(min(_QUIET * self._unit, opened + _OLD * self._unit - now))
        return not deadline.expired
