"""Ledger: which workflows this client and its siblings made; the one place where "a workflow was made" is recorded.

Every request of the workflow resources goes through `recording`, so create, rerun and submit, of a client, its siblings
and its batches, are recorded alike, and so are the pages of the listing that any of them reads.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._request import Repeat, Request
from comfycontrol_async.models import Page, WorkflowSummary
from comfycontrol_async.resources._calls import Send

T = TypeVar("T")

# More than can wait at once; what is older than these is far down the listing.
_MOST_HELD = 20_000


@attrs.frozen(eq=False, repr=False)
class Made:
    """A workflow that this client holds.

    `number` counts what this client made, from 1, and `moment` is when, by the monotonic clock; both are None for a
    workflow that was found by its name instead.
    """

    number: int | None = None
    moment: float | None = None
    rerun: bool = False


class Ledger:
    """Remembers what was made here, what is being made, and passes on what listings show."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: OrderedDict[str, Made] = OrderedDict()
        self._count = 0
        # Names of creates that have no answer yet; None stands for reruns, whose names are not known here.
        self._sending: Counter[str | None] = Counter()
        # Called with what each listing page shows, and with each workflow that was made here.
        self.readers: list[Callable[[list[WorkflowSummary]], None]] = []

    @property
    def count(self) -> int:
        """How many workflows were made here."""
        return self._count

    def get(self, id: str) -> Made | None:
        """Return what is known of a workflow that is held, None when it is not."""
        return self._held.get(id)

    def is_sending(self, name: str) -> bool:
        """Tell whether a request without an answer may be making a workflow of this name."""
        return bool(self._sending[name] or self._sending[None])

    def adopt(self, id: str) -> None:
        """Hold a workflow that was found by its name."""
        self._hold(id, Made())

    def record(self, id: str, *, rerun: bool = False) -> None:
        """Hold a workflow that was made just now."""
        self._count += 1
        self._hold(id, Made(self._count, self._clock.monotonic(), rerun))

    def recording(self, send: Send) -> Send:
        """Return a `send` for workflow resources that records what it makes and what it lists."""

        async def recorded(request: Request[T]) -> T:
            if request.repeat is not Repeat.NEVER or request.form is None:
                value = await send(request)
                if isinstance(value, Page):
                    self._show(cast(Page[WorkflowSummary], value).items)  # workflow resources list nothing else
                return value
            name = dict(request.form.fields).get("name")
            with self._sends(name if isinstance(name, str) else None):
                made = await send(request)
            summary = cast(WorkflowSummary, made)  # what makes a workflow answers with its summary
            self.record(summary.id, rerun=name is None)
            self._show([summary])
            return made

        return recorded

    @contextmanager
    def _sends(self, name: str | None) -> Iterator[None]:
        self._sending[name] += 1
        try:
            yield
        finally:
            self._sending[name] -= 1
            if not self._sending[name]:
                del self._sending[name]

    def _show(self, summaries: list[WorkflowSummary]) -> None:
        for reader in self.readers:
            reader(summaries)

    def _hold(self, id: str, made: Made) -> None:
        self._held.setdefault(id, made)
        while len(self._held) > _MOST_HELD:
            self._held.popitem(last=False)
