"""WorkflowRun: the handle of one workflow, to wait for it, look at it, and fetch what it made."""

import asyncio
import inspect
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, overload

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._settings import check_seconds, is_number
from comfycontrol_async.errors import (
    ComfyControlError,
    InvalidArgumentError,
    NotFoundError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowInvalidError,
    WorkflowNotFinishedError,
)
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.models import FailureCause, Output, Workflow, WorkflowStatus, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources._forms import changes_form, make
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._error_context import naming
from comfycontrol_async.runs._file_names import target_names
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._output_file import OutputFile, path_of
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._state import State, merge
from comfycontrol_async.runs._stores import ObjectStore, check_target
from comfycontrol_async.runs._watch import Watcher

log = logging.getLogger("comfycontrol_async")

OnUpdate = Callable[[WorkflowUpdate], object]


@attrs.frozen(eq=False, repr=False, kw_only=True)
class RunTools:
    """What runs need of the client that made them."""

    route: Route
    watcher: Watcher
    ledger: Ledger
    downloader: Downloader
    clock: Clock


class WorkflowRun:
    """One workflow at the service.

    Made by `comfy.submit`, `comfy.run` and `comfy.get_run`; it holds the last that is known and asks only when told.
    """

    __slots__ = ("_graph", "_outputs", "_state", "_tools", "id")

    id: str
    _tools: RunTools
    _state: State | None
    _outputs: Sequence[Output] | None
    _graph: Graph | None

    def __init__(self) -> None:
        raise TypeError("a WorkflowRun is made by submit, run, rerun and get_run")

    @property
    def name(self) -> str:
        """Its name; "" while it is not known."""
        return self._state.workflow.name if self._state else ""

    @property
    def status(self) -> WorkflowStatus | None:
        """The last status seen; None while none is known."""
        return self._state.status if self._state else None

    @property
    def workflow(self) -> Workflow | None:
        """The last that is known of it, None before anything is.

        Waiting keeps status, queue place, times and failure up to date for no further request; the fields that only
        `GET /v1/workflow/{id}` gives (`workflow_json`, `user_runner_id`, ...) are filled by `refresh`.
        """
        return self._state.workflow if self._state else None

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
            InvalidArgumentError: `timeout` is negative or no number.
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking for it failed for good.
        """
        return await follow_to_end(self, timeout)

    async def updates(self, *, min_interval: float = 0.0) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give its state now and each time that it changes, and end at a final status.

        A slow consumer gets the latest state, not all those between.

        Args:
            min_interval: least seconds between two updates, for a bot that edits its message with each; the final
                one is given too, late by that much at the most.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking for it failed for good.
            InvalidArgumentError: `min_interval` is negative or no number.
        """
        if not (is_number(min_interval) and min_interval >= 0):
            raise InvalidArgumentError(f"min_interval must be a number of seconds from 0, not {min_interval!r}")
        clock = self._tools.clock
        await self._tools.watcher.turns.take()
        with naming(self.id):
            async with aclosing(self._updates(outputs=True, batch=False, live=True)) as updates:
                async for update in updates:
                    given = clock.monotonic()
                    yield update
                    pause = given + min_interval - clock.monotonic()
                    if pause > 0 and not update.status.terminal:
                        await clock.sleep(pause)

    async def _updates(self, *, outputs: bool, batch: bool, live: bool) -> AsyncGenerator[WorkflowUpdate, None]:
        if self._state is None:
            await self.refresh()
        state = self._known()
        if state.ended:
            yield attrs.evolve(state, outputs=self._outputs).update(self._elapsed(state))
            return
        follow = self._tools.watcher.follow(state, self._tools.route, outputs=outputs, batch=batch, live=live)
        async with aclosing(follow) as states:
            async for state in states:
                self._state = state
                self._outputs = state.outputs or self._outputs
                yield state.update(self._elapsed(state))

    def _known(self) -> State:
        assert self._state is not None  # called only once something is known
        return self._state

    def _elapsed(self, state: State) -> float | None:
        """Return the seconds from its creation to its end, or to now while it runs."""
        created_at, completed_at = state.created_at, state.workflow.completed_at
        if created_at is None:
            return None
        made = self._tools.ledger.get(self.id)
        if completed_at is not None:
            elapsed = (completed_at - created_at).total_seconds()
        elif made is not None and made.moment is not None:
            elapsed = self._tools.clock.monotonic() - made.moment
        else:
            elapsed = (self._tools.clock.utcnow() - created_at).total_seconds()
        return max(0.0, elapsed)

    async def _explain(self) -> None:
        """Ask why it failed or is invalid, when what was seen so far does not say."""
        state = self._known()
        if state.status in (WorkflowStatus.FAILED, WorkflowStatus.INVALID) and state.cause is None:
            try:
                await self.refresh()
            except ComfyControlError as error:
                log.info("why workflow %s is %s could not be learnt: %s", self.id, state.status, error)

    # Asking and acting: one request each

    async def refresh(self) -> Workflow:
        """Fetch it in full and return it. One request.

        Raises:
            NotFoundError: it does not exist (any more).
        """
        with naming(self.id):
            self._state = merge(self._state, await self._tools.route.workflows.get(self.id))
        return self._state.workflow

    async def cancel(self) -> None:
        """Cancel it. One request; the service takes a few seconds, and `wait` tells how it ended.

        Raises:
            BadRequestError: it is finished, or not queued yet: the API cannot cancel it then.
        """
        with naming(self.id):
            await self._tools.route.workflows.cancel(self.id)

    async def rerun(self, params: Mapping[str, Any] | None = None) -> "WorkflowRun":
        """Run it again as a new workflow; only the parameters given change.

        One request; one more when parameters are given and the graph is not known here.

        Raises:
            GraphError: a parameter is unknown or has a wrong value; nothing was made.
            SubmitOutcomeUnknownError: it may or may not have been made.
        """
        tools = self._tools
        if params and self._graph is not None:
            form = await asyncio.to_thread(changes_form, self._graph.parameters, params)
            summary = await make(tools.route.send, f"/v1/workflow/{self.id}/rerun", form, f"rerun of {self.id}")
        else:
            summary = await tools.route.workflows.rerun(self.id, params=params)
        return make_run(tools, summary, graph=self._graph)

    async def outputs(self) -> list[Output]:
        """Return what it made; one request, none when the last event of its stream brought them.

        A completed workflow without outputs gives an empty list, whichever way the service says so. The signed URLs
        work for about five minutes; `download` gets fresh ones by itself.

        Raises:
            WorkflowNotFinishedError: it has not ended yet.
            WorkflowFailedError, WorkflowCancelledError, WorkflowInvalidError: it ended without outputs.
            NotFoundError: it does not exist (any more).
        """
        known = self.known_outputs
        return list(await self._fetch_outputs()) if known is None else known

    async def _fetch_outputs(self) -> Sequence[Output]:
        with naming(self.id):
            self._outputs = tuple(await self._ask_outputs())
        return self._outputs

    async def _ask_outputs(self) -> Sequence[Output]:
        """Fetch the outputs; a 404 may mean several things (contradiction 6 of the API documentation)."""
        completed = self.status == WorkflowStatus.COMPLETED
        try:
            return await self._tools.route.workflows.outputs(self.id)
        except NotFoundError:
            if completed:
                return []
        await self.refresh()
        raise_unless_completed(self._known())
        return await self._ask_outputs()

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
        with naming(self.id):
            if isinstance(target, (str, os.PathLike)):
                paths = [path_of(target) / name for name in names]
                return await self._tools.downloader.save(files, paths, overwrite=overwrite)
            return await self._tools.downloader.put(files, target, names, overwrite=overwrite)

    async def _renew(self) -> Sequence[Output]:
        return await self._fetch_outputs()


