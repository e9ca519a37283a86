"""RowWork: brings one row after another from its columns to its result."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async._http._attempts import Attempts
from comfycontrol_async._http._multipart import Form
from comfycontrol_async._http._request import Request
from comfycontrol_async._loop import own_cancel
from comfycontrol_async.batch._columns import Columns
from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._leaving import Leaving
from comfycontrol_async.batch._options import BatchOptions
from comfycontrol_async.batch._pacing import Pace
from comfycontrol_async.batch._progress import Tally
from comfycontrol_async.batch._results import MapResult
from comfycontrol_async.batch._rows import columns_of
from comfycontrol_async.batch._tables import FaultyRow
from comfycontrol_async.batch._templates import place_of
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    ClientClosedError,
    ClientLoopError,
    ComfyControlError,
    ConfigurationError,
    InvalidArgumentError,
    NotFoundError,
    SubmitOutcomeUnknownError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.graph._digest import digest_content
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import shown
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary
from comfycontrol_async.resources._forms import workflow_form
from comfycontrol_async.runs._run import RunTools, WorkflowRun, follow_to_end, make_run
from comfycontrol_async.runs._submit import Submitter, unique_name

log = logging.getLogger("comfycontrol_async.batch")

# Errors that are not about a row: no row can go on, the batch ends, and its journal resumes it.
FATAL = (AuthenticationError, ClientClosedError, ClientLoopError, ConfigurationError)
# Submits, and requests for outputs, of one batch that are under way at once.
_AT_ONCE = 8
# Downloads of one batch at once; the storage host is not under the API's limit.
_DOWNLOADS = 8
# Seconds in which a workflow that was cancelled should show how it ended.
_END_TIME = 30.0

_OF_A_WORKFLOW: dict[str, type[WorkflowError]] = {
    kind.__name__: kind
    for kind in (WorkflowCancelledError, WorkflowFailedError, WorkflowInvalidError, WaitTimeoutError)
}


@attrs.frozen(eq=False, repr=False, kw_only=True)
class BatchTools:
    """What a batch needs of its client. `cancel` cancels a workflow by its id, as soon as that can be done."""

    leaving: Leaving
    run: RunTools
    submitter: Submitter
    cancel: Callable[[str], Awaitable[object]]
    origin: str
    attempts: Attempts


class RowWork:
    """What the rows of one batch share, and the steps that each takes.

    `under_way` has the workflows that have not ended, with their entries; `sent` the tasks whose create has left.
    """

    def __init__(
        self,
        tools: BatchTools,
        graph: Graph,
        options: BatchOptions,
        columns: Columns,
        journal: BatchJournal | None,
        tally: Tally,
    ) -> None:
        self._tools = tools
        self._graph = graph
        self._options = options
        self._columns = columns
        self._journal = journal
        self._tally = tally
        self._keys: set[bytes] = set()
        # Workflows that are not finished.
        self._unfinished = asyncio.Semaphore(options.concurrency)
        self.pace = Pace(tools.run.watcher.limits, tools.run.clock)
        # Outputs do not queue behind all the rows that are not submitted yet.
        self._submits = asyncio.Semaphore(_AT_ONCE)
        self._outputs = asyncio.Semaphore(_AT_ONCE)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        # Workflows of an earlier start whose creates had no answer.
        self.found: dict[str, list[WorkflowSummary]] = {}
        self.under_way: dict[str, tuple[WorkflowRun, JournalEntry]] = {}
        self.sent: set[asyncio.Task[Any] | None] = set()
        self._submitting: set[asyncio.Task[Any] | None] = set()
        self.leaving = False
        # Errors of `on_progress`, by the index of the row that was reported.
        self._unreported: dict[int, InvalidArgumentError] = {}

    async def process(self, index: int, row: Any) -> MapResult:
        """Bring one row to its end; whatever goes wrong with it alone is its error."""
        result = MapResult(key=str(index), index=index, row=row)
        try:
            await self._process(result)
        except FATAL:
            raise
        except ComfyControlError as error:
            result.error = error
        except Exception as error:  # one row never ends a batch, whatever the caller's types and callbacks do
            log.error("row %d failed with an error that is not expected", index, exc_info=error)
            result.error = _wrapped(f"row {index} failed: {shown(error)}", error)
        except asyncio.CancelledError as error:
            if own_cancel() or self.leaving:
                raise
            result.error = _wrapped(f"row {index} failed: something that it waited for was cancelled", error)
        result.error = result.error or self._unreported.pop(index, None)
        return result

    async def _process(self, result: MapResult) -> None:
        self._tally.read += 1
        await self._report(result)
        if isinstance(result.row, FaultyRow):
            result.row, message = result.row.row, result.row.message
            raise InvalidArgumentError(message)
        columns = columns_of(result.row)
        self._columns.study(columns)
        result.key = self._key_of(result, columns)
        row = _Row(result=result, columns=columns)
        folder, template = place_of(self._options.pattern, result.key, row.values)
        entry = await self._entry(row)
        resumed = entry.state not in (JournalState.PLANNED, JournalState.FAILED)
        entry = await self._end(row, entry)
        if entry.state is JournalState.DOWNLOADED:
            result.paths = [Path(path) for path in entry.paths]
        elif self._options.outputs and result.run is not None:
            await self._fetch(result, result.run, entry, folder, template, overwrite=resumed)

    async def _report(self, result: MapResult) -> None:
        """Report progress; a callback that was cancelled is the row's error in the end, but does not stop its work."""
        try:
            await self._tally.report()
        except InvalidArgumentError as error:
            self._unreported[result.index] = error

    def _key_of(self, result: MapResult, columns: Mapping[str, Any]) -> str:
        key = self._options.key_of(result.row, columns, result.index)
        if self._options.key is not None:
            mark = hashlib.blake2b(key.encode(), digest_size=12).digest()
            if mark in self._keys:
                raise InvalidArgumentError(f"row {result.index} has the key {key[:60]!r} of an earlier row")
            self._keys.add(mark)
        return key

    # The journal

    async def _entry(self, row: "_Row") -> JournalEntry:
        """Return what the journal says of a row; a new row is written down as planned."""
        result = row.result
        if self._journal is None:
            return JournalEntry(key=result.key, position=result.index, digest="")
        known = await self._journal.get(result.key)
        if known is not None and known.state is JournalState.FAILED and known.id and self._options.retry_failed:
            known = fresh(known)
        name = known.name if known is not None and known.name else self._new_name(row)
        # Made once: a stream can be read only once. Whole files may be read here.
        row.form, digest = await asyncio.to_thread(self._digested, row, name)
        if known is None:
            return await self._write(JournalEntry(key=result.key, position=result.index, digest=digest))
        if known.digest != digest:
            raise InvalidArgumentError(f"row {result.key[:60]!r} is not the one that the journal has under this key")
        return known

    async def _write(self, entry: JournalEntry) -> JournalEntry:
        if self._journal is not None:
            await self._journal.put(entry)
        return entry

    def _new_name(self, row: "_Row") -> str:
        return unique_name(self._options.name_of(row.values))

    def _form(self, row: "_Row", name: str) -> Form:
        """Make the form that creates a row's workflow; blocking, for it looks at files."""
        params = self._columns.params_of(row.result.row, row.columns)
        return workflow_form(self._graph, name, params, self._options.tags_of(row.values))

    def _digested(self, row: "_Row", name: str) -> tuple[Form, str]:
        form = self._form(row, name)
        fields = [(field, value) for field, value in form.fields if field.startswith(("$", "#"))]
        return form, digest_content(self._graph.digest(), fields)

    # From the submit to the end

    async def _end(self, row: "_Row", entry: JournalEntry) -> JournalEntry:
        """Bring the workflow of a row to its end, whatever was done of that before."""
        result = row.result
        if entry.state in (JournalState.FINISHED, JournalState.DOWNLOADED) or (
            entry.state is JournalState.FAILED and entry.id
        ):
            result.run = self._run_of(entry)
            self._tally.submitted += 1
            self._tally.skipped += 1
            if entry.state is JournalState.FAILED:
                raise error_of(entry)
            return entry
        async with self._unfinished:
            if entry.state in (JournalState.SUBMITTED, JournalState.CANCELLING):
                result.run = self._run_of(entry)
                try:
                    return await self._wait(result, result.run, entry)
                except (WorkflowCancelledError, NotFoundError) as error:
                    if not self._begins_anew(entry, error):
                        raise
                entry, result.run = fresh(entry), None
                self._tally.submitted -= 1
            result.run, entry = await self._submit(row, entry)
            return await self._wait(result, result.run, entry)

    def _begins_anew(self, entry: JournalEntry, error: ComfyControlError) -> bool:
        """Tell whether a workflow of an earlier start that has no result makes way for a new one."""
        if isinstance(error, WorkflowCancelledError):
            return entry.state is JournalState.CANCELLING
        return self._options.retry_failed  # it does not exist any more

    async def _submit(self, row: "_Row", entry: JournalEntry) -> tuple[WorkflowRun, JournalEntry]:
        # The name stays the same over all tries: it is what a lost workflow is found by.
        name = entry.name or self._new_name(row)
        found = self.found.pop(name, [])
        if len(found) > 1:
            raise SubmitOutcomeUnknownError(name, [summary.id for summary in found])
        if found:
            summary = found[0]
        else:
            async with self._submits:
                summary, entry = await self._create(row, attrs.evolve(entry, name=name))
        entry = attrs.evolve(entry, state=JournalState.SUBMITTED, name=name, id=summary.id, error="")
        entry = attrs.evolve(entry, created_at=summary.created_at.isoformat())
        run = make_run(self._tools.run, summary, graph=self._graph)
        # Before anything is waited for: a batch that is left from here on cancels it.
        self.under_way[run.id] = (run, entry)
        await self._write(entry)
        return run, entry

    async def _create(self, row: "_Row", entry: JournalEntry) -> tuple[WorkflowSummary, JournalEntry]:
        """Create the workflow of an entry by one POST, or by as many as it takes to know that it is there."""
        task = asyncio.current_task()
        planned = attrs.evolve(entry, state=JournalState.PLANNED)
        try:
            made = await asyncio.to_thread(self._form, row, entry.name) if row.form is None else row.form
            form = attrs.evolve(made, fields=[("name", entry.name), *made.fields[1:]])
            await self.pace.turn(first=False)
            sent_at = entry.sent_at or self._tools.submitter.since(None).isoformat()
            entry = attrs.evolve(entry, state=JournalState.SUBMITTING, sent_at=sent_at)
            await self._write(entry)
            self._submitting.add(task)
            return await self._tools.submitter.submit(form, entry.name, unique=True), entry
        except (*FATAL, SubmitOutcomeUnknownError):
            raise  # the journal says `submitting`: the next start looks for it first
        except asyncio.CancelledError:
            if entry.state is JournalState.SUBMITTING and task not in self.sent:
                await self._write(planned)  # it certainly never left
            raise
        except ComfyControlError as error:
            # A server that redirects says that it did not act. Looking at the next start costs less than trusting it.
            if not (isinstance(error, APIError) and 300 <= error.status < 400):
                text = f"{type(error).__name__}: {error}"
                await self._write(attrs.evolve(entry, state=JournalState.FAILED, error=text))
            raise
        finally:
            self._submitting.discard(task)
            self.sent.discard(task)

    def on_attempt(self, request: Request[Any]) -> None:
        """Note which task's create leaves now."""
        task = asyncio.current_task()
        if task in self._submitting and request.form is not None:
            self.sent.add(task)

    async def _wait(self, result: MapResult, run: WorkflowRun, entry: JournalEntry) -> JournalEntry:
        """Wait for the end of a workflow, and write it down."""
        self.under_way[run.id] = (run, entry)
        if self.leaving:
            raise asyncio.CancelledError  # the batch was left while this one was being created
        self._tally.submitted += 1
        self._tally.running += 1
        left = False
        try:
            await self._report(result)
            await self._watch(run)
        except asyncio.CancelledError:
            left = own_cancel() or self.leaving
            raise
        except WorkflowError as error:
            goes_on = isinstance(error, WaitTimeoutError) and error.status != WorkflowStatus.CANCELLED
            anew = isinstance(error, WorkflowCancelledError) and entry.state is JournalState.CANCELLING
            if not (goes_on or anew):
                text = f"{type(error).__name__}: {error.message}"
                await self._write(attrs.evolve(entry, state=JournalState.FAILED, status=error.status or "", error=text))
            raise
        finally:
            self._tally.running -= 1
            if not left:
                del self.under_way[run.id]
        return await self._write(attrs.evolve(entry, state=JournalState.FINISHED, status=str(run.status)))

    async def _watch(self, run: WorkflowRun) -> None:
        """Wait until it is completed; with on_timeout="cancel" no longer than until it can be cancelled."""
        many = self._options.concurrency > self._tools.run.watcher.policy.max_streams
        try:
            await follow_to_end(run, self._options.timeout, outputs=self._options.outputs, batch=many)
        except WaitTimeoutError as error:
            if self._options.on_timeout == "detach":
                raise
            await self._tools.cancel(run.id)
            try:
                await follow_to_end(run, _END_TIME, outputs=self._options.outputs, batch=many)
            except WorkflowCancelledError:
                error.status = WorkflowStatus.CANCELLED
                raise error from None
            except WaitTimeoutError:
                raise error from None

    def _run_of(self, entry: JournalEntry) -> WorkflowRun:
        """Make the handle of a workflow that the journal knows."""
        created_at = datetime.fromisoformat(entry.created_at)
        summary = WorkflowSummary(
            id=entry.id,
            name=entry.name,
            status=WorkflowStatus(entry.status or WorkflowStatus.ACCEPTED),
            created_at=created_at,
            updated_at=created_at,
        )
        return make_run(self._tools.run, summary, graph=self._graph)

    # Outputs

    async def _fetch(
        self, result: MapResult, run: WorkflowRun, entry: JournalEntry, folder: Path, template: str, *, overwrite: bool
    ) -> None:
        """Get the outputs and, when wanted, the files; what an earlier start wrote half-way is written again."""
        async with self._outputs:
            if run.known_outputs is None:
                await self.pace.turn(first=True)
            result.outputs = await run.outputs()
        if self._options.download_to is None:
            return
        async with self._downloads:
            target = self._options.download_to / folder
            result.paths = await run.download(target, template=template, overwrite=overwrite)
        await self._write(attrs.evolve(entry, state=JournalState.DOWNLOADED, paths=tuple(map(str, result.paths))))


@attrs.define(eq=False, repr=False)
class _Row:
    """A row on its way: its result so far, its columns, and its form once that is made."""

    result: MapResult
    columns: dict[str, Any]
    form: Form | None = None

    @property
    def values(self) -> dict[str, Any]:
        """What names, tags and file names may be made of."""
        return self.columns | {"key": self.result.key, "index": self.result.index}


def fresh(entry: JournalEntry) -> JournalEntry:
    """Return the entry of a row that begins again, with another workflow."""
    return JournalEntry(key=entry.key, position=entry.position, digest=entry.digest)


def error_of(entry: JournalEntry) -> WorkflowError:
    """Make the error that a journal remembers of a workflow."""
    name, _, message = entry.error.partition(": ")
    kind = _OF_A_WORKFLOW.get(name, WorkflowFailedError)
    return kind(message, id=entry.id, name=entry.name, status=entry.status)


def _wrapped(text: str, cause: BaseException) -> ComfyControlError:
    error = ComfyControlError(text)
    error.__cause__ = cause
    return error
