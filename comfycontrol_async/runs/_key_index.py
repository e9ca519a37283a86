"""KeyIndex: the marks of keys that a client has read in the listing, and the looks that its submits wait for.

first look of a process     one request per 100 workflows made within `key_max_age`
later looks                 one each 2 s on average (two at once after a pause), for all that asked before it began,
                            and for all that see what they made in it; read down to 60 s below the newest workflow
                            that the look before knew, so that nothing is missed in between
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from contextlib import aclosing
from copy import copy
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._loop import LoopBinding
from comfycontrol_async.errors import (
    ClientClosedError,
    ComfyControlError,
    NotFoundError,
)
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._marks import Marks, read_marks
from comfycontrol_async.runs._newest_pages import newest_pages
from comfycontrol_async.runs._route import Route, highest
from comfycontrol_async.runs._search import earlier, is_time, read_leniently

log = logging.getLogger("comfycontrol_async")

# Seconds between the beginnings of two looks on average, and by how much each reads into what the one before has seen.
_PAUSE = 2.0
_OVERLAP = timedelta(seconds=60)
# Seconds that a confirming look waits for creates that are still on their way, so that one look confirms them all.
_LONGEST_GATHERING = 5.0
# Seconds after which a confirming look gives up to wait for a listing that lags.
_LONGEST_LAG = 30.0
# The server's times are whole seconds; how far its clocks may differ from each other.
_SECOND = timedelta(seconds=1)
_SLACK = timedelta(seconds=10)
# Where no answer has a Date this machine's clock counts, and may be hours off: then rather an older one is adopted.
_UNKNOWN_CLOCK_SLACK = timedelta(hours=26)
# Marked workflows that are remembered.
_MOST = 50_000
_BEGINNING = datetime.min.replace(tzinfo=UTC)


@attrs.frozen(eq=False, repr=False)
class _Seen:
    """A marked workflow as it was shown last, and when, by the monotonic clock.

    `place` grows from one shown to the next: as listings begin with the newest, a larger one is older.
    """

    summary: WorkflowSummary
    marks: Marks
    at: float
    place: int

    @property
    def age(self) -> tuple[datetime, int]:
        """What the oldest is found by."""
        return self.summary.created_at, -self.place


@attrs.frozen(eq=False, repr=False)
class _Asker:
    """A submit that waits for a look. Without `max_age` it waits to see what it made; `done` says whether it did."""

    done: asyncio.Future[bool]
    route: Route
    max_age: float | None
    since: float


class KeyIndex:
    """The marks that this client and its siblings have read, and the looks that they share."""

    def __init__(
        self,
        ledger: Ledger,
        server_time: Callable[[float], datetime | None],
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._server_time, self.clock = server_time, clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._by_key: dict[str, set[str]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._binding = LoopBinding("client")
        self._askers: list[_Asker] = []
        self._looking: asyncio.Task[None] | None = None
        # From when on the next look may begin; from a pause later on, another one right after it.
        self._next_look = float("-inf")
        # Those that wait to see a workflow that they made.
        self._unconfirmed: dict[str, asyncio.Future[bool]] = {}
        self._places = 0
        # The listing is known without a gap from `_from` to `_newest`.
        self._from: datetime | None = None
        self._newest: datetime | None = None
        # Keyed creates that have no answer yet.
        self.sending = 0
        ledger.readers.append(self._read)

    def lock(self, mark: str) -> asyncio.Lock:
        """Return the lock of one key: its submits of this process go one after another.

        Raises:
            ClientLoopError: the client belongs to another event loop that is still alive.
        """
        if self._binding.bind():  # callers that waited on a loop that is closed are gone with it
            self._looking, self._askers, self._unconfirmed, self.sending = None, [], {}, 0
            self._locks = WeakValueDictionary()
        lock = self._locks.get(mark)
        if lock is None:
            lock = self._locks[mark] = asyncio.Lock()
        return lock

    def ids(self, mark: str) -> Collection[str]:
        """Return the ids of all workflows of a key that were seen, whether they count or not."""
        return tuple(self._by_key.get(mark, ()))

    def find(self, mark: str, max_age: float | None) -> list[_Seen]:
        """Return the workflows of this key that count and are not older than `max_age`, the oldest first.

        The service's Date and this machine's clock may differ by hours, and then one is wrong: by either will do.
        """
        since = _BEGINNING
        if max_age is not None:
            since = min(self._ago(max_age, _SECOND), _ago(self.clock.utcnow(), max_age, _SECOND))
        seen = [self._seen[id] for id in self.ids(mark)]
        counting = [one for one in seen if self._counts(one.summary) and _is_since(one.summary.created_at, since)]
        return sorted(counting, key=lambda one: one.age)

    def _counts(self, summary: WorkflowSummary) -> bool:
        made = self._ledger.get(summary.id)
        return summary.status != WorkflowStatus.CANCELLED and not (made is not None and made.rerun)

    async def confirm(self, route: Route, made: WorkflowSummary) -> None:
        """Look until the listing shows a workflow that was made here: then it shows all that were made before, too.

        Raises:
            TransportError, APIError, ...: a look failed.
        """
        until = self.clock.monotonic() + _LONGEST_LAG
        while self.clock.monotonic() < until:
            if await self.look(route, None, made.id) or made.id not in self._seen:
                return
        log.warning("the listing has not shown %s for %.0f s: another of its key may run", made.id, _LONGEST_LAG)

    def last(self, summary: WorkflowSummary) -> WorkflowSummary:
        """Return what a listing showed last of a workflow."""
        seen = self._seen.get(summary.id)
        return summary if seen is None else seen.summary

    def _now(self) -> datetime:
        """Return the service's time, by the last answer that told it, else by this machine's clock."""
        return self._server_time(self.clock.monotonic()) or self.clock.utcnow()

    def _ago(self, seconds: float, slack: timedelta) -> datetime:
        if self._server_time(self.clock.monotonic()) is None:
            slack = _UNKNOWN_CLOCK_SLACK
        return _ago(self._now(), seconds, slack)

    async def check(self, route: Route, found: _Seen, since: float) -> WorkflowSummary | None:
        """Return a workflow that was found, if it still counts; one GET, unless what is known is final or fresh."""
        summary = found.summary
        if summary.status.terminal or found.at >= since:
            return summary
        try:
            summary = await route.workflows.get(summary.id)
        except NotFoundError:
            self._forget(summary.id)
            return None
        self._read([summary])
        return summary if self._counts(summary) else None

    async def look(self, route: Route, max_age: float | None, id: str | None = None) -> bool:
        """Wait for a look at the listing that begins after this call; None: at what was made a moment ago.

        It goes in the highest lane of those who wait for it.

        A page that shows the workflow `id` is as good, whenever it was asked for. Return whether there was one.

        Raises:
            TransportError, APIError, ...: the look failed.
            ClientLoopError: the client belongs to another event loop that is still alive.
        """
        loop = asyncio.get_running_loop()
        asker = _Asker(loop.create_future(), route, max_age, self.clock.monotonic())
        self._askers.append(asker)
        if id is not None:
            self._unconfirmed[id] = asker.done
        if self._looking is None or self._looking.done():
            self._looking = loop.create_task(self._look_on(), name="comfycontrol keys")
        try:
            return await asker.done
        finally:
            if id is not None:
                self._unconfirmed.pop(id, None)

    async def close(self) -> None:
        """Stop looking; submits that wait for a look get a ClientClosedError."""
        task, self._looking = self._looking, None
        if task is None or not self._binding.is_running():
            return
        _fail(self._askers, ClientClosedError("the client was closed while a keyed submit looked for its workflow"))
        task.cancel()
        await asyncio.wait([task])

    async def _look_on(self) -> None:
        # A page of another request may have answered them meanwhile.
        while waiting := [asker for asker in self._askers if not asker.done.done()]:
            self._askers = waiting
            now = self.clock.monotonic()
            if (pause := self._pause(now)) > 0:
                await self.clock.sleep(pause)
                continue
            asking, self._askers = self._askers, []
            self._next_look = max(self._next_look + _PAUSE, now)
            try:
                await self._read_back(asking)
            except Exception as error:  # whatever it is, it is theirs who wait for this look
                _fail(asking, error)
            except BaseException:
                _fail(asking, ClientClosedError("the client was closed while a keyed submit looked for its workflow"))
                raise
            for asker in asking:
                if not asker.done.done():
                    asker.done.set_result(False)

    def _pause(self, now: float) -> float:
        """Return the seconds until the next look may begin, or until it is asked again whether it may."""
        confirming = all(asker.max_age is None for asker in self._askers)
        pause = self._next_look - now
        if all(asker.max_age is not None for asker in self._askers):
            pause += _PAUSE  # what is created after it shall be confirmed at once
        if pause <= 0 and confirming and self.sending > 0 and now - self._askers[0].since < _LONGEST_GATHERING:
            return _PAUSE / 4
        return pause

    async def _read_back(self, asking: list[_Asker]) -> None:
        """Read the listing back as far as any of these want, or as the index has a gap."""
        newest = self._newest
        ages = [asker.max_age for asker in asking if asker.max_age is not None]
        workflows = highest(asker.route for asker in asking).workflows

        def until() -> datetime:
            wanted = self._ago(max(ages), _SLACK) if ages else None
            if newest is None or self._from is None or (wanted is not None and wanted < self._from):
                return earlier(self._now(), _OVERLAP) if wanted is None else wanted
            return earlier(newest, _OVERLAP)

        latest: datetime | None = None
        async with aclosing(newest_pages(workflows, until)) as pages:
            async for page in pages:
                # One that cannot be read was made all the same.
                unreadable = (read_leniently(item.raw, self._now()) for item in page.invalid_items)
                self._read(filter(None, unreadable))
                for item in page.items:
                    latest = item.created_at if latest is None else max(latest, item.created_at)
        reached = until()
        gap = newest is None or self._from is None or reached < self._from
        self._from = reached if gap else self._from
        self._newest = max(filter(None, (latest, newest)), default=self._now())

    # What listings and our own creates show

    def _read(self, summaries: Iterable[WorkflowSummary]) -> None:
        now = self.clock.monotonic()
        for summary in summaries:
            marks = read_marks(summary.name)
            if marks is None:
                continue
            self._places += 1
            self._seen[summary.id] = _Seen(summary, marks, now, self._places)
            self._seen.move_to_end(summary.id)
            self._by_key.setdefault(marks.key, set()).add(summary.id)
            # Told of by a page: its own create was read before anyone waited for that.
            if (waiting := self._unconfirmed.get(summary.id)) is not None and not waiting.done():
                waiting.set_result(True)
        while len(self._seen) > _MOST:
            self._forget(next(iter(self._seen)))

    def _forget(self, id: str) -> None:
        seen = self._seen.pop(id)
        ids = self._by_key[seen.marks.key]
        ids.discard(id)
        if not ids:
            del self._by_key[seen.marks.key]


def _ago(now: datetime, seconds: float, slack: timedelta) -> datetime:
    try:
        return earlier(now, timedelta(seconds=seconds) + slack)
    except OverflowError:  # more seconds than a timedelta holds
        return _BEGINNING


def _is_since(created_at: datetime, since: datetime) -> bool:
    return not is_time(created_at) or created_at >= since


def _fail(askers: list[_Asker], error: Exception) -> None:
    for asker in askers:
        if not asker.done.done():
            # Each raise adds its traceback and notes: one error for each.
            asker.done.set_exception(copy(error) if isinstance(error, ComfyControlError) else error)
