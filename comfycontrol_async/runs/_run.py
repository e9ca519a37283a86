"""WorkflowRun: the handle of one workflow, to wait for it, look at it, and fetch what it made."""

import asyncio
import inspect
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, overload

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._settings import is_number
from comfycontrol_async.errors import (
    InvalidArgumentError,
    NotFoundError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.models import (
    FailureCause,
    Output,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._names import target_names
from comfycontrol_async.runs._output_file import OutputFile
from comfycontrol_async.runs._stores import ObjectStore, check_target
from comfycontrol_async.runs._watch import Watcher
from comfycontrol_async.runs._watch_state import update_of

OnUpdate = Callable[[WorkflowUpdate], object]


@attrs.frozen(kw_only=True)
class RunTools:
    """What runs need of the client that made them."""

    workflows: WorkflowsResource
    watcher: Watcher
    downloader: Downloader
    clock: Clock


class WorkflowRun:
    """One workflow at the service.

    Made by `comfy.submit`, `comfy.run` and `comfy.get_run`; it holds the last that is known and asks only when told.
    """

    __slots__ = ("_born", "_graph", "_ordinal", "_outputs", "_tools", "_workflow", "id")

    def __init__(
        self,
        tools: RunTools,
        id: str,
        *,
        summary: WorkflowSummary | None = None,
        graph: Graph | None = None,
        ordinal: int | None = None,
    ) -> None:
        self.id: str = id
        self._tools = tools
        self._graph = graph
        # The place among what this client made, which tells the watcher where in the listing it stands.
        self._ordinal = ordinal
        self._born = None if ordinal is None else tools.clock.monotonic()
        self._workflow = None if summary is None else _as_workflow(summary)
        self._outputs: list[Output] | None = None

    @property
    def name(self) -> str:
        """Its name; "" while it is not known."""
        return self._workflow.name if self._workflow else ""

    @property
    def status(self) -> WorkflowStatus | None:
        """The last status seen; None while none is known."""
        return self._workflow.status if self._workflow else None

    @property
    def workflow(self) -> Workflow | None:
        """The last that is known of it, None before anything is.

        Waiting keeps status, queue place, times and failure up to date for no further request; the fields that only
        `GET /v1/workflow/{id}` gives (`workflow_json`, `user_runner_id`, ...) are filled by `refresh`.
        """
        return self._workflow

    @property
    def known_outputs(self) -> list[Output] | None:
        """What it made, as far as that is known here; None when `outputs` would have to ask."""
        return None if self._outputs is None else list(self._outputs)

    def __repr__(self) -> str:
        return f"<WorkflowRun {self.id} {self.name!r} {self.status or 'unknown'}>"

    # Waiting

    async def wait(self, timeout: float | None = None) -> Workflow:
        """Wait until it is completed and return the last that is known of it.

        Cancelling the task that waits only stops waiting.

        Args:
            timeout: seconds, everything included; None waits as long as it takes.

        Raises:
            WorkflowFailedError, WorkflowCancelledError, WorkflowInvalidError: it ended otherwise.
            WaitTimeoutError: it was not finished in time; it goes on at the server.
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking for it failed for good.
        """
        return await self.watch(timeout, None)

    async def watch(
        self, timeout: float | None, on_update: OnUpdate | None, *, outputs: bool = True, batch: bool = False
    ) -> Workflow:
        """Wait as `wait` does, and call `on_update` with every change; `outputs`, `batch`: see `Watcher`."""
        started = self._tools.clock.monotonic()
        limit = asyncio.timeout(timeout)
        try:
            async with limit, aclosing(self._updates(outputs, batch)) as updates:
                async for update in updates:
                    if on_update is not None:
                        await _call(on_update, update)
                await self._complete()
        except TimeoutError as error:
            if not limit.expired():
                raise
            waited = self._tools.clock.monotonic() - started
            raise WaitTimeoutError(
                f"not finished after {waited:.1f} s, last seen {self.status or 'never'}",
                id=self.id,
                name=self.name,
                status=self.status,
                waited=waited,
            ) from error
        return self._result()

    async def updates(self, *, min_interval: float = 0.0) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give its state now and each time that it changes, and end at a final status.

        Whoever takes them slowly gets the latest state, not all those between.

        Args:
            min_interval: seconds between two updates at the least, for one who edits a message with each; the final
                one is given too, late by that much at the most.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking for it failed for good.
            InvalidArgumentError: `min_interval` is negative or no number.
        """
        if not (is_number(min_interval) and min_interval >= 0):
            raise InvalidArgumentError(f"min_interval must be a number of seconds from 0, not {min_interval!r}")
        clock = self._tools.clock
        async with aclosing(self._updates(outputs=True, batch=False)) as updates:
            async for update in updates:
                given = clock.monotonic()
                yield update
                pause = given + min_interval - clock.monotonic()
                if pause > 0 and not update.status.terminal:
                    await clock.sleep(pause)

    async def _updates(self, outputs: bool, batch: bool) -> AsyncGenerator[WorkflowUpdate, None]:
        if self._workflow is None:
            await self.refresh()
        if self._workflow is not None and self._workflow.status.terminal:
            yield self._last_update()
            return
        created_at = self._workflow.created_at if self._workflow else None
        follow = self._tools.watcher.follow(
            self.id, ordinal=self._ordinal, born=self._born, created_at=created_at, outputs=outputs, batch=batch
        )
        async with aclosing(follow) as updates:
            async for update in updates:
                self._take(update)
                yield self._dated(update)

    def _take(self, update: WorkflowUpdate) -> None:
        """Remember what an update says."""
        if self._workflow is not None:
            cause = update.cause or FailureCause()
            self._workflow = attrs.evolve(
                self._workflow,
                status=update.status,
                queue_number=update.queue_number,
                started_at=update.started_at or self._workflow.started_at,
                completed_at=update.completed_at or self._workflow.completed_at,
                error_node=cause.node_type or self._workflow.error_node,
                exception_type=cause.exception_type or self._workflow.exception_type,
                exception_message=cause.exception_message or self._workflow.exception_message,
            )
        if update.outputs:
            self._outputs = update.outputs

    def _last_update(self) -> WorkflowUpdate:
        assert self._workflow is not None  # asked for only when something is known
        return self._dated(attrs.evolve(update_of(self._workflow), outputs=self._outputs or []))

    def _dated(self, update: WorkflowUpdate) -> WorkflowUpdate:
        """Add what the service does not say with an update: when it was made, and how long ago that was."""
        created_at = self._workflow.created_at if self._workflow else None
        if created_at is None:
            return update
        if update.completed_at is not None:
            elapsed = (update.completed_at - created_at).total_seconds()
        elif self._born is not None:
            elapsed = self._tools.clock.monotonic() - self._born
        else:
            elapsed = (self._tools.clock.utcnow() - created_at).total_seconds()
        return attrs.evolve(update, created_at=created_at, elapsed=max(0.0, elapsed))

    async def _complete(self) -> None:
        """Ask why it failed, when what was seen so far does not say."""
        known = self._workflow
        if known is not None and known.status == WorkflowStatus.FAILED and update_of(known).cause is None:
            await self.refresh()

    def _result(self) -> Workflow:
        workflow = self._workflow
        assert workflow is not None  # the updates ended, so there was one
        facts: dict[str, Any] = {"id": self.id, "name": workflow.name, "status": workflow.status.value}
        if workflow.status == WorkflowStatus.FAILED:
            reason = ": ".join(filter(None, (workflow.exception_type, workflow.exception_message)))
            place = f" at {workflow.error_node}" if workflow.error_node else ""
            raise WorkflowFailedError(
                f"failed{place}" + (f": {reason}" if reason else ""),
                node=workflow.error_node,
                exception_type=workflow.exception_type,
                exception_message=workflow.exception_message,
                **facts,
            )
        if workflow.status == WorkflowStatus.CANCELLED:
            raise WorkflowCancelledError("was cancelled", **facts)
        if workflow.status == WorkflowStatus.INVALID:
            raise WorkflowInvalidError("the service found it invalid: check its graph and parameters", **facts)
        return workflow

    # Asking and acting: one request each

    async def refresh(self) -> Workflow:
        """Fetch it in full and return it. One request.

        Raises:
            NotFoundError: it does not exist (any more).
        """
        self._workflow = await self._tools.workflows.get(self.id)
        return self._workflow

    async def cancel(self) -> None:
        """Cancel it. One request; the service takes a few seconds, and `wait` tells how it ended.

        Raises:
            BadRequestError: it is finished, or not queued yet: the API cannot cancel it then.
        """
        await self._tools.workflows.cancel(self.id)

    async def rerun(self, params: Mapping[str, Any] | None = None) -> "WorkflowRun":
        """Run it again as a new workflow; only the parameters given change.

        One request; one more when parameters are given and the graph is not known here.

        Raises:
            GraphError: a parameter is unknown or has a wrong value; nothing was made.
            SubmitOutcomeUnknownError: it may or may not have been made.
        """
        workflows = self._tools.workflows
        if params and self._graph is not None:
            summary = await workflows.rerun_with(self.id, self._graph.parameters, params)
        else:
            summary = await workflows.rerun(self.id, params=params)
        ordinal = self._tools.watcher.count_submitted()
        return WorkflowRun(self._tools, summary.id, summary=summary, graph=self._graph, ordinal=ordinal)

    async def outputs(self) -> list[Output]:
        """Return what it made; one request, none when the last event of its stream brought them.

        A completed workflow without outputs gives an empty list, whichever way the service says so. The signed URLs
        work for about five minutes; `download` gets fresh ones by itself.

        Raises:
            NotFoundError: it is not completed.
        """
        if self._outputs is None:
            self._outputs = await self._fetch_outputs()
        return list(self._outputs)

    async def _fetch_outputs(self) -> list[Output]:
        try:
            return await self._tools.workflows.outputs(self.id)
        except NotFoundError:
            # One page says 404 for a completed workflow without outputs, another an empty array (contradiction 6).
            if self.status == WorkflowStatus.COMPLETED:
                return []
            raise

    async def files(self) -> list[OutputFile]:
        """Return a handle of each output, to read, save or show it; as many requests as `outputs`.

        Raises:
            As `outputs`.
        """
        return self._tools.downloader.files(await self.outputs(), self._renew)

    @overload
    async def download(
        self, target: str | os.PathLike[str], *, template: str = ..., overwrite: bool = ...
    ) -> list[Path]: ...

    @overload
    async def download(self, target: ObjectStore, *, template: str = ..., overwrite: bool = ...) -> list[str]: ...

    async def download(
        self,
        target: str | os.PathLike[str] | ObjectStore,
        *,
        template: str = "{name}-{index:03}{ext}",
        overwrite: bool = False,
    ) -> list[Path] | list[str]:
        """Fetch its outputs into a directory, which is made if need be, or into an object store; return their paths.

        A file is written beside its name, made durable and then named in one step; an object is put once it is here as
        a whole: none is ever half there, whatever else writes to that name. When the signed URLs have expired, fresh
        ones cost one request. No credential goes to the storage host.

        Args:
            target: a directory, or a store of obstore (extra `objects`), such as `obstore.store.S3Store`.
            template: the names, from `{name}`, `{index}` (from 1), `{ext}` (with its dot) and `{id}`. What would not be
                a safe file name on every system is replaced by `_`.
            overwrite: whether files or objects that exist are replaced.

        Raises:
            DownloadError: a file exists, or could not be fetched or written; those finished stay, see `saved`.
            InvalidArgumentError: the template has an unknown field, or gives two outputs one name.
        """
        check_target(target)
        files = await self.files()
        extensions = [file.extension for file in files]
        names = target_names(template, extensions, name=self.name or "workflow", id=self.id)
        if isinstance(target, (str, os.PathLike)):
            paths = [Path(target) / name for name in names]
            return await self._tools.downloader.save(files, paths, overwrite=overwrite)
        return await self._tools.downloader.put(files, target, names, overwrite=overwrite)

    async def _renew(self) -> Sequence[Output]:
        self._outputs = await self._fetch_outputs()
        return self._outputs


def _as_workflow(summary: WorkflowSummary) -> Workflow:
    if isinstance(summary, Workflow):
        return summary
    return Workflow(**{field.name: getattr(summary, field.name) for field in attrs.fields(WorkflowSummary)})


async def _call(on_update: OnUpdate, update: WorkflowUpdate) -> None:
    """Call back, and wait when that is a coroutine."""
    result = on_update(update)
    if inspect.isawaitable(result):
        await result
