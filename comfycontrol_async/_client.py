"""ComfyControl: wires the parts and exposes resources and verbs."""

import asyncio
import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import aiohttp
import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._core import UNSET, Core, Unset, make_pipeline, route_of, submitter_of, tools_of
from comfycontrol_async._http._config import (
    Timeouts,
    WatchPolicy,
    check_wait,
    name_user_agent,
    read_base_url,
    read_timeouts,
    read_token,
)
from comfycontrol_async._http._hooks import E
from comfycontrol_async._http._logging import configure as configure_logging
from comfycontrol_async._http._pipeline import Pipeline
from comfycontrol_async._http._proxies import check_proxy
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._storage import Storage
from comfycontrol_async._settings import check_kind, check_seconds
from comfycontrol_async.batch import BatchPlan
from comfycontrol_async.batch._plan import plan_batch
from comfycontrol_async.batch._row_work import BatchTools
from comfycontrol_async.batch._verb import MapVerb
from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError, WaitTimeoutError
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.models import WorkflowStatus
from comfycontrol_async.resources import (
    ManagedRunnersResource,
    RunnersResource,
    TemplatesResource,
    UserResource,
    WorkflowsResource,
)
from comfycontrol_async.resources._calls import GraphSource, raw_request
from comfycontrol_async.resources._checks import check_id
from comfycontrol_async.runs._cancel import cancel_for_good
from comfycontrol_async.runs._draft import prepare_submit
from comfycontrol_async.runs._keys import submit_once
from comfycontrol_async.runs._run import OnUpdate, RunTools, WorkflowRun, check_timeout, follow_to_end, make_run
from comfycontrol_async.runs._submit import Submitter


