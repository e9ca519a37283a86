"""Submit: create a workflow so that it is neither lost nor doubled, although the API has no idempotency key.

When the answer of a create is lost, or is a 5xx, it may or may not have taken effect. Then the newest workflows are
listed, a few times over some seconds, for the server may show a new one late. The one with this name, created since the
send, that this client does not hold yet, is adopted. None seen: nothing was created, and it is sent again. Several:
nobody can tell, and `SubmitOutcomeUnknownError` says so.

A name that is unique makes it decidable: `map` and a submit without a name give each workflow one of its own.
"""

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async.errors import (
    ComfyControlError,
    RateLimitedError,
    RateLimitWaitError,
    ResponseFormatError,
    ServerError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._names import NAME_LIMIT, name_of
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.resources._calls import GraphSource
from comfycontrol_async.resources.workflows import workflow_form

log = logging.getLogger("comfycontrol_async")

# Looks at the newest workflows after a lost answer, with pauses of base_delay * 2, 4, 8, 16 before them.
_LOOKS = 4
# The server's times are whole seconds, its Date header too, and the answer that brought it was on its way.
_CLOCK_SLACK = timedelta(seconds=3)
# When no answer ever told the server's time, ours may be off by that much.
_UNKNOWN_CLOCK_SLACK = timedelta(minutes=10)
# What may be better at the next look.
_MAY_PASS = (TransportError, ServerError, RateLimitedError, RateLimitWaitError, ResponseFormatError)
# Ids of created workflows that are remembered as held; more than any look can show.
_MOST_HELD = 1000


@attrs.define(eq=False, kw_only=True)
class Submitter:
    """Creates workflows for one client, and remembers which ones it holds.

    `server_time` translates a moment of the monotonic clock to the server's time, None when that is not known.
    """

    workflows: WorkflowsResource
    retry: RetryPolicy
    clock: Clock
    server_time: Callable[[float], datetime | None]
    held: OrderedDict[str, None] = attrs.field(factory=OrderedDict)
    # Names that are being sent now, and how far the times of workflows lag behind the server's Date.
    _posting: Counter[str] = attrs.field(factory=Counter, init=False)
    _behind: timedelta = attrs.field(default=timedelta(), init=False)

    async def submit(self, form: Form, name: str) -> WorkflowSummary:
        """Create the workflow of `form`, exactly once.

        Raises:
            SubmitOutcomeUnknownError: it may or may not have been created.
            TransportError, APIError, RateLimitWaitError: it was not created.
        """
        started = self.clock.monotonic()
        since = None if self.server_time(started) is None else self.since(started)
        for attempt in range(1, self.retry.attempts + 1):
            try:
                return await self._post(form, name)
            except SubmitOutcomeUnknownError as error:
                log.warning("the outcome of creating %r is not known (%s): looking for it", name, error.__cause__)
                found = await self._find(name, since or self.since(started))
                if found is not None:
                    return found
                if attempt == self.retry.attempts or self.clock.monotonic() - started > self.retry.max_elapsed:
                    raise
                if isinstance(error.__cause__, ResponseFormatError):
                    raise  # it was a success that makes no sense to us: so may be the listing
                log.warning("%r was not created: sending it again", name)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _post(self, form: Form, name: str) -> WorkflowSummary:
        self._posting[name] += 1
        try:
            summary = await self.workflows.post(form, name)
        finally:
            self._posting[name] -= 1
            if not self._posting[name]:
                del self._posting[name]
        told = self.server_time(self.clock.monotonic())
        self._behind = timedelta() if told is None else max(timedelta(), told - summary.created_at)
        return self._hold(summary)

    async def _find(self, name: str, since: datetime) -> WorkflowSummary | None:
        """Look for the workflow of this name that was created since then, and hold it.

        None means that the server had time to show it and did not.

        Raises:
            SubmitOutcomeUnknownError: several may be it, or looking failed.
        """
        try:
            found = (await self.find_all({name}, since)).get(name, [])
        except SubmitOutcomeUnknownError:
            raise
        except ComfyControlError as error:
            raise SubmitOutcomeUnknownError(name) from error
        if len(found) > 1:
            raise SubmitOutcomeUnknownError(name, [summary.id for summary in found])
        return found[0] if found else None

    async def find_all(
        self, names: Collection[str], since: datetime, *, unique: bool = False
    ) -> dict[str, list[WorkflowSummary]]:
        """Look for the workflows of these names that were created since then, and hold those that are the only one.

        A name that is not in the result was not created: the server had time to show it and did not.

        Args:
            names: what they are called.
            since: by the server's clock.
            unique: whether there is one of each name at the most, so that looking ends when all are seen.

        Raises:
            SubmitOutcomeUnknownError: one may be that of another submit, which is still on its way.
            ComfyControlError: looking failed.
        """
        found: dict[str, list[WorkflowSummary]] = {}
        for look in range(1, _LOOKS + 1):
            await self.clock.sleep(self.retry.base_delay * 2.0**look)
            try:
                candidates = await self._look(set(names) - set(found), since, unique)
            except _MAY_PASS:
                if look == _LOOKS:
                    raise
                continue
            for name, summaries in candidates.items():
                fresh = [summary for summary in summaries if summary.id not in self.held]
                if fresh and not self._posting[name]:
                    found[name] = fresh if len(fresh) > 1 else [self._hold(fresh[0])]
                elif fresh and look == _LOOKS:
                    raise SubmitOutcomeUnknownError(name, [summary.id for summary in fresh])
            if len(found) == len(names):
                break
        for name, summaries in found.items():
            log.info("%r was created: it is %s", name, " or ".join(summary.id for summary in summaries))
        return found

    async def _look(self, names: set[str], since: datetime, unique: bool) -> dict[str, list[WorkflowSummary]]:
        """Read the listing down to `since`, and return what has these names."""
        candidates: dict[str, list[WorkflowSummary]] = {}
        async with aclosing(aiter(self.workflows.list(per_page=100))) as newest:
            async for item in newest:
                if item.created_at < since or (unique and len(candidates) == len(names)):
                    break
                if item.name in names and item.id not in self.held:
                    candidates.setdefault(item.name, []).append(item)
        return candidates

    def since(self, moment: float | None) -> datetime:
        """Return a time of the server's clock that lies surely before `moment` (monotonic; None for now)."""
        now = self.clock.monotonic()
        moment = now if moment is None else moment
        known = self.server_time(moment)
        if known is not None:
            return known - self._behind - _CLOCK_SLACK
        return self.clock.utcnow() - timedelta(seconds=now - moment) - _UNKNOWN_CLOCK_SLACK

    def _hold(self, summary: WorkflowSummary) -> WorkflowSummary:
        self.held[summary.id] = None
        while len(self.held) > _MOST_HELD:
            self.held.popitem(last=False)
        return summary


def unique_name(base: str) -> str:
    """Return a name that no other workflow has: the base, cut to fit, and 32 random bits."""
    suffix = f"-{secrets.token_hex(4)}"
    return base[: NAME_LIMIT - len(suffix)] + suffix


async def prepare_submit(
    graph: GraphSource, name: str | None, params: Mapping[str, Any] | None, tags: Iterable[str]
) -> tuple[Graph, Form, str]:
    """Check everything that costs no request, and return the graph, the form to send and the name in it.

    Raises:
        GraphError, InvalidArgumentError: it cannot be sent.
    """
    chosen = unique_name(name_of(graph)) if name is None else name

    def work() -> tuple[Graph, Form, str]:
        known = Graph.coerce(graph)
        return known, workflow_form(known, chosen, params, tags), chosen

    return await asyncio.to_thread(work)
