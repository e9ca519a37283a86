"""ComfyControl: wires the parts and exposes resources and verbs."""

import asyncio
import copy
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._core import UNSET, Core, Unset, limiter_source
from comfycontrol_async._http._config import (
    Timeouts,
    WatchPolicy,
    check_limiter,
    check_wait,
    name_user_agent,
    read_base_url,
    read_timeouts,
    read_token,
)
from comfycontrol_async._http._pipeline import Pipeline
from comfycontrol_async._http._proxies import check_proxy
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._storage import Storage
from comfycontrol_async._http._transport import Transport
from comfycontrol_async._settings import check_kind
from comfycontrol_async.batch._map import Batch
from comfycontrol_async.batch._options import BatchOptions, BatchPlan, Key, MapProgress, MapResult, Rows, plan_batch
from comfycontrol_async.errors import BadRequestError, ComfyControlError, ConfigurationError, InvalidArgumentError
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import raise_errors
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.resources import (
    ManagedRunnersResource,
    RunnersResource,
    TemplatesResource,
    UserResource,
    WorkflowsResource,
)
from comfycontrol_async.resources._calls import GraphSource, raw
from comfycontrol_async.resources._checks import check_id, check_tags
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._run import OnUpdate, RunTools, WorkflowRun
from comfycontrol_async.runs._submit import Submitter, prepare_submit

# Seconds for which a run that was cancelled with on_cancel="cancel" tries to tell the server.
_CANCEL_TIME = 30.0


