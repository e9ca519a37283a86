"""Submit: create a workflow so that it is neither lost nor doubled, although the API has no idempotency key.

When the answer of a create is lost, or is a 5xx, it may or may not have taken effect. Then the newest workflows are
listed, a few times over 30 s, for the server may show a new one late. The one with this name, created since the send,
that this client does not hold yet, is adopted. None seen: nothing was created, and it is sent again. Several: it cannot
be told which, and `SubmitOutcomeUnknownError` says so.

A name that is unique makes it decidable: `map` and a submit without a name give each workflow one of its own. It is
recognised on the whole first page, whatever the clocks say; if two of it turn up after all, because the server acted
later than that, the younger is cancelled. A name that is not unique may be used by others at the same moment, so such
a workflow is compared by its tags and parameters before it is adopted.
"""

import logging
import os
from collections.abc import Callable, Collection
from contextlib import aclosing
from datetime import datetime, timedelta

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    ComfyControlError,
    NotFoundError,
    RateLimitWaitError,
    ResponseFormatError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from comfycontrol_async.graph._names import NAME_LIMIT
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary
from comfycontrol_async.resources._checks import is_id
from comfycontrol_async.resources._forms import CREATE_PATH, make
from comfycontrol_async.runs._background import Background
from comfycontrol_async.runs._cancel import cancel_for_good
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._newest_pages import newest_pages
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._search import Search, age, earlier, is_time, same_content, tags_of, time_of

log = logging.getLogger("comfycontrol_async")

# Seconds after an outcome that is not known at which the newest workflows are listed. The last is the longest time
# that a listing is believed to lag behind; it does not depend on the retry policy, whose subject is requests.
LOOKS_AT = (1.0, 3.0, 7.0, 15.0, 30.0)
# How much earlier than its send a workflow may seem to be made: the server's times are whole seconds, its Date header
# too, the answer that brought it was on its way, and the Date may come from another machine than the times.
_CLOCK_SLACK = timedelta(seconds=8)
# Assumed clock skew when no answer ever had a Date header.
_UNKNOWN_CLOCK_SLACK = timedelta(minutes=10)
# Workflows that are compared with what was sent although they seem older.
_MOST_DOUBTS = 5
# What may be better at the next look; a refused token is not.
_MAY_PASS = (TransportError, APIError, RateLimitWaitError, ResponseFormatError)
# Not begun yet: cancelling one of these wastes no work.
WAITING = frozenset({WorkflowStatus.ACCEPTED, WorkflowStatus.UPLOADED, WorkflowStatus.QUEUED})


