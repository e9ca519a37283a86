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
from comfycontrol_async._http._config import WatchPolicy
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    ClientClosedError,
    RateLimitedError,
    RateLimitWaitError,
    ResponseFormatError,
    ServerError,
    TransportError,
)
from comfycontrol_async.limits import Limiter, Priority, RateLimitSnapshot
from comfycontrol_async.models import Page, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._watch_plan import ENOUGH_DURATIONS, MISSES_UNKNOWN, PER_PAGE, Waiting, plan
from comfycontrol_async.runs._watch_state import Watched, update_of, update_of_summary

log = logging.getLogger("comfycontrol_async.watch")

# Streams that end early in a row before the workflow is watched otherwise, and the seconds of one that did not.
_MOST_FAILED_STREAMS = 3
_GOOD_STREAM = 10.0
# For how many times `max_interval` looking may fail, each look after all retries of its own: 120 s by default.
_LONGEST_OUTAGE = 12
# Seconds before its expected end at which a late stream is opened: it has to get its turn at the limiter.
_LEAD = 2.0
# Seconds in which a new workflow may still be missing in the listing.
_LISTED_LATE = 10.0
# The share of the limit that is free when the budget is short.
_SCARCE = 0.25
# Durations of ended workflows that are remembered.
_MOST_DURATIONS = 200