class ComfyControl:
    """A client of ComfyControl: every request goes through one rate limiter and is repeated where that is safe.

    Args:
        token: `cfc_...`; default: the environment variable COMFYCONTROL_API_TOKEN.
        base_url: default: COMFYCONTROL_BASE_URL, else https://api.comfycontrol.app.
        session: an aiohttp session to use as it is for API calls; it is never closed or changed. Downloads from the
            storage host always go through a session of our own, which knows no credential.
        limiter: default: one that all clients of this origin and event loop share.
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
        ConfigurationError: there is no token, or an option makes no sense.
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
        check_limiter(limiter)
        agent = name_user_agent(user_agent)
        found = read_token(token, os.environ)
        sessions = Sessions(
            read_base_url(base_url, os.environ),
            session=session,
            proxy=check_proxy(proxy),
            trace_configs=trace_configs,
        )
        pipeline = Pipeline(
            transport=Transport(sessions, found, user_agent=agent),
            limiter=limiter_source(limiter, sessions),
            retry=check_kind("retry", RetryPolicy() if retry is None else retry, RetryPolicy, ConfigurationError),
            timeouts=read_timeouts(timeouts),
            chance=random.random,
            max_wait=check_wait(max_rate_limit_wait),
        )
        storage = Storage(sessions, user_agent=agent)
        policy = check_kind("watch", WatchPolicy() if watch is None else watch, WatchPolicy, ConfigurationError)
        self._assemble(Core.make(pipeline, storage, policy), pipeline)

    def _assemble(self, core: Core, pipeline: Pipeline) -> None:
        """Make the resources and verbs that send through `pipeline`."""
        send = pipeline.send
        self._core = core
        self._pipeline = pipeline
        self.user: UserResource = UserResource(send)
        self.runners: RunnersResource = RunnersResource(send)
        self.managed_runners: ManagedRunnersResource = ManagedRunnersResource(send)
        self.workflows: WorkflowsResource = WorkflowsResource(send, pipeline.open)
        self.templates: TemplatesResource = TemplatesResource(send)
        self._submitter = Submitter(
            workflows=self.workflows,
            retry=pipeline.retry,
            clock=SYSTEM_CLOCK,
            server_time=pipeline.transport.server_time,
            held=core.held,
        )
        downloader = Downloader(
            storage=core.storage,
            timeouts=pipeline.timeouts,
            retry=pipeline.retry,
            clock=SYSTEM_CLOCK,
            chance=pipeline.chance,
        )
        self._tools = RunTools(
            workflows=self.workflows, watcher=core.watcher, downloader=downloader, clock=SYSTEM_CLOCK
        )

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
            ConfigurationError: an option makes no sense.
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

    async def aclose(self) -> None:
        """Close the session that was opened here, for this client and its siblings; any number of times."""
        await self._core.watcher.close()
        await self._core.sessions.close()

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
    ) -> Any:
        """Call an endpoint that this package does not know: limited, and repeated where that is safe, as everything.

        Args:
            method: GET, POST, PUT, DELETE, ...; a POST or PATCH is never repeated when it may have taken effect.
            path: "/v1/..." on the API's own origin.
            params: the query.
            json: the body.

        Returns:
            The parsed JSON, None for an empty body.

        Raises:
            InvalidArgumentError: the path is no path, or the body no JSON.
            TransportError, APIError, ResponseFormatError, RateLimitWaitError: as every call.
        """
        return await self._pipeline.send(raw(method, path, params, json))

    # Verbs

    async def submit(
        self,
        graph: GraphSource,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> WorkflowRun:
        """Create a workflow, let it run, and return its handle. One request, unless its answer is lost.

        A lost answer is looked up, so that the workflow is neither lost nor doubled; the more `name` is its own, the
        surer (API documentation: there is no idempotency key).

        Args:
            graph: a `Graph`, a `Template`, a mapping, or a path to a JSON file.
            name: 1 to 200 characters; default: the file's stem, or "workflow", with something unique behind it.
            params: plain parameter names (no `$` or `#`) mapped to values: text or numbers, a choice, or a `File`,
                `Path` or bytes. A `$text` default and the first `$choice` option are filled in when left out.
            tags: it goes to a runner that has all of them.

        Raises:
            GraphError: the graph or a parameter cannot run; lists every issue, nothing was sent.
            InvalidArgumentError: another argument that the API refuses; nothing was sent.
            SubmitOutcomeUnknownError: it may or may not have been created.
            TransportError, APIError, RateLimitWaitError: it was not created.
        """
        known, form, name = await prepare_submit(graph, name, params, tags)
        summary = await self._submitter.submit(form, name)
        ordinal = self._tools.watcher.count_submitted()
        return WorkflowRun(self._tools, summary.id, summary=summary, graph=known, ordinal=ordinal)

    async def run(
        self,
        graph: GraphSource,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
        timeout: float | None = None,
        on_update: OnUpdate | None = None,
        on_cancel: Literal["detach", "cancel"] = "detach",
    ) -> WorkflowRun:
        """Submit a graph and wait until it is completed; return its handle, for `outputs` and `download`.

        Args:
            graph, name, params, tags: as `submit`.
            timeout: seconds to wait after the submit; None waits as long as it takes.
            on_update: called with a `WorkflowUpdate` each time that something changes; may be a coroutine function.
            on_cancel: what happens at the server when the task that waits is cancelled: "detach" lets the workflow
                run on, "cancel" cancels it, as soon as it is queued and within 30 s.

        Raises:
            WorkflowFailedError, WorkflowCancelledError, WorkflowInvalidError, WaitTimeoutError: as `WorkflowRun.wait`.
            Besides: as `submit`.
        """
        if on_cancel not in ("detach", "cancel"):
            raise InvalidArgumentError(f"on_cancel must be 'detach' or 'cancel', not {on_cancel!r}")
        run = await self.submit(graph, name=name, params=params, tags=tags)
        try:
            await run.watch(timeout, on_update)
        except asyncio.CancelledError:
            if on_cancel == "cancel":
                with suppress(ComfyControlError, TimeoutError):
                    async with asyncio.timeout(_CANCEL_TIME):
                        await self.with_options(priority=Priority.INTERACTIVE)._cancel_for_good(run.id)
            raise
        return run

    async def _cancel_for_good(self, id: str) -> None:
        """Cancel a workflow, also one that is not queued yet, which the API refuses to cancel until it is."""
        while True:
            try:
                return await self.workflows.cancel(id)
            except BadRequestError:
                if (await self.workflows.get(id)).status.terminal:
                    return None
            await SYSTEM_CLOCK.sleep(self._core.watcher.policy.min_interval)

    def map(
        self,
        graph: GraphSource,
        rows: Rows,
        *,
        key: Key | None = None,
        name: str = "{key}",
        tags: Iterable[str] = (),
        concurrency: int = 100,
        ordered: bool = False,
        outputs: bool = True,
        download_to: str | Path | None = None,
        journal: str | Path | None = None,
        timeout: float | None = None,
        max_failures: int | None = None,
        on_progress: Callable[[MapProgress], object] | None = None,
    ) -> AsyncGenerator[MapResult, None]:
        """Run one graph over many rows of parameters, and give a `MapResult` for each.

        One failure never ends the batch; what stops every row (a token that is refused, a closed client) does.

        Args:
            graph: as `submit`.
            rows: mappings of parameter names to values; any iterable or async iterable, read lazily.
            key: what tells rows apart: a function of the row, or the name of a parameter; default: the row's index.
            name: what the workflows' names begin with, from `{key}` and `{index}`; something unique comes behind it.
            tags: as `submit`.
            concurrency: how many workflows are unfinished at once, at the most.
            ordered: whether results come in the order of rows instead of as they come.
            outputs: whether the outputs are wanted: one request for each workflow.
            download_to: a directory to fetch the outputs into, as `<key>-<index>.<ext>`.
            journal: a SQLite file. Started again with the same file, nothing is submitted twice, what runs is waited
                for, what failed to be submitted is tried again, and what is done comes from the file.
            timeout: seconds to wait for each workflow.
            max_failures: how many rows may fail before no more are begun; then `TooManyFailuresError`, last.
            on_progress: called with a `MapProgress` whenever something changes; may be a coroutine function.

        Raises:
            GraphError, InvalidArgumentError: the graph or an option makes no sense; nothing was sent.
            ConfigurationError: the journal cannot be used, or belongs to another graph or API address.
            TooManyFailuresError, AuthenticationError, ClientClosedError: as said above.
        """
        options = BatchOptions(
            key=key,
            name=name,
            tags=tuple(check_tags(tags)),
            concurrency=concurrency,
            ordered=ordered,
            outputs=outputs or download_to is not None,
            download_to=None if download_to is None else Path(download_to),
            journal=None if journal is None else Path(journal),
            timeout=timeout,
            max_failures=max_failures,
            on_progress=on_progress,
        )
        return self._map(graph, rows, options)

    async def _map(self, graph: GraphSource, rows: Rows, options: BatchOptions) -> AsyncGenerator[MapResult, None]:
        known = await asyncio.to_thread(Graph.coerce, graph)
        raise_errors(known.check())
        batch = Batch(self._tools, self._submitter, known, str(self._core.sessions.base_url), options)
        async with aclosing(batch.results(rows)) as results:
            async for result in results:
                yield result

    def plan(self, n: int, *, outputs: bool = True) -> BatchPlan:
        """Reckon the requests and seconds that `n` workflows will need under the limiter as it is now. No request.

        The seconds are those in which the limit lets the requests through; the workflows' own time comes on top.
        """
        return plan_batch(n, outputs=outputs, limits=self.limiter.snapshot())

    def get_run(self, id: str) -> WorkflowRun:
        """Return a handle of a workflow that exists. No request.

        Raises:
            InvalidArgumentError: the id is no UUID-like text.
        """
        return WorkflowRun(self._tools, check_id(id))