class ComfyControl(MapVerb):
    """A client of ComfyControl: every request goes through one rate limiter and is repeated where that is safe.

    Args:
        token: `cfc_...`; default: the environment variable COMFYCONTROL_API_TOKEN.
        base_url: default: COMFYCONTROL_BASE_URL, else https://api.comfycontrol.app.
        session: an aiohttp session to use as it is for API calls; it is never closed or changed. Downloads from the
            storage host always go through a session of our own, which knows no credential.
        limiter: default: one budget for all programs of this user and machine that reach the same API through the same
            proxy, kept in a file in the user's cache directory; COMFYCONTROL_LIMITER (`local`, `file[:path]` or
            `redis://...`, each with `?limit=40&period=10`) chooses otherwise. The server counts by address: a client
            whose requests leave by another one (a session with a `local_addr` or a connector of its own) needs a
            limiter of its own, such as `FileLimiter(path)` with a path for each address.
        retry, watch: see the classes.
        timeouts: how long one attempt may take; a number is the total, in seconds.
        max_rate_limit_wait: seconds; a longer wait for the rate limit raises RateLimitWaitError before anything is
            sent. None waits as long as it takes.
        user_agent: words of your own in front of ours.
        proxy: default: HTTPS_PROXY and NO_PROXY of the environment, read once when the session opens.
        trace_configs: for the session that is opened here.

    It can be made with no event loop running, opens its session on first use, and is closed by `async with` or
    `aclose`. When its event loop has been closed it binds to the next one.

    Raises:
        ConfigurationError: there is no token, or an option is invalid.
    """

    def __init__(
        self,
        token: str | None = None,
        *,
        base_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        limiter: Limiter | None = None,
        retry: RetryPolicy | None = None,
        timeouts: Timeouts | float | None = None,
        watch: WatchPolicy | None = None,
        max_rate_limit_wait: float | None = None,
        user_agent: str | None = None,
        proxy: str | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        configure_logging(os.environ)
        agent = name_user_agent(user_agent)
        found = read_token(token, os.environ)
        address = read_base_url(base_url, os.environ)
        sessions = Sessions(address, session=session, proxy=check_proxy(proxy), trace_configs=trace_configs)
        pipeline = make_pipeline(sessions, found, agent, limiter, retry, timeouts, max_rate_limit_wait)
        storage = Storage(sessions, user_agent=agent)
        policy = check_kind("watch", WatchPolicy() if watch is None else watch, WatchPolicy, ConfigurationError)
        self._assemble(Core.make(pipeline, storage, policy), pipeline)

    def _assemble(self, core: Core, pipeline: Pipeline) -> None:
        """Make the resources and verbs that send through `pipeline`."""
        send = pipeline.send
        route = route_of(pipeline, core.ledger)
        self._core = core
        self._pipeline = pipeline
        self.user: UserResource = UserResource(send)
        self.runners: RunnersResource = RunnersResource(send)
        self.managed_runners: ManagedRunnersResource = ManagedRunnersResource(send)
        self.workflows: WorkflowsResource = route.workflows
        self.templates: TemplatesResource = TemplatesResource(send)
        self._submitter: Submitter = submitter_of(core, pipeline, route)
        self._tools: RunTools = tools_of(core, pipeline, route)

    # The client itself

    @property
    def base_url(self) -> str:
        """The API's address, without a trailing slash."""
        return str(self._core.sessions.base_url)

    @property
    def limiter(self) -> Limiter:
        """The limiter that every request goes through."""
        return self._core.limiter()

    def with_options(
        self,
        *,
        timeouts: Timeouts | float | None = None,
        retry: RetryPolicy | None = None,
        priority: Priority | None = None,
        max_rate_limit_wait: float | Unset | None = UNSET,
    ) -> Self:
        """Return a sibling with other options, which shares session, limiter and watcher; what is left out stays.

        `comfy.with_options(priority=Priority.INTERACTIVE)` sends in a lane before everything that waits in others.

        Raises:
            ConfigurationError: an option is invalid.
        """
        changes: dict[str, Any] = {}
        if timeouts is not None:
            changes["timeouts"] = read_timeouts(timeouts)
        if retry is not None:
            changes["retry"] = check_kind("retry", retry, RetryPolicy, ConfigurationError)
        if priority is not None:
            if priority not in Priority._value2member_map_:
                raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
            changes["priority"] = Priority(priority)
        if not isinstance(max_rate_limit_wait, Unset):
            changes["max_wait"] = check_wait(max_rate_limit_wait)
        # A copy keeps what a subclass has set in a constructor of its own, whose arguments are not known here.
        sibling = copy.copy(self)
        sibling._assemble(self._core, attrs.evolve(self._pipeline, **changes))
        return sibling

    def on(self, event_class: type[E], callback: Callable[[E], object]) -> Callable[[], None]:
        """Call `callback` with every event of a class of `comfycontrol_async.events`; return a function that ends it.

        Raises:
            InvalidArgumentError: it is no event class, or the callback cannot be called.
        """
        return self._pipeline.hooks.on(event_class, callback)

    @property
    def drift(self) -> str:
        """What the service sent that this version does not know, counted: a short text for an issue, "" for nothing."""
        return str(self._pipeline.drift)

    async def aclose(self) -> None:
        """Close the session that was opened here, for this client and its siblings; any number of times."""
        await self._core.close()

    async def __aenter__(self) -> Self:
        self._core.sessions.bind()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<ComfyControl {self.base_url}{' closed' if self._core.sessions.closed else ''}>"

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int | float | bool] | None = None,
        json: Any = None,
        raw: bool = False,
    ) -> Any:
        """Call an endpoint that this package does not know: limited, and repeated where that is safe, as everything.

        Args:
            method: GET, POST, PUT, DELETE, ...; a POST or PATCH is never repeated when it may have taken effect.
            path: "/v1/..." on the API's own origin.
            params: the query.
            json: the body.
            raw: return a `RawResponse` (status, headers, request id, body) in the place of the JSON.

        Returns:
            The parsed JSON, None for an empty body.

        Raises:
            InvalidArgumentError: the path is no path, or the body no JSON.
            TransportError, APIError, ResponseFormatError, RateLimitWaitError: as every call.
        """
        return await self._pipeline.send(raw_request(method, path, params, json, raw))

    # Verbs

    async def submit(
        self,
        graph: GraphSource,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        key: str | None = None,
        key_max_age: float = 3600.0,
    ) -> WorkflowRun:
        """Create a workflow, let it run, and return its handle. One request, unless its answer is lost.

        A lost answer is looked up for 30 s, so that the workflow is neither lost nor doubled; the more `name` is its
        own, the surer (API documentation: there is no idempotency key).

        Args:
            graph: a `Graph`, a `Template`, a mapping, or a path to a JSON file or to a PNG made by ComfyUI.
            name: 1 to 200 characters; default: the file's stem, or "workflow", with something unique behind it.
            params: plain parameter names (no `$` or `#`) mapped to values: text or numbers, a choice, or a `File`,
                `Path` or bytes. A `$text` default and the first `$choice` option are filled in when left out.
            tags: it goes to a runner that has all of them.
            key: submit once. Two submits with one key give one workflow, from whatever process or machine they come,
                also if the first died at any moment: what was made with it is adopted, unless it was cancelled. The
                name gets marks of key and content. It costs a request per 100 workflows of the last `key_max_age`
                seconds, once per process, then one each 2 s on average for all keyed submits together: to look before
                a create, and to confirm it. Of two that come at once the younger is cancelled; if it has begun by then
                both run, which is logged.
            key_max_age: seconds for which a key counts; 0 skips the looks, for what is surely the first attempt.

        Raises:
            GraphError: the graph or a parameter cannot run; lists every issue, nothing was sent.
            InvalidArgumentError: another argument that the API refuses; nothing was sent.
            KeyConflictError: the key was used before, for another content.
            SubmitOutcomeUnknownError: it may or may not have been created.
            TransportError, APIError, RateLimitWaitError: it was not created.
        """
        check_seconds("key_max_age", key_max_age, InvalidArgumentError)
        draft = await asyncio.to_thread(prepare_submit, graph, name, params, tags, key)
        if draft.marks is None:
            summary = await self._submitter.submit(draft.form, draft.name, unique=draft.unique)
        else:
            summary = await submit_once(self._core.keys, self._submitter, draft, key_max_age)
        return make_run(self._tools, summary, graph=draft.graph)

    async def run(
        self,
        graph: GraphSource,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        key: str | None = None,
        key_max_age: float = 3600.0,
        timeout: float | None = None,
        on_update: OnUpdate | None = None,
        on_cancel: Literal["detach", "cancel"] = "detach",
        on_timeout: Literal["detach", "cancel"] = "detach",
    ) -> WorkflowRun:
        """Submit a graph and wait until it is completed; return its handle, for `outputs` and `download`.

        Args:
            graph, name, params, tags, key, key_max_age: as `submit`.
            timeout: seconds to wait after the submit; None waits as long as it takes.
            on_update: called with a `WorkflowUpdate` each time that something changes; may be a coroutine function.
            on_cancel: what happens at the service when the task that waits is cancelled: "detach" lets the workflow
                run on, "cancel" cancels it. One that is not queued yet cannot be cancelled: it is tried for 30 s.
            on_timeout: the same for the end of `timeout`. With "cancel" the run is returned all the same if it
                completed meanwhile.

        Raises:
            WorkflowFailedError, WorkflowCancelledError, WorkflowInvalidError, WaitTimeoutError: as `WorkflowRun.wait`.
            Besides: as `submit`. Every error after the submit names the workflow: `workflow_id`, and a note.
        """
        for option, value in (("on_cancel", on_cancel), ("on_timeout", on_timeout)):
            if value not in ("detach", "cancel"):
                raise InvalidArgumentError(f"{option} must be 'detach' or 'cancel', not {value!r}")
        check_timeout(timeout)
        if on_update is not None and not callable(on_update):
            raise InvalidArgumentError(f"on_update must be a function, not {type(on_update).__name__}")
        run = await self.submit(graph, name=name, params=params, tags=tags, key=key, key_max_age=key_max_age)
        try:
            await follow_to_end(run, timeout, on_update)
        except WaitTimeoutError:
            if on_timeout == "cancel" and await self._cancel_for_good(run.id) == WorkflowStatus.COMPLETED:
                await run.refresh()
                return run
            raise
        except asyncio.CancelledError:
            if on_cancel == "cancel":
                await self._cancel_for_good(run.id)
            raise
        return run

    async def _cancel_for_good(self, id: str) -> WorkflowStatus | None:
        """Cancel a workflow in the lane that goes first; return its status if it had ended before."""
        urgent = self.with_options(priority=Priority.INTERACTIVE, max_rate_limit_wait=None)
        pause = self._core.watcher.policy.min_interval
        ended = await cancel_for_good(urgent.workflows, id, SYSTEM_CLOCK, pause=pause)
        return None if ended is None else ended.status

    def _batch_tools(self) -> BatchTools:
        return BatchTools(
            run=self._tools,
            submitter=self._submitter,
            cancel=self._cancel_for_good,
            origin=self.base_url,
            attempts=self._pipeline.attempts,
            leaving=self._core.leaving,
        )

    def plan(self, n: int, *, outputs: bool = True) -> BatchPlan:
        """Estimate the requests and seconds that `n` workflows will need under the limiter as it is now. No request.

        The seconds are those in which the limit lets the requests through; the workflows' own time comes on top.

        Args:
            n: from 0 to 10**15.
            outputs: whether the outputs are fetched: two requests for each workflow, not one.

        Raises:
            InvalidArgumentError: `n` is no such number.
        """
        return plan_batch(n, outputs=outputs, limits=self.limiter.snapshot())

    def get_run(self, id: str) -> WorkflowRun:
        """Return a handle of a workflow that exists. No request.

        Raises:
            InvalidArgumentError: the id is no UUID-like text.
        """
        return make_run(self._tools, check_id(id))
