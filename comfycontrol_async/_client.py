"""ComfyControl: wires the parts and exposes resources and verbs."""

import asyncio
import json as jsonlib
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Self

import aiohttp
import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._config import Timeouts, WatchPolicy, check_wait, name_user_agent, read_base_url, read_token
from comfycontrol_async._download import Downloader
from comfycontrol_async._pipeline import Pipeline
from comfycontrol_async._request import Answer, Repeat, Request
from comfycontrol_async._retry import RetryPolicy
from comfycontrol_async._submit import submit
from comfycontrol_async._transport import Transport
from comfycontrol_async._watch import Watcher
from comfycontrol_async.errors import ComfyControlError, InvalidArgumentError
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.limits._shared import shared_limiter
from comfycontrol_async.resources import (
    ManagedRunnersResource,
    RunnersResource,
    TemplatesResource,
    UserResource,
    WorkflowsResource,
)
from comfycontrol_async.resources._calls import GraphSource
from comfycontrol_async.resources._checks import check_id
from comfycontrol_async.runs import OnUpdate, RunTools, WorkflowRun

# Methods that RFC 9110, 9.2.2 calls idempotent: the same again gives the same.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

# Seconds for which a run that was cancelled with on_cancel="cancel" tries to tell the server.
_CANCEL_TIME = 30.0


class _Unset:
    """The default of an option for which None means something."""


_UNSET = _Unset()


@attrs.define(eq=False)
class _Shared:
    """What siblings made by `with_options` have in common."""

    transport: Transport
    given_limiter: Limiter | None
    policy: WatchPolicy
    watcher: Watcher | None = None
    downloader: Downloader | None = None
    _default_limiter: Limiter | None = None

    def limiter(self) -> Limiter:
        """Return the limiter that was given, or the one that all clients of this origin and loop share."""
        if self.given_limiter is not None:
            return self.given_limiter
        if self._default_limiter is None or self.transport.loop_changed():
            self._default_limiter = shared_limiter(str(self.transport.base_url.origin()))
        return self._default_limiter


