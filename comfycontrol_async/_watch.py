"""Watcher: finds out how waiting workflows get on, for all who wait, for the fewest requests.

One event stream costs one request for four minutes and brings the outputs with its last event: so few are watched by
stream. A listing page tells of 100 workflows for one request: so many are watched by pages, chosen by `_watch_plan`.
Stragglers, whose place in the listing nobody knows, are fetched by their ids. All of it runs in the BULK lane.

When many are waited for whose outputs are wanted, the few streams there may be are opened late, for those that should
end next: such a stream does the work of the request for the outputs, in the same lane, and tells of the end besides.

There is one task that looks and one for each stream, as long as anybody waits, and none after.
"""

import asyncio
import logging
from bisect import insort
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._config import WatchPolicy
from comfycontrol_async._watch_plan import ENOUGH_DURATIONS, MISSES_UNKNOWN, PER_PAGE, Waiting, plan
from comfycontrol_async._watch_state import Watched, update_of, update_of_summary
from comfycontrol_async.errors import (
    ClientClosedError,
    NotFoundError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.models import Page, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources import WorkflowsResource

log = logging.getLogger("comfycontrol_async.watch")

# Streams that fail in a row before the workflow is watched otherwise.
_MOST_FAILED_STREAMS = 3
# Looks that fail in a row, each after all retries of its own, before those who wait are told.
_MOST_FAILED_LOOKS = 5
# Seconds before its expected end at which a late stream is opened: it has to get its turn at the limiter.
_LEAD = 2.0
# Durations of ended workflows that are remembered.
_MOST_DURATIONS = 200

_FAULTS = (TransportError, ServerError, ResponseFormatError)


class Watcher:
    """Follows workflows for everybody of a client who waits.

    Args:
        workflows: a resource whose requests go in the BULK lane.
        direct: one whose requests go in the client's own lane, for streams that fetch outputs.
        limiter: asked whether the budget is scarce.
    """

    def __init__(
        self,
        workflows: WorkflowsResource,
        direct: WorkflowsResource,
        policy: WatchPolicy,
        limiter: Callable[[], Limiter],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._workflows = workflows
        self._direct = direct
        self._policy = policy
        self._limiter = limiter
        self._clock = clock
        self._submitted = 0
        self._durations: list[float] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start_over()

    @property
    def max_streams(self) -> int:
        """How many workflows are watched by stream at once, at the most."""
        return self._policy.max_streams

    def _start_over(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._looking: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._failed = 0

    def count_submitted(self) -> int:
        """Take note of a workflow that this client made, and return its number: it tells the place in the listing."""
        self._submitted += 1
        return self._submitted

    async def follow(
        self,
        id: str,
        *,
        ordinal: int | None = None,
        created_at: datetime | None = None,
        outputs: bool = True,
        batch: bool = False,
    ) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give each state of the workflow that is seen and differs from the one before, until it is final.

        Args:
            ordinal: the number from `count_submitted`, when this client made it.
            created_at: when it was made, by the server's clock.
            outputs: whether its outputs are wanted too; a stream brings them along.
            batch: whether many more like it will be followed: a stream for its state alone is not worth a request.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking failed for good.
            ClientClosedError: the client was closed meanwhile.
        """
        watched = self._join(id, ordinal, created_at, outputs, batch)
        news = asyncio.Event()
        watched.followers.add(news)
        last: WorkflowUpdate | None = None
        try:
            while True:
                news.clear()
                if watched.update is not None and watched.update != last:
                    last = watched.update
                    yield last
                    continue  # there may be news by now
                if watched.error is not None:
                    raise watched.error
                if watched.ended:
                    return
                await news.wait()
        finally:
            await self._leave(watched, news)

    async def close(self) -> None:
        """Stop everything; whoever still waits gets a ClientClosedError."""
        for watched in self._watched.values():
            watched.tell(None, ClientClosedError("the client was closed while this workflow was waited for"))
        tasks = [task for task in (self._looking, *(w.stream for w in self._watched.values())) if task is not None]
        await _stop(tasks)

    # Who is watched

    def _join(self, id: str, ordinal: int | None, created_at: datetime | None, outputs: bool, batch: bool) -> Watched:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._start_over()
        watched = self._watched.get(id)
        if watched is None:
            now = self._clock.monotonic()
            watched = self._watched[id] = Watched(id, now, now, ordinal, outputs, created_at)
            few = len(self._watched) <= self._policy.max_streams and not batch
            if self._room_for_streams() and (few or (outputs and not self._expected())):
                self._open_stream(watched, self._workflows)
        if watched.stream is None and (self._looking is None or self._looking.done()):
            self._looking = loop.create_task(self._look_on(), name="comfycontrol watcher")
        return watched

    async def _leave(self, watched: Watched, news: asyncio.Event) -> None:
        """Forget a workflow that nobody follows any more, and what ran for it alone."""
        watched.followers.discard(news)
        if watched.followers or self._watched.get(watched.id) is not watched:
            return
        del self._watched[watched.id]
        tasks = [watched.stream] if watched.stream is not None else []
        if self._looking is not None and all(other.stream is not None for other in self._watched.values()):
            tasks.append(self._looking)
            self._looking = None
        await _stop(tasks)

    # Streams

    def _room_for_streams(self) -> int:
        return self._policy.max_streams - sum(other.stream is not None for other in self._watched.values())

    def _expected(self) -> float | None:
        """Return how long workflows take as far as is known, None when too few have ended."""
        known = self._durations
        return known[len(known) // 2] if len(known) >= ENOUGH_DURATIONS else None

    def _open_late_streams(self, waiting: list[Watched], now: float) -> None:
        """Open streams for those whose outputs are wanted and that should end within the next moment."""
        room, expected = self._room_for_streams(), self._expected()
        if room <= 0 or expected is None:
            return
        soon = now - expected + _LEAD * self._policy.min_interval
        for watched in sorted(waiting, key=lambda one: one.created)[:room]:
            if watched.outputs and watched.created <= soon and watched.failed < _MOST_FAILED_STREAMS:
                self._open_stream(watched, self._direct)

    def _open_stream(self, watched: Watched, workflows: WorkflowsResource) -> None:
        watched.stream = asyncio.get_running_loop().create_task(
            self._stream(watched, workflows), name=f"comfycontrol stream {watched.id}"
        )

    async def _stream(self, watched: Watched, workflows: WorkflowsResource) -> None:
        """Read its streams, one after another, until it has ended or they fail; then it is looked for."""
        while not watched.ended and watched.failed < _MOST_FAILED_STREAMS:
            try:
                if await self._read_stream(watched, workflows):
                    watched.failed = 0
                    continue  # closed after its last update, as the API does every four minutes
            except _FAULTS as error:
                log.debug("the stream of %s broke: %s", watched.id, error)
            except Exception as error:  # whatever it is, nobody may wait for a task that is gone
                watched.tell(None, error)
                return
            watched.failed += 1
            await self._clock.sleep(self._policy.min_interval * watched.failed)
        if not watched.ended:
            watched.stream = None
            if self._looking is None or self._looking.done():
                self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="comfycontrol watcher")

    async def _read_stream(self, watched: Watched, workflows: WorkflowsResource) -> bool:
        """Read one stream to its end; tell whether it brought anything."""
        read = False
        async with aclosing(workflows.subscribe(watched.id)) as updates:
            async for update in updates:
                read = True
                watched.failed = 0
                self._sighted(watched, update)
                if update.status.terminal:
                    break
        return read

    # Looking

    async def _look_on(self) -> None:
        """Look for everything that has no stream, as planned, until there is nothing."""
        while True:
            now = self._clock.monotonic()
            self._open_late_streams([one for one in self._watched.values() if self._to_look_for(one)], now)
            waiting = [self._waiting(one, now) for one in self._watched.values() if self._to_look_for(one)]
            chosen = plan(waiting, self._durations, self._policy, scarce=self._scarce())
            try:
                for number in chosen.pages:
                    await self._read_page(number)
                for id in chosen.ids:
                    await self._fetch(id)
            except _FAULTS as error:
                self._failed += 1
                log.info("looking for workflows failed: %s", error)
                if self._failed >= _MOST_FAILED_LOOKS:
                    self._give_up(error)
            except Exception as error:  # whatever it is, nobody may wait for a task that is gone
                self._give_up(error)
            else:
                self._failed = 0 if chosen.pages or chosen.ids else self._failed
            await self._clock.sleep(chosen.again_in)

    def _to_look_for(self, watched: Watched) -> bool:
        return watched.stream is None and not watched.ended

    def _give_up(self, error: Exception) -> None:
        self._failed = 0
        for watched in self._watched.values():
            if self._to_look_for(watched):
                watched.tell(None, error)

    def _scarce(self) -> bool:
        waiting = self._limiter().snapshot().waiting
        return any(count for priority, count in waiting.items() if priority > Priority.BULK)

    def _waiting(self, watched: Watched, now: float) -> Waiting:
        place = None if watched.ordinal is None else self._submitted - watched.ordinal + watched.drift
        return Waiting(
            id=watched.id,
            age=now - watched.created,
            unseen=now - watched.seen,
            place=place,
            misses=watched.misses,
            outputs=watched.outputs,
        )

    async def _read_page(self, number: int) -> None:
        asked = self._clock.monotonic()
        missed = {
            watched.id
            for watched in self._watched.values()
            if self._to_look_for(watched) and self._expected_on(watched, number, asked)
        }
        page = await self._workflows.list(per_page=PER_PAGE).page(number)
        for index, summary in enumerate(page.items):
            missed.discard(summary.id)
            watched = self._watched.get(summary.id)
            if watched is not None:
                self._place(watched, (number - 1) * PER_PAGE + index)
            # A stream tells the same by itself, and the outputs with it.
            if watched is not None and watched.stream is None:
                self._sighted(watched, update_of_summary(summary, watched.update))
        for id in missed:
            if id in self._watched:
                self._miss(self._watched[id], page)

    def _expected_on(self, watched: Watched, number: int, now: float) -> bool:
        waiting = self._waiting(watched, now)
        if waiting.place is None:
            return waiting.misses + 1 == number
        return waiting.place // PER_PAGE + 1 == number

    def _place(self, watched: Watched, place: int) -> None:
        """Remember where in the listing it was seen."""
        watched.misses = 0
        if watched.ordinal is None:
            # From now on it moves down with what this client makes.
            watched.ordinal = self._submitted
        watched.drift = place - (self._submitted - watched.ordinal)

    def _miss(self, watched: Watched, page: Page[WorkflowSummary]) -> None:
        """Look for it on the next page next time, or on the one before when this page is older than it."""
        watched.misses += 1
        if len(page.items) + len(page.invalid_items) < PER_PAGE:
            watched.misses = MISSES_UNKNOWN  # the listing ends here: ask for it by its id
        if watched.ordinal is None or not page.items:
            return
        newer = watched.created_at is not None and page.items[0].created_at < watched.created_at
        watched.drift += -PER_PAGE if newer and page.number > 1 else PER_PAGE

    async def _fetch(self, id: str) -> None:
        """Ask for one workflow by its id."""
        watched = self._watched.get(id)
        if watched is None:
            return
        try:
            workflow = await self._workflows.get(id)
        except NotFoundError as error:
            watched.tell(None, error)
            return
        self._sighted(watched, update_of(workflow))

    def _sighted(self, watched: Watched, update: WorkflowUpdate) -> None:
        now = self._clock.monotonic()
        if update.status.terminal and not watched.ended:
            self._remember(watched, update, now)
        watched.seen = now
        watched.tell(update)

    def _remember(self, watched: Watched, update: WorkflowUpdate, now: float) -> None:
        """Learn from an ending how long workflows take: what the server says, within what was seen from here."""
        if update.completed_at is None or watched.created_at is None or watched.ordinal is None:
            return
        said = (update.completed_at - watched.created_at).total_seconds() * self._policy.min_interval
        insort(self._durations, min(max(said, watched.seen - watched.created), now - watched.created))
        if len(self._durations) > _MOST_DURATIONS:
            # Thin out evenly: what is left has the same shape.
            del self._durations[::2]


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
