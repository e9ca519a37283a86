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
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._multipart import Form
from comfycontrol_async._retry import RetryPolicy
from comfycontrol_async.errors import APIError, ResponseFormatError, SubmitOutcomeUnknownError, TransportError
from comfycontrol_async.graph import Graph, name_of
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.resources._calls import GraphSource
from comfycontrol_async.resources.workflows import NAME_LIMIT, workflow_form

log = logging.getLogger("comfycontrol_async")

# Looks at the newest workflows after a lost answer, with pauses of base_delay * 2, 4, 8, 16 before them.
_LOOKS = 4
# The server's times are whole seconds, its Date header too, and the answer that brought it was on its way.
_CLOCK_SLACK = timedelta(seconds=3)
# When no answer ever told the server's time, ours may be off by that much.
_UNKNOWN_CLOCK_SLACK = timedelta(minutes=10)
# Ids of created workflows that are remembered as held; more than any look can show.
_MOST_HELD = 1000


@attrs.frozen(kw_only=True)
class Submitter:
    """Creates workflows for one client, and remembers which ones it holds.

    `server_time` translates a moment of the monotonic clock to the server's time, None when that is not known.
    """

    workflows: WorkflowsResource
    retry: RetryPolicy
    clock: Clock
    server_time: Callable[[float], datetime | None]
    held: OrderedDict[str, None] = attrs.field(factory=OrderedDict)

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
                return self._hold(await self.workflows.post(form, name))
            except SubmitOutcomeUnknownError as error:
                log.warning("the outcome of creating %r is not known (%s): looking for it", name, error.__cause__)
                found = await self._find(name, since or self.since(started))
                if found is not None:
                    return found
                if attempt == self.retry.attempts or self.clock.monotonic() - started > self.retry.max_elapsed:
                    raise
                log.warning("%r was not created: sending it again", name)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _find(self, name: str, since: datetime) -> WorkflowSummary | None:
        """Look for the workflow of this name that was created since then, and hold it.

        None means that the server had time to show it and did not.

        Raises:
            SubmitOutcomeUnknownError: several may be it, or looking failed.
        """
        return (await self.find_all({name}, since)).get(name)

    async def find_all(self, names: Collection[str], since: datetime) -> dict[str, WorkflowSummary]:
        """Look for the workflows of these names that were created since then, and hold those found.

        A name that is not in the result was not created: the server had time to show it and did not.

        Raises:
            SubmitOutcomeUnknownError: several may be one, or looking failed.
        """
        found: dict[str, WorkflowSummary] = {}
        for look in range(1, _LOOKS + 1):
            await self.clock.sleep(self.retry.base_delay * 2.0**look)
            try:
                candidates = await self._look(set(names) - set(found), since)
            except (TransportError, APIError, ResponseFormatError) as error:
                if look == _LOOKS:
                    raise SubmitOutcomeUnknownError(next(iter(names))) from error
                continue
            for name, summaries in candidates.items():
                if len(summaries) > 1:
                    raise SubmitOutcomeUnknownError(name, [summary.id for summary in summaries])
                log.info("%r was created: it is %s", name, summaries[0].id)
                found[name] = self._hold(summaries[0])
            if len(found) == len(names):
                break
        return found

    async def _look(self, names: Collection[str], since: datetime) -> dict[str, list[WorkflowSummary]]:
        """Read the listing down to `since`, and return what has these names and is not held."""
        candidates: dict[str, list[WorkflowSummary]] = {}
        async with aclosing(aiter(self.workflows.list(per_page=100))) as newest:
            async for item in newest:
                if item.created_at < since:
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
            return known - _CLOCK_SLACK
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