class ComfyControl:
    """A client of ComfyControl: every request goes through one rate limiter and is repeated where that is safe.

    Args:
        token: `cfc_...`; default: the environment variable COMFYCONTROL_API_TOKEN.
        base_url: default: COMFYCONTROL_BASE_URL, else https://api.comfycontrol.app.
        session: an aiohttp session to use as it is for API calls; it is never closed or changed. Downloads from the
            storage host always go through a session of our own, which knows no credential.
        limiter: default: one that all clients of this origin and event loop share.
        retry, timeouts, watch: see the classes.
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
        timeouts: Timeouts | None = None,
        watch: WatchPolicy | None = None,
        max_rate_limit_wait: float | None = None,
        user_agent: str | None = None,
        proxy: str | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        transport = Transport(
            read_token(token, os.environ),
            read_base_url(base_url, os.environ),
            session=session,
            user_agent=name_user_agent(user_agent),
            proxy=proxy,
            trace_configs=trace_configs,
        )
        shared = _Shared(transport, limiter, watch or WatchPolicy())
        pipeline = Pipeline(
            transport=transport,
            limiter=shared.limiter,
            retry=retry or RetryPolicy(),
            timeouts=timeouts or Timeouts(),
            chance=random.random,
            max_wait=check_wait(max_rate_limit_wait),
        )
        self._assemble(shared, pipeline)

    def _assemble(self, shared: _Shared, pipeline: Pipeline) -> None:
        send = pipeline.send
        self._shared = shared
        self._pipeline = pipeline
        self.user = UserResource(send)
        self.runners = RunnersResource(send)
        self.managed_runners = ManagedRunnersResource(send)
        self.workflows = WorkflowsResource(send, pipeline.open)
        self.templates = TemplatesResource(send)
        if shared.watcher is None:
            shared.watcher = Watcher(self.workflows, shared.policy)
        if shared.downloader is None:
            shared.downloader = Downloader(
                transport=pipeline.transport,
                timeouts=pipeline.timeouts,
                retry=pipeline.retry,
                clock=SYSTEM_CLOCK,
                chance=random.random,
            )
        self._tools = RunTools(
            workflows=self.workflows, watcher=shared.watcher, downloader=shared.downloader, clock=SYSTEM_CLOCK
        )

    # The client itself

    @property
    def base_url(self) -> str:
        """The API's address, without a trailing slash."""
        return str(self._shared.transport.base_url)

    @property
    def limiter(self) -> Limiter:
        """The limiter that every request goes through."""
        return self._shared.limiter()

    def with_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        priority: Priority | None = None,
        max_rate_limit_wait: float | _Unset | None = _UNSET,
    ) -> Self:
        """Return a sibling with other options, which shares session, limiter and watcher; what is left out stays.

        `comfy.with_options(priority=Priority.INTERACTIVE)` sends in a lane before everything that waits in others.

        Raises:
            ConfigurationError: an option makes no sense.
        """
        changes: dict[str, Any] = {}
        if timeouts is not None:
            changes["timeouts"] = timeouts
        if retry is not None:
            changes["retry"] = retry
        if priority is not None:
            if priority not in Priority._value2member_map_:
                raise InvalidArgumentError(f"priority must be a Priority, not {priority!r}")
            changes["priority"] = Priority(priority)
        if not isinstance(max_rate_limit_wait, _Unset):
            changes["max_wait"] = check_wait(max_rate_limit_wait)
        sibling = object.__new__(type(self))
        sibling._assemble(self._shared, attrs.evolve(self._pipeline, **changes))
        return sibling

    async def aclose(self) -> None:
        """Close the session that was opened here, for this client and its siblings; any number of times."""
        await self._shared.transport.close()

    async def __aenter__(self) -> Self:
        self._shared.transport.bind()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<ComfyControl {self.base_url}{' closed' if self._shared.transport.closed else ''}>"

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
        if not path.startswith("/") or any(character in path for character in "\r\n#"):
            raise InvalidArgumentError(f"a path is like '/v1/user', on the API's own origin, not {path[:60]!r}")
        verb = method.upper()
        if not verb.isascii() or not verb.isalpha():
            raise InvalidArgumentError(f"a method is a word like 'GET', not {method!r}")
        request = Request(
            method=verb,
            path=path,
            structure=lambda value: value,
            query={key: _query_value(value) for key, value in (params or {}).items()},
            body=None if json is None else _encode(json),
            repeat=Repeat.SAFE if verb in _IDEMPOTENT else Repeat.NEVER,
            answer=Answer.MAYBE,
        )
        return await self._pipeline.send(request)

    # Verbs

    async def submit(
        self,
        graph: GraphSource,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Iterable[str] = (),
    ) -> WorkflowRun:
        """Create a workflow, let it run, and return its handle. One request.

        Args:
            graph: a `Graph`, a `Template`, a mapping, or a path to a JSON file.
            name: 1 to 200 characters; default: the file's stem, or "workflow".
            params: plain parameter names (no `$` or `#`) mapped to values: text or numbers, a choice, or a `File`,
                `Path` or bytes. A `$text` default and the first `$choice` option are filled in when left out.
            tags: it goes to a runner that has all of them.

        Raises:
            GraphError: the graph or a parameter cannot run; lists every issue, nothing was sent.
            InvalidArgumentError: another argument that the API refuses; nothing was sent.
            SubmitOutcomeUnknownError: it may or may not have been created.
            TransportError, APIError, RateLimitWaitError: it was not created.
        """
        return await submit(self._tools, graph, name=name, params=params, tags=tags)

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
                run on, "cancel" cancels it.

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
                urgent = self.with_options(priority=Priority.INTERACTIVE)
                with suppress(ComfyControlError, TimeoutError):
                    async with asyncio.timeout(_CANCEL_TIME):
                        await urgent.workflows.cancel(run.id)
            raise
        return run

    def get_run(self, id: str) -> WorkflowRun:
        """Return a handle of a workflow that exists. No request.

        Raises:
            InvalidArgumentError: the id is no UUID-like text.
        """
        return WorkflowRun(self._tools, check_id(id))


def _query_value(value: str | int | float | bool) -> str | int:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _encode(value: Any) -> bytes:
    try:
        return jsonlib.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"the body is no JSON: {error}") from error
