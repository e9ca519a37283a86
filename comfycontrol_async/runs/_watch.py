"""Watcher: finds out how waiting workflows get on, for all callers that wait, for the fewest requests.

One event stream costs one request for four minutes and brings the outputs with its last event: so few are watched by
stream. A listing page tells of 100 workflows for one request: so many are watched by pages, chosen by `_watch_plan`.
Stragglers, whose place in the listing is not known, are fetched by their ids. All of it runs in the BULK lane, but for
streams that bring wanted outputs: they do the work of the request for these, in its lane, and tell of the end besides.
When many are waited for, such streams are opened late, for those that should end next.

There is one task that polls and one for each stream, as long as any caller waits, and none after.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._http._config import WatchPolicy
from comfycontrol_async._http._hooks import Hooks
from comfycontrol_async._loop import LoopBinding
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    NotFoundError,
    RateLimitWaitError,
    ResponseFormatError,
    TransportError,
)
from comfycontrol_async.events import WorkflowChanged
from comfycontrol_async.limits import Limiter, Priority, RateLimitSnapshot
from comfycontrol_async.models import Page, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._route import Route, highest
from comfycontrol_async.runs._state import State, merge, merge_event
from comfycontrol_async.runs._streams import MOST_FAILED, Streams
from comfycontrol_async.runs._turns import JoinTurns
from comfycontrol_async.runs._watch_plan import MISSES_UNKNOWN, PER_PAGE, Durations, Waiting, plan
from comfycontrol_async.runs._watched import Watched, not_own

log = logging.getLogger("comfycontrol_async.watch")

# For how many times `max_interval` polls may fail, each after all retries of its own: 120 s by default.
_LONGEST_OUTAGE = 12
# Seconds before its expected end at which a late stream is opened: it has to get its turn at the limiter.
_LEAD = 2.0
# Seconds in which a stream may still tell an end that a page has shown: it brings the outputs along.
_GRACE = 5.0
# Seconds in which a new workflow may still be missing in the listing.
_LISTED_LATE = 10.0
# The share of the limit that is free when the budget is short.
_SCARCE = 0.25

# An odd answer to a poll says nothing of a workflow: of these only 401 is final, see `_read_pages` and `_ask`.
_FAULTS = (TransportError, APIError, ResponseFormatError, RateLimitWaitError)


class Watcher:
    """Follows workflows for all callers of a client who wait.

    Args:
        bulk: a route whose requests go in the BULK lane.
        limiter: asked whether the budget is scarce.
        ledger: knows which workflows were made here, and when.
        hooks: get a `WorkflowChanged` for each status that is seen.
    """

    def __init__(
        self,
        bulk: Route,
        policy: WatchPolicy,
        limiter: Callable[[], Limiter],
        ledger: Ledger,
        clock: Clock = SYSTEM_CLOCK,
        hooks: Hooks | None = None,
    ) -> None:
        self._hooks = Hooks() if hooks is None else hooks
        self.policy: WatchPolicy = policy
        self._bulk, self._limiter, self._ledger, self._clock = bulk, limiter, ledger, clock
        self._durations = Durations()
        self._binding = LoopBinding("client")
        self._streams = Streams(
            clock,
            unit=min(1.0, policy.min_interval),
            most=policy.max_streams,
            update=self._take_event,
            fetch=self._fetch,
            poll=self._ensure_polling,
        )
        self._start_over()
        ledger.readers.append(self._take_page)

    def limits(self) -> RateLimitSnapshot:
        """Return the state of the limiter that all polls go through."""
        return self._limiter().snapshot()

    def _start_over(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._polling: asyncio.Task[None] | None = None
        self._failed_polls = 0
        self.turns = JoinTurns()
        self._streams.forget()

    async def follow(
        self, known: State, route: Route, *, outputs: bool = True, batch: bool = False, live: bool = False
    ) -> AsyncGenerator[State, None]:
        """Give each state of the workflow that is seen and differs from the one before, until it is final.

        Args:
            known: what is known of it; the first state that is given is the first that is seen from here.
            route: the caller's own lane, for what may not come late: streams that bring outputs, polls for `live`.
            outputs: whether its outputs are wanted too; a stream brings them along.
            batch: whether many more like it will be followed: a stream for its state alone is not worth a request.
            live: whether every update is shown to a person: polls for it are not held back for long.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking failed for good.
            ClientClosedError: the client was closed meanwhile.
            ClientLoopError: the client belongs to another event loop that is still alive.
        """
        if self._binding.bind():
            self._start_over()
        watched = self._join(known, route, batch=batch, outputs=outputs)
        news = asyncio.Event()
        watched.followers.add(news)
        watched.live += live
        last: WorkflowUpdate | None = None
        try:
            while True:
                news.clear()
                if watched.state is not known and (update := watched.state.update()) != last:
                    last = update
                    yield watched.state
                    continue  # there may be news by now
                if watched.error is not None:
                    raise watched.own_error()
                if watched.ended:
                    return
                await news.wait()
        finally:
            watched.live -= live
            await self._leave(watched, news)

    async def close(self) -> None:
        """Stop everything; callers that still wait get a ClientClosedError."""
        if not self._binding.is_running():
            self._start_over()  # callers that waited on another loop are gone with it
        for watched in self._watched.values():
            watched.fail(ClientClosedError("the client was closed while this workflow was waited for"))
        streams = [self._streams.drop(watched) for watched in self._watched.values()]
        await _stop([task for task in (self._polling, *streams) if task is not None])

    # Who is watched

    def _join(self, known: State, route: Route, *, batch: bool, outputs: bool) -> Watched:
        watched = self._watched.get(known.workflow.id)
        if watched is None:
            watched = self._watched[known.workflow.id] = self._begin(known, route)
            self._emit(known, None)
            few = len(self._watched) <= self.policy.max_streams and not batch
            if self._streams.room > 0 and (few or (outputs and not self._durations.expected())):
                self._streams.start(watched, (route if outputs else self._bulk).open)
        watched.outputs = watched.outputs or outputs
        watched.route = highest((watched.route, route))
        if watched.stream is None:
            self._ensure_polling()
        return watched

    def _begin(self, known: State, route: Route) -> Watched:
        now = self._clock.monotonic()
        made = self._ledger.get(known.workflow.id)
        moment = None if made is None else made.moment
        return Watched(
            id=known.workflow.id,
            state=known,
            route=route,
            created=now if moment is None else moment,
            # One of unknown age is polled at once.
            seen=now - self.policy.max_interval if moment is None else moment,
            born=moment is not None,
            offset=-made.number if made is not None and made.number is not None else None,
        )

    def _ensure_polling(self) -> None:
        if self._polling is None or self._polling.done():
            self._polling = asyncio.get_running_loop().create_task(self._poll_on(), name="comfycontrol watcher")

    async def _leave(self, watched: Watched, news: asyncio.Event) -> None:
        """Forget a workflow that no caller follows any more, and what ran for it alone."""
        watched.followers.discard(news)
        if watched.followers or self._watched.get(watched.id) is not watched:
            return
        del self._watched[watched.id]
        if watched.grace is not None:
            watched.grace.cancel()
        tasks = [task for task in (self._streams.drop(watched),) if task is not None]
        if self._polling is not None and len(self._watched) == self._streams.open:
            tasks.append(self._polling)
            self._polling = None
        await _stop(tasks)

    def _polled(self) -> list[Watched]:
        return [watched for watched in self._watched.values() if watched.stream is None and not watched.ended]

    # Streams

    def _open_late_streams(self, now: float) -> None:
        """Open streams for those whose outputs are wanted and that should end soon after their turn comes."""
        room, expected = self._streams.room, self._durations.expected()
        if room <= 0 or expected is None:
            return
        turn = now + self.limits().next_free_in
        soon = turn - expected + _LEAD * self.policy.min_interval
        due = [watched for watched in self._polled() if watched.outputs and watched.created <= soon]
        for watched in sorted(due, key=lambda one: one.created)[:room]:
            if watched.failed < MOST_FAILED:
                self._streams.start(watched, watched.route.open)

    def _take_event(self, watched: Watched, update: WorkflowUpdate) -> None:
        self._observe(watched, merge_event(watched.state, update))

    # Polling

    async def _poll_on(self) -> None:
        """Poll everything that has no stream, as planned, until there is nothing."""
        while True:
            try:
                pause = await self._poll()
            except (Exception, asyncio.CancelledError) as raised:  # followers would wait for a task that is gone
                error = not_own(raised)
                for watched in self._polled():
                    watched.fail(error)
                pause = self.policy.min_interval
            await self._clock.sleep(pause)

    async def _poll(self) -> float:
        """Ask for what is due now, and return the pause that follows."""
        now = self._clock.monotonic()
        self._open_late_streams(now)
        scarce = self._scarce()
        polled = self._polled()
        waiting = [self._waiting(watched, now) for watched in polled]
        chosen = plan(waiting, self._durations.known, self.policy, scarce=scarce)
        # While the budget is short the plan polls once per `max_interval`: not much later for callers that look on.
        route = highest((self._bulk, *(watched.route for watched in polled if watched.live and scarce)))
        failed = not await self._read_pages(chosen.pages, route)
        for id in chosen.ids:
            watched = self._watched.get(id)
            if watched is not None and watched.stream is None and not watched.ended:
                failed |= not await self._ask(watched, route)
        self._failed_polls = self._failed_polls + 1 if failed else 0
        return min(self.policy.max_interval, chosen.again_in * (1 + self._failed_polls))

    async def _read_pages(self, numbers: tuple[int, ...], route: Route) -> bool:
        """Read listing pages; return False if that failed, for whatever reason but a refused token."""
        try:
            for number in numbers:
                await self._read_page(number, route)
        except AuthenticationError:
            raise
        except _FAULTS as error:
            self._note_failure(error, self._polled())
            return False
        return True

    async def _fetch(self, watched: Watched) -> None:
        await self._ask(watched, self._bulk)

    async def _ask(self, watched: Watched, route: Route) -> bool:
        """Ask for one workflow by its id; return False if that failed without saying anything of the workflow."""
        try:
            workflow = await route.workflows.get(watched.id)
        except AuthenticationError:
            raise
        except (NotFoundError, BadRequestError) as error:
            # One that was made here a moment ago may still be missing, as it may in the listing.
            if watched.born and self._is_young(watched):
                self._note_failure(error, [watched])
                return False
            watched.fail(error)
        except _FAULTS as error:
            self._note_failure(error, [watched])
            return False
        else:
            self._observe(watched, merge(watched.state, workflow))
        return True

    def _note_failure(self, error: Exception, concerned: list[Watched]) -> None:
        """Record that polling failed; after the longest outage it ends the wait."""
        log.info("polling workflows failed: %s", error)
        now = self._clock.monotonic()
        for watched in concerned:
            if watched.failing_since is None:
                watched.failing_since = now
            elif now - watched.failing_since >= _LONGEST_OUTAGE * self.policy.max_interval:
                watched.fail(error)

    def _scarce(self) -> bool:
        limits = self.limits()
        others = any(count for priority, count in limits.waiting.items() if priority > Priority.BULK)
        return others or limits.available < limits.limit * _SCARCE

    def _waiting(self, watched: Watched, now: float) -> Waiting:
        return Waiting(
            id=watched.id,
            age=now - watched.created,
            unseen=now - watched.seen,
            place=None if watched.offset is None else self._ledger.count + watched.offset,
            misses=watched.misses,
        )

    async def _read_page(self, number: int, route: Route) -> None:
        missed = {watched.id for watched in self._polled() if self._expected_on(watched, number)}
        page = await route.workflows.list(per_page=PER_PAGE).page(number)
        for index, summary in enumerate(page.items):
            missed.discard(summary.id)
            watched = self._watched.get(summary.id)
            if watched is None:
                continue
            watched.misses = 0
            watched.offset = (number - 1) * PER_PAGE + index - self._ledger.count
            self._take_listed(watched, summary)
        for watched in self._polled():
            if watched.id in missed:
                self._miss(watched, page)

    def _take_page(self, summaries: list[WorkflowSummary]) -> None:
        """Take the ends that a page shows which another part of the client has read."""
        for summary in summaries if self._watched and self._binding.is_running() else ():
            if summary.status.terminal and (watched := self._watched.get(summary.id)) is not None:
                self._take_listed(watched, summary)

    def _take_listed(self, watched: Watched, summary: WorkflowSummary) -> None:
        if watched.stream is None:
            self._observe(watched, merge(watched.state, summary))
        elif summary.status.terminal and watched.grace is None and not watched.ended:
            self._expect_end(watched, summary)

    def _expect_end(self, watched: Watched, summary: WorkflowSummary) -> None:
        """Tell an end that a page has shown, unless the workflow's stream tells it first, and the outputs with it."""

        def tell() -> None:
            self._observe(watched, merge(watched.state, summary))

        watched.grace = self._clock.call_later(_GRACE * self.policy.min_interval, tell)

    def _expected_on(self, watched: Watched, number: int) -> bool:
        if watched.offset is None:
            return watched.misses + 1 == number
        return (self._ledger.count + watched.offset) // PER_PAGE + 1 == number

    def _miss(self, watched: Watched, page: Page[WorkflowSummary]) -> None:
        """Look for it on the next page next time, or on the one before when this page is older than it."""
        if page.number == 1 and self._is_young(watched):
            return
        watched.misses += 1
        if len(page.items) + len(page.invalid_items) < PER_PAGE:
            watched.misses = MISSES_UNKNOWN  # the listing ends here: ask for it by its id
        if watched.offset is None or not page.items:
            return
        created_at = watched.state.created_at
        newer = created_at is not None and page.items[0].created_at < created_at
        watched.offset += -PER_PAGE if newer and page.number > 1 else PER_PAGE

    def _is_young(self, watched: Watched) -> bool:
        return self._clock.monotonic() - watched.created < _LISTED_LATE * self.policy.min_interval

    def _observe(self, watched: Watched, state: State) -> None:
        """Take a state that was seen just now."""
        now = self._clock.monotonic()
        if state.ended and not watched.ended:
            self._learn(watched, state, now)
        if state.status != watched.state.status and not watched.ended:
            self._emit(state, watched.state)
        watched.seen = now
        watched.failing_since = None
        watched.tell(state)

    def _emit(self, state: State, before: State | None) -> None:
        if self._hooks.wants(WorkflowChanged):
            workflow, previous = state.workflow, None if before is None else before.status.value
            status = workflow.status.value
            self._hooks.emit(WorkflowChanged(id=workflow.id, name=workflow.name, status=status, previous=previous))

    def _learn(self, watched: Watched, state: State, now: float) -> None:
        """Learn from an ending how long workflows take: what the server says, within what was seen from here."""
        created_at, completed_at = state.created_at, state.workflow.completed_at
        if completed_at is None or created_at is None or not watched.born:
            return
        said = (completed_at - created_at).total_seconds() * self.policy.min_interval
        self._durations.add(min(max(said, watched.seen - watched.created), now - watched.created))


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they are gone."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
