"""Core: what a client and its siblings, made by `with_options`, share; complete when it is made."""

import random
from collections.abc import Callable

import attrs

from comfycontrol_async._http._config import Timeouts, WatchPolicy, check_limiter, check_wait, read_timeouts
from comfycontrol_async._http._hooks import Hooks
from comfycontrol_async._http._pipeline import Pipeline
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._storage import Storage
from comfycontrol_async._http._transport import Transport
from comfycontrol_async._settings import check_kind
from comfycontrol_async.batch._leaving import Leaving
from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.limits._default import default_limiter
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._background import Background
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._key_index import KeyIndex
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._run import RunTools
from comfycontrol_async.runs._submit import Submitter
from comfycontrol_async.runs._watch import Watcher


class Unset:
    """The type of `UNSET`: the argument was not given, where None has a meaning of its own."""


UNSET = Unset()


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Core:
    """Sessions, limiter, watcher, and what was made so far, of a client and all its siblings."""

    sessions: Sessions
    storage: Storage
    limiter: Callable[[], Limiter]
    ledger: Ledger
    watcher: Watcher
    keys: KeyIndex
    background: Background
    hooks: Hooks
    leaving: Leaving = attrs.field(factory=Leaving)

    @classmethod
    def make(cls, pipeline: Pipeline, storage: Storage, policy: WatchPolicy) -> "Core":
        """Make what the client of this pipeline shares with its siblings."""
        ledger = Ledger(pipeline.clock)
        # Background polls use the BULK lane and ignore `max_rate_limit_wait`: their cost is ours to choose.
        bulk = route_of(attrs.evolve(pipeline, priority=Priority.BULK, max_wait=None), ledger)
        return cls(
            sessions=pipeline.transport.sessions,
            storage=storage,
            limiter=pipeline.limiter,
            ledger=ledger,
            watcher=Watcher(bulk, policy, pipeline.limiter, ledger, pipeline.clock, pipeline.hooks),
            keys=KeyIndex(ledger, pipeline.transport.server_time, pipeline.clock),
            background=Background(),
            hooks=pipeline.hooks,
        )

    async def close(self) -> None:
        """End what runs beside the calls, then close the sessions."""
        await self.leaving.settle()
        await self.watcher.close()
        await self.keys.close()
        await self.background.close()
        await self.hooks.aclose()
        await self.sessions.close()


def route_of(pipeline: Pipeline, ledger: Ledger) -> Route:
    """Return the way to the workflow endpoints through a pipeline; what it makes and lists is recorded."""
    send = ledger.recording(pipeline.send)
    return Route(send, WorkflowsResource(send, pipeline.open), pipeline.open, pipeline.priority)


def submitter_of(core: Core, pipeline: Pipeline, route: Route) -> Submitter:
    """Return what creates workflows for one client or sibling."""
    return Submitter(
        route=route,
        ledger=core.ledger,
        background=core.background,
        retry=pipeline.retry,
        clock=pipeline.clock,
        server_time=pipeline.transport.server_time,
    )


def tools_of(core: Core, pipeline: Pipeline, route: Route) -> RunTools:
    """Return what the runs of one client or sibling need."""
    downloader = Downloader(
        storage=core.storage,
        timeouts=pipeline.timeouts,
        retry=pipeline.retry,
        clock=pipeline.clock,
        chance=pipeline.chance,
    )
    return RunTools(
        route=route,
        watcher=core.watcher,
        ledger=core.ledger,
        downloader=downloader,
        clock=pipeline.clock,
    )


def make_pipeline(
    sessions: Sessions,
    token: str,
    user_agent: str,
    limiter: Limiter | None,
    retry: RetryPolicy | None,
    timeouts: Timeouts | float | None,
    max_wait: float | None,
) -> Pipeline:
    """Return the way of a client's requests.

    Raises:
        ConfigurationError: an option has a wrong type, or is out of its range.
    """
    check_limiter(limiter)
    return Pipeline(
        transport=Transport(sessions, token, user_agent=user_agent),
        limiter=limiter_source(limiter, sessions),
        retry=check_kind("retry", RetryPolicy() if retry is None else retry, RetryPolicy, ConfigurationError),
        timeouts=read_timeouts(timeouts),
        chance=random.random,
        max_wait=check_wait(max_wait),
    )


def limiter_source(given: Limiter | None, sessions: Sessions) -> Callable[[], Limiter]:
    """Return a function that gives the client's limiter: the given one, or the default of its server and proxy."""
    if given is not None:
        return lambda: given
    origin = str(sessions.base_url.origin())
    known: Limiter | None = None

    def default() -> Limiter:
        nonlocal known
        if known is None or not sessions.binding.is_running():
            known = default_limiter(origin, sessions.proxy or sessions.proxy_of(sessions.base_url))
        return known

    return default