@attrs.define(eq=False, repr=False, kw_only=True)
class Submitter:
    """Creates workflows for one client, exactly once.

    `server_time` translates a moment of the monotonic clock to the server's time, by the Date of the last answer; None
    when no answer had one.
    """

    route: Route
    ledger: Ledger
    background: Background
    retry: RetryPolicy
    clock: Clock
    server_time: Callable[[float], datetime | None]
    # How far the times of workflows lag behind the server's Date.
    _behind: timedelta = attrs.field(default=timedelta(), init=False)

    async def submit(
        self, form: Form, name: str, *, unique: bool = False, rivals: Collection[str] | None = None
    ) -> WorkflowSummary:
        """Create the workflow of `form`.

        Args:
            form: what is sent.
            name: the name in it.
            unique: whether no other submit uses this name, for it holds random bits or the marks of a key.
            rivals: given if it has the marks of a key, which other processes may send too: the ids of workflows with
                this key that were known before and do not count.

        Raises:
            SubmitOutcomeUnknownError: it may or may not have been created.
            TransportError, APIError, RateLimitWaitError: it was not created.
        """
        sent = self.clock.monotonic()
        search = Search(names={name}, form=form, unique=unique, rivals=rivals)
        if self.server_time(sent) is not None:
            search.since = self.since(sent)
        spent = 0.0
        for attempt in range(1, self.retry.attempts + 1):
            begun = self.clock.monotonic()
            try:
                made: WorkflowSummary | None = await self._post(form, name)
            except SubmitOutcomeUnknownError as error:
                spent += self.clock.monotonic() - begun
                log.warning("the outcome of creating %r is not known (%s): looking for it", name, error.__cause__)
                made = await self._reconcile(search, name, sent, resent=attempt > 1)
                if made is None and not self._may_send_again(error, attempt, spent):
                    raise
            if made is not None:
                if attempt > 1 and unique:
                    self.background.spawn(self._cancel_doubles(made, rivals), f"doubles of {name}")
                return made
            log.warning("%r was not created: sending it again", name)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _may_send_again(self, error: SubmitOutcomeUnknownError, attempt: int, spent: float) -> bool:
        # An answer that could not be read was a success: the listing may be unreadable too.
        readable = not isinstance(error.__cause__, ResponseFormatError)
        return readable and attempt < self.retry.attempts and spent <= self.retry.max_elapsed

    async def _post(self, form: Form, name: str) -> WorkflowSummary:
        summary = await make(self.route.send, CREATE_PATH, form, name)
        told = self.server_time(self.clock.monotonic())
        if told is not None and is_time(summary.created_at):
            self._behind = max(timedelta(), told - summary.created_at)
        return summary

    async def _reconcile(self, search: Search, name: str, sent: float, *, resent: bool) -> WorkflowSummary | None:
        """Look for the workflow until the server had time to show it; None means that it did not.

        Raises:
            SubmitOutcomeUnknownError: several may be it, or looking failed.
        """
        try:
            found = await self._search(search, lambda: search.earliest(self.since(sent)))
        except SubmitOutcomeUnknownError:
            raise
        except ComfyControlError as error:
            raise SubmitOutcomeUnknownError(name) from error
        if name not in found:
            return None
        ours, *doubles = found[name]
        self.ledger.adopt(ours.id)
        if resent and not search.keyed:  # they are our own: an earlier sending took effect after all
            for double in doubles:
                self.background.spawn(self.cancel_double(double), f"double {double.id}")
        return ours

    async def find_all(self, names: Collection[str], since: datetime) -> dict[str, list[WorkflowSummary]]:
        """Look for the workflows of these unique names that were created since then, and hold those that are found.

        A name that is not in the result was not created: the server had time to show it and did not. The listing is
        read down to `since` each time, so that doubles are seen: the oldest comes first.

        Raises:
            SubmitOutcomeUnknownError: one was made, but it cannot be read.
            ComfyControlError: looking failed.
        """
        found = await self._search(Search(names=set(names), unique=True, resumed=True), lambda: since)
        for summaries in found.values():
            for summary in summaries:
                self.ledger.adopt(summary.id)
        return found

    async def _search(self, search: Search, since: Callable[[], datetime]) -> dict[str, list[WorkflowSummary]]:
        begun = self.clock.monotonic()
        found: dict[str, list[WorkflowSummary]] = {}
        for moment in LOOKS_AT:
            await self.clock.sleep(begun + moment - self.clock.monotonic())
            last = moment == LOOKS_AT[-1]
            try:
                candidates = await self._look(search, search.names - found.keys(), since)
                for name, summaries in candidates.items():
                    if ours := await self._choose(search, name, summaries, last):
                        found[name] = ours
            except AuthenticationError:
                raise
            except _MAY_PASS:
                if last:
                    raise
            if len(found) == len(search.names):
                break
        for name, summaries in found.items():
            log.info("%r was created: it is %s", name, " or ".join(summary.id for summary in summaries))
        await self._doubt(search, search.names - found.keys())
        return found

    async def _doubt(self, search: Search, missing: Collection[str]) -> None:
        """Refuse to say that nothing was made, where the last look leaves a doubt.

        Raises:
            SubmitOutcomeUnknownError: something may be it.
        """
        for name in missing:
            doubtful = [item.id for item in search.doubtful.values() if self.ledger.get(item.id) is None]
            for id in [*search.nameless, *doubtful[:_MOST_DOUBTS]]:
                if id in search.nameless or await self._is_ours(search, search.doubtful[id]):
                    raise SubmitOutcomeUnknownError(name, [id] if id else [])

    async def _look(
        self, search: Search, names: Collection[str], since: Callable[[], datetime]
    ) -> dict[str, list[WorkflowSummary]]:
        """Read the listing down to `since`, and return what has these names and is not passed over."""
        candidates: dict[str, dict[str, WorkflowSummary]] = {}
        search.doubtful.clear()
        search.nameless.clear()
        async with aclosing(newest_pages(self.route.workflows, since)) as pages:
            async for page in pages:
                for item in page.items:
                    if item.name not in names or search.passes_over(self.ledger.get(item.id)):
                        continue
                    if search.is_new(item.id, item.created_at, page.number, since()):
                        candidates.setdefault(item.name, {})[item.id] = item
                    else:
                        search.doubt(item, dated=self.server_time(0.0) is not None)
                for raw in (invalid.raw for invalid in page.invalid_items if isinstance(invalid.raw, dict)):
                    id, name, created_at = str(raw.get("id") or ""), raw.get("name"), time_of(raw.get("created_at"))
                    if search.passes_over(self.ledger.get(id)):
                        continue
                    if not search.is_new(id, created_at, page.number, since()):
                        continue
                    if isinstance(name, str) and name in names:
                        whole = await self._read_invalid(name, id)
                        candidates.setdefault(name, {})[whole.id] = whole
                    elif not isinstance(name, str):
                        search.nameless.add(id)
        return {name: sorted(items.values(), key=age) for name, items in candidates.items()}

    async def _read_invalid(self, name: str, id: str) -> WorkflowSummary:
        """Fetch a workflow whose item in the listing cannot be read: with our name, it was made all the same."""
        try:
            return await self.route.workflows.get(id)
        except (ResponseFormatError, NotFoundError, ValueError) as error:  # ValueError: its id is none
            raise SubmitOutcomeUnknownError(name, [id] if id else []) from error

    async def _choose(
        self, search: Search, name: str, candidates: list[WorkflowSummary], last: bool
    ) -> list[WorkflowSummary]:
        """Return those that are ours, the oldest first; more than one only for a unique name.

        Raises:
            SubmitOutcomeUnknownError: several may be it, or one may be that of another submit that has no answer yet.
        """
        if wrong := [item.id for item in candidates if not is_id(item.id)]:  # made, but it cannot be followed
            raise SubmitOutcomeUnknownError(name, wrong)
        if search.keyed:  # the key's own rules say which one counts: the oldest that was not cancelled
            return [item for item in candidates if item.status != WorkflowStatus.CANCELLED]
        if search.unique:
            return candidates
        alike = [item for item in candidates if await self._is_ours(search, item)]
        # Another submit of this client, which looks too, may have taken one while this one was compared.
        alike = [item for item in alike if self.ledger.get(item.id) is None]
        undecided = bool(alike) and self.ledger.is_sending(name)
        if len(alike) > 1 or (undecided and last):
            raise SubmitOutcomeUnknownError(name, [item.id for item in alike])
        return [] if undecided else alike

    async def _is_ours(self, search: Search, item: WorkflowSummary) -> bool:
        """Tell whether a workflow of our name is not a stranger's: by its tags, then by its content, for one GET."""
        if item.id not in search.verdicts:
            ours = search.form is None or sorted(item.tags) == tags_of(search.form)
            if ours and search.form is not None:
                try:
                    ours = same_content(await self.route.workflows.get(item.id), search.form)
                except NotFoundError:
                    ours = False  # it is gone again
            if not ours:
                log.info("%s has the name %r too, but it is another one's", item.id, item.name)
            search.verdicts[item.id] = ours
        return search.verdicts[item.id]

    async def _cancel_doubles(self, made: WorkflowSummary, rivals: Collection[str] | None) -> None:
        """After a second sending, look whether the first took effect after all, for as long as a listing may lag.

        With a key (`rivals`) an older one may be another caller's, whose it stays.
        """
        begun = self.clock.monotonic()
        for moment in LOOKS_AT:
            await self.clock.sleep(begun + moment - self.clock.monotonic())
            try:
                page = await self.route.workflows.list(per_page=100).page(1)
            except _MAY_PASS as error:
                log.info("looking for a double of %r failed: %s", made.name, error)
                continue
            for item in page.items:
                if item.name != made.name or item.id == made.id or item.id in (rivals or ()):
                    continue
                if rivals is None or age(item) > age(made):
                    return await self.cancel_double(item)
        return None

    async def cancel_double(self, double: WorkflowSummary) -> None:
        """Cancel a workflow that was made too much, if it has not begun yet; it is logged either way."""
        self.ledger.adopt(double.id)
        if double.status not in WAITING:
            log.warning("%r was created twice: %s is %s and stays", double.name, double.id, double.status)
            return
        log.warning("%r was created twice: cancelling %s", double.name, double.id)
        await cancel_for_good(self.route.workflows, double.id, self.clock)

    def since(self, moment: float | None) -> datetime:
        """Return a time of the server's clock that lies surely before `moment` (monotonic; None for now)."""
        now = self.clock.monotonic()
        moment = now if moment is None else moment
        known = self.server_time(moment)
        if known is not None:
            return earlier(known, self._behind + _CLOCK_SLACK)
        return self.clock.utcnow() - timedelta(seconds=now - moment) - _UNKNOWN_CLOCK_SLACK


def unique_name(base: str) -> str:
    """Return a name that no other workflow has: the base, cut to fit, and 32 random bits."""
    suffix = f"-{os.urandom(4).hex()}"
    return base[: NAME_LIMIT - len(suffix)] + suffix
