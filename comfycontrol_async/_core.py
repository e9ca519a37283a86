"""Core: what a client and its siblings, made by `with_options`, share; complete when it is made."""

from collections import OrderedDict
from collections.abc import Callable

import attrs

from comfycontrol_async._http._config import WatchPolicy
from comfycontrol_async._http._pipeline import Pipeline
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._storage import Storage
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.limits._shared import shared_limiter
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._watch import Watcher


class Unset:
    """The type of `UNSET`: the argument was not given, where None has a meaning of its own."""


UNSET = Unset()


@attrs.frozen(eq=False, kw_only=True)
class Core:
    """Sessions, limiter, watcher, and the ids of workflows that were made, of a client and all its siblings."""

    sessions: Sessions
    storage: Storage
    limiter: Callable[[], Limiter]
    watcher: Watcher
    held: OrderedDict[str, None] = attrs.field(factory=OrderedDict)

    @classmethod
    def make(cls, pipeline: Pipeline, storage: Storage, policy: WatchPolicy) -> "Core":
        """Make what the client of this pipeline shares with its siblings."""
        # Background polls use the BULK lane and ignore `max_rate_limit_wait`: their cost is ours to choose.
        bulk = attrs.evolve(pipeline, priority=Priority.BULK, max_wait=None)
        watcher = Watcher(
            WorkflowsResource(bulk.send, bulk.open),
            WorkflowsResource(pipeline.send, pipeline.open),
            policy,
            pipeline.limiter,
        )
        return cls(sessions=pipeline.transport.sessions, storage=storage, limiter=pipeline.limiter, watcher=watcher)


def limiter_source(given: Limiter | None, sessions: Sessions) -> Callable[[], Limiter]:
    """Return a function that gives the client's limiter: the given one, or the one shared by its origin and loop."""
    if given is not None:
        return lambda: given
    origin = str(sessions.base_url.origin())
    known: Limiter | None = None

    def default() -> Limiter:
        nonlocal known
        if known is None or not sessions.binding.is_running():
            known = shared_limiter(origin)
        return known

    return default