def make_run(tools: RunTools, known: WorkflowSummary | str, *, graph: Graph | None = None) -> WorkflowRun:
    """Make the handle of a workflow, from what is known of it or from its id alone."""
    run = WorkflowRun.__new__(WorkflowRun)
    run._tools, run._graph, run._outputs = tools, graph, None
    run._state = None if isinstance(known, str) else merge(None, known)
    run.id = known if isinstance(known, str) else known.id
    return run


def check_timeout(timeout: float | None) -> float | None:
    """Take the seconds of a wait; None for as long as it takes."""
    return None if timeout is None else check_seconds("timeout", timeout, InvalidArgumentError)


async def follow_to_end(
    run: WorkflowRun,
    timeout: float | None,
    on_update: OnUpdate | None = None,
    *,
    outputs: bool = True,
    batch: bool = False,
) -> Workflow:
    """Wait as `WorkflowRun.wait` does, and call `on_update` with every change.

    `outputs` and `batch` tell the watcher what is wanted; see `Watcher.follow`.
    """
    clock = run._tools.clock
    started = clock.monotonic()
    timeout = check_timeout(timeout)
    await run._tools.watcher.turns.take()
    live = on_update is not None
    with naming(run.id):
        limit = asyncio.timeout(timeout)
        try:
            async with (
                limit,
                aclosing(run._updates(outputs=outputs, batch=batch, live=live)) as updates,
            ):
                async for update in updates:
                    if on_update is not None:
                        await _call(on_update, update)
                await run._explain()
        except TimeoutError as error:
            if not limit.expired():
                raise
            waited = clock.monotonic() - started
            raise WaitTimeoutError(
                f"not finished after {waited:.1f} s, last seen {run.status or 'never'}",
                id=run.id,
                name=run.name,
                status=run.status,
                waited=waited,
            ) from error
        raise_unless_completed(run._known())
        return run._known().workflow


def raise_unless_completed(state: State) -> None:
    """Raise the error that says how a workflow ended, or that it has not ended; return if it is completed."""
    workflow, status = state.workflow, state.status
    facts: dict[str, Any] = {"id": workflow.id, "name": workflow.name, "status": status.value}
    cause = state.cause or FailureCause()
    reason = ": ".join(filter(None, (cause.exception_type, cause.exception_message)))
    said = f": {reason}" if reason else ""
    match status:
        case WorkflowStatus.COMPLETED:
            return
        case WorkflowStatus.FAILED:
            raise WorkflowFailedError(f"failed{_place_of(cause)}{said}", **facts, **attrs.asdict(cause))
        case WorkflowStatus.CANCELLED:
            raise WorkflowCancelledError("was cancelled", **facts)
        case WorkflowStatus.INVALID:
            text = f"the service found it invalid{_place_of(cause)}{said or ': check its graph and parameters'}"
            raise WorkflowInvalidError(text, **facts)
        case _:
            raise WorkflowNotFinishedError(f"it is {status}, not completed: wait for it first", **facts)


def _place_of(cause: FailureCause) -> str:
    node = f"node {cause.node_id}" if cause.node_id else ""
    if cause.node_type and node:
        return f" at {cause.node_type} ({node})"
    return f" at {cause.node_type or node}" if cause.node_type or node else ""


async def _call(on_update: OnUpdate, update: WorkflowUpdate) -> None:
    """Call back, and wait when that is a coroutine."""
    result = on_update(update)
    if inspect.isawaitable(result):
        await result