# What may pass, and what a look says of nobody in particular.
_FAULTS = (TransportError, ServerError, RateLimitedError, ResponseFormatError)


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
        self.policy: WatchPolicy = policy
        self._limiter, self._clock = limiter, clock
        self._submitted = 0
        self._durations: list[float] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._start_over()

    @property
    def max_streams(self) -> int:
        """How many workflows are watched by stream at once, at the most."""
        return self.policy.max_streams

    def limits(self) -> RateLimitSnapshot:
        """Return the state of the limiter that all looks go through."""
        return self._limiter().snapshot()

    def _start_over(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._looking: asyncio.Task[None] | None = None
        self._failed_looks = 0

    def count_submitted(self) -> int:
        """Take note of a workflow that this client made, and return its number: it tells the place in the listing."""
        self._submitted += 1
        return self._submitted

    async def follow(
        self,
        id: str,
        *,
        ordinal: int | None = None,
        born: float | None = None,
        created_at: datetime | None = None,
        outputs: bool = True,
        batch: bool = False,
    ) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give each state of the workflow that is seen and differs from the one before, until it is final.

        Args:
            ordinal: the number from `count_submitted`, when this client made it.
            born: when it was made, by the monotonic clock, if that was seen from here.
            created_at: when it was made, by the server's clock.
            outputs: whether its outputs are wanted too; a stream brings them along.
            batch: whether many more like it will be followed: a stream for its state alone is not worth a request.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking failed for good.
            ClientClosedError: the client was closed meanwhile.
        """
        watched = self._join(id, born, batch, created_at, outputs)
        watched.learn(ordinal, created_at, outputs)
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
                    raise watched.own_error()
                if watched.ended:
                    return
                await news.wait()
        finally:
            await self._leave(watched, news)

    async def close(self) -> None:
        """Stop everything; whoever still waits gets a ClientClosedError."""
        if self._loop is not asyncio.get_running_loop():
            self._start_over()  # whoever waited on another loop is gone with it
        for watched in self._watched.values():
            watched.tell(None, ClientClosedError("the client was closed while this workflow was waited for"))
        tasks = [task for task in (self._looking, *(w.stream for w in self._watched.values())) if task is not None]
        await _stop(tasks)

    # Who is watched

    def _join(self, id: str, born: float | None, batch: bool, created_at: datetime | None, outputs: bool) -> Watched:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            self._start_over()
        watched = self._watched.get(id)
        if watched is None:
            watched = self._watched[id] = self._begin(id, born, created_at, outputs)
            few = len(self._watched) <= self.policy.max_streams and not batch
            if self._room_for_streams() and (few or (outputs and not self._expected())):
                self._open_stream(watched, self._workflows)
        if watched.stream is None:
            self._see_to_looking()
        return watched

    def _begin(self, id: str, born: float | None, created_at: datetime | None, outputs: bool) -> Watched:
        now = self._clock.monotonic()
        return Watched(
            id=id,
            created=now if born is None else born,
            # One whose age nobody knows is looked for at once.
            seen=now - self.policy.max_interval if born is None else born,
            born=born is not None,
            ordinal=None,
            outputs=outputs,
            created_at=created_at,
        )

    def _see_to_looking(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="comfycontrol watcher")

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

    def _to_look_for(self) -> list[Watched]:
        return [watched for watched in self._watched.values() if watched.stream is None and not watched.ended]

    # Streams

    def _room_for_streams(self) -> int:
        return self.policy.max_streams - sum(other.stream is not None for other in self._watched.values())

    def _expected(self) -> float | None:
        """Return how long workflows take as far as is known, None when too few have ended."""
        known = self._durations
        return known[len(known) // 2] if len(known) >= ENOUGH_DURATIONS else None

    def _open_late_streams(self, now: float) -> None:
        """Open streams for those whose outputs are wanted and that should end within the next moment."""
        room, expected = self._room_for_streams(), self._expected()
        if room <= 0 or expected is None:
            return
        soon = now - expected + _LEAD * self.policy.min_interval
        for watched in sorted(self._to_look_for(), key=lambda one: one.created)[:room]:
            if watched.outputs and watched.created <= soon and watched.failed < _MOST_FAILED_STREAMS:
                self._open_stream(watched, self._direct)

    def _open_stream(self, watched: Watched, workflows: WorkflowsResource) -> None:
        watched.stream = asyncio.get_running_loop().create_task(
            self._stream(watched, workflows), name=f"comfycontrol stream {watched.id}"
        )

    async def _stream(self, watched: Watched, workflows: WorkflowsResource) -> None:
        """Read its streams, one after another, until it has ended or they fail; then it is looked for."""
        while watched.failed < _MOST_FAILED_STREAMS:
            try:
                await self._read_stream(watched, workflows)
            except (*_FAULTS, RateLimitWaitError) as error:
                log.debug("the stream of %s broke: %s", watched.id, error)
            except Exception as error:  # whatever it is, nobody may wait for a task that is gone
                watched.tell(None, error)
            if watched.ended:
                return
            # The API closes a good one every four minutes.
            watched.failed += 1
            await self._clock.sleep(self.policy.min_interval * watched.failed)
        watched.stream = None
        self._see_to_looking()

    async def _read_stream(self, watched: Watched, workflows: WorkflowsResource) -> None:
        """Read one stream to its end."""
        first: float | None = None
        async with aclosing(workflows.subscribe(watched.id)) as updates:
            async for update in updates:
                self._sighted(watched, update)
                if update.status.terminal:
                    return
                first = watched.seen if first is None else first
                if watched.seen - first >= _GOOD_STREAM * self.policy.min_interval:
                    watched.failed = 0

    # Looking

    async def _look_on(self) -> None:
        """Look for everything that has no stream, as planned, until there is nothing."""
        while True:
            try:
                pause = await self._look()
            except Exception as error:  # whatever it is, nobody may wait for a task that is gone
                for watched in self._to_look_for():
                    watched.tell(None, error)
                pause = self.policy.min_interval
            await self._clock.sleep(pause)

    async def _look(self) -> float:
        """Ask for what is due now, and return the pause that follows."""
        now = self._clock.monotonic()
        self._open_late_streams(now)
        waiting = [self._waiting(watched, now) for watched in self._to_look_for()]
        chosen = plan(waiting, self._durations, self.policy, scarce=self._scarce())
        failed = 0
        try:
            for number in chosen.pages:
                await self._read_page(number)
        except _FAULTS as error:
            failed += 1
            self._take_note(error, self._to_look_for())
        for id in chosen.ids:
            watched = self._watched.get(id)
            if watched is None or watched.stream is not None or watched.ended:
                continue
            try:
                await self._fetch(watched)
            except _FAULTS as error:
                failed += 1
                self._take_note(error, [watched])
        self._failed_looks = self._failed_looks + 1 if failed else 0
        return min(self.policy.max_interval, chosen.again_in * (1 + self._failed_looks))

    def _take_note(self, error: Exception, concerned: list[Watched]) -> None:
        """Remember that looking failed; whoever that has gone on for too long is told."""
        log.info("looking for workflows failed: %s", error)
        now = self._clock.monotonic()
        for watched in concerned:
            if watched.failing_since is None:
                watched.failing_since = now
            elif now - watched.failing_since >= _LONGEST_OUTAGE * self.policy.max_interval:
                watched.tell(None, error)

    def _scarce(self) -> bool:
        limits = self.limits()
        others = any(count for priority, count in limits.waiting.items() if priority > Priority.BULK)
        return others or limits.available < limits.limit * _SCARCE

    def _waiting(self, watched: Watched, now: float) -> Waiting:
        place = None if watched.ordinal is None else self._submitted - watched.ordinal + watched.drift
        return Waiting(
            id=watched.id,
            age=now - watched.created,
            unseen=now - watched.seen,
            place=place,
            misses=watched.misses,
        )

    async def _read_page(self, number: int) -> None:
        asked = self._clock.monotonic()
        missed = {watched.id for watched in self._to_look_for() if self._expected_on(watched, number, asked)}
        page = await self._workflows.list(per_page=PER_PAGE).page(number)
        for index, summary in enumerate(page.items):
            missed.discard(summary.id)
            watched = self._watched.get(summary.id)
            if watched is not None:
                self._place(watched, (number - 1) * PER_PAGE + index)
            # A stream tells the same by itself, and the outputs with it.
            if watched is not None and watched.stream is None:
                self._sighted(watched, update_of_summary(summary, watched.update))
        for watched in self._to_look_for():
            if watched.id in missed:
                self._miss(watched, page)

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
        if page.number == 1 and self._clock.monotonic() - watched.created < _LISTED_LATE * self.policy.min_interval:
            return
        watched.misses += 1
        if len(page.items) + len(page.invalid_items) < PER_PAGE:
            watched.misses = MISSES_UNKNOWN  # the listing ends here: ask for it by its id
        if watched.ordinal is None or not page.items:
            return
        newer = watched.created_at is not None and page.items[0].created_at < watched.created_at
        watched.drift += -PER_PAGE if newer and page.number > 1 else PER_PAGE

    async def _fetch(self, watched: Watched) -> None:
        """Ask for one workflow by its id."""
        try:
            workflow = await self._workflows.get(watched.id)
        except (ServerError, RateLimitedError, AuthenticationError):
            raise  # says nothing of this one
        except APIError as error:
            watched.tell(None, error)
            return
        self._sighted(watched, update_of(workflow))

    def _sighted(self, watched: Watched, update: WorkflowUpdate) -> None:
        now = self._clock.monotonic()
        if update.status.terminal and not watched.ended:
            self._remember(watched, update, now)
        watched.seen = now
        watched.failing_since = None
        watched.tell(update)

    def _remember(self, watched: Watched, update: WorkflowUpdate, now: float) -> None:
        """Learn from an ending how long workflows take: what the server says, within what was seen from here."""
        if update.completed_at is None or watched.created_at is None or not watched.born:
            return
        said = (update.completed_at - watched.created_at).total_seconds() * self.policy.min_interval
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
