"""map: run one graph over many rows, a bounded number at a time, and take up where a crash left off."""

import asyncio
import hashlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.batch._journal import Entry, Journal, State
from comfycontrol_async.batch._options import (
    BatchOptions,
    MapProgress,
    MapResult,
    Row,
    Rows,
    check_directory,
    check_rows,
    digest_of,
    error_of,
    stem_of,
    walk,
)
from comfycontrol_async.batch._pacing import Pace
from comfycontrol_async.errors import (
    AuthenticationError,
    ClientClosedError,
    ClientLoopError,
    ComfyControlError,
    ConfigurationError,
    InvalidArgumentError,
    SubmitOutcomeUnknownError,
    TooManyFailuresError,
    WaitTimeoutError,
    WorkflowError,
)
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary
from comfycontrol_async.resources._forms import workflow_form
from comfycontrol_async.runs._run import RunTools, WorkflowRun, follow_to_end, make_run
from comfycontrol_async.runs._submit import Submitter, unique_name

# Submits, and requests for outputs, of one batch that are under way at once.
_AT_ONCE = 8
# Downloads of one batch at once; the storage host is not under the API's limit.
_DOWNLOADS = 8
# What says nothing about a row, but that no row can go on: the batch ends, and its journal resumes it.
_FATAL = (AuthenticationError, ClientClosedError, ClientLoopError, ConfigurationError)


class Batch:
    """One batch on its way: reads rows, submits, waits, fetches, and gives results as they come."""

    def __init__(self, tools: RunTools, submitter: Submitter, graph: Graph, origin: str, options: BatchOptions) -> None:
        self._tools = tools
        self._submitter = submitter
        self._graph = graph
        self._origin = origin
        self._options = options
        self._journal: Journal | None = None
        self._found: dict[str, list[WorkflowSummary]] = {}
        self._keys: set[bytes] = set()
        self._progress = MapProgress()
        # Workflows that are not finished; rows in this process, finished but not taken included.
        self._unfinished = asyncio.Semaphore(options.concurrency)
        self._room = asyncio.Semaphore(2 * options.concurrency)
        self._pace = Pace(tools.watcher.limits, tools.clock)
        # Outputs do not stand in line behind all the rows that are not submitted yet.
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._outputs_turn = asyncio.Semaphore(_AT_ONCE)
        self._downloads = asyncio.Semaphore(_DOWNLOADS)
        self._results: asyncio.Queue[MapResult | BaseException | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        # What ended the rows before their end.
        self._broken: Exception | None = None
        # Whether there may be too many workflows to watch each by a stream.
        self._many = options.concurrency > tools.watcher.max_streams

    async def results(self, rows: Rows) -> AsyncGenerator[MapResult, None]:
        """Give the result of every row, as they come or in order.

        Raises:
            TooManyFailuresError: more rows failed than `max_failures`; those under way were given before.
            InvalidArgumentError: `rows` are no rows, or `download_to` is no directory; nothing was sent.
            Whatever `rows` raise: after the results of those that were read.
            ConfigurationError: the journal cannot be used, or belongs to another batch.
            AuthenticationError, ClientClosedError, ClientLoopError: no row can go on.
        """
        try:
            check_rows(rows)
            await asyncio.to_thread(check_directory, self._options.download_to)
            await self._open_journal()
            self._spawn(self._feed, rows)
            waiting: dict[int, MapResult] = {}
            following = 0
            while (result := await self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                if not self._options.ordered:
                    yield result
                    self._room.release()
                    continue
                waiting[result.index] = result
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1
                    self._room.release()
            for index in sorted(waiting):
                yield waiting[index]
            if self._broken is not None:
                raise self._broken
            if self._too_many():
                raise TooManyFailuresError(self._progress.failed, self._options.max_failures or 0)
        finally:
            await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._pace.close()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            if self._journal is not None:
                await self._journal.close()

    def _spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a part of the batch beside the others; what goes wrong in it for good ends the batch."""

        async def guarded() -> None:
            try:
                await work(*args)
            except Exception as error:
                self._results.put_nowait(error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._results.put_nowait(None)

    def _too_many(self) -> bool:
        allowed = self._options.max_failures
        return allowed is not None and self._progress.failed > allowed

    async def _report(self, **changes: int) -> None:
        self._progress = attrs.evolve(
            self._progress, **{name: getattr(self._progress, name) + change for name, change in changes.items()}
        )
        if self._options.on_progress is not None:
            result = self._options.on_progress(self._progress)
            if inspect.isawaitable(result):
                await result

    # Rows

    async def _feed(self, rows: Rows) -> None:
        """Read a row whenever there is room for one more."""
        index = 0
        iterator = walk(rows)
        try:
            while True:
                await self._room.acquire()
                if self._too_many():
                    return
                try:
                    row = await anext(iterator)
                except StopAsyncIteration:
                    return
                except Exception as error:
                    self._broken = error
                    return
                self._spawn(self._take, index, row)
                index += 1
        finally:
            await iterator.aclose()

    async def _take(self, index: int, row: Row) -> None:
        """Bring one row to its end and put its result out."""
        await self._report(read=1)
        result = MapResult(key=str(index), index=index, row=row)
        try:
            result.key = self._key(row, index)
            await self._go_on(result, await self._entry(result))
        except _FATAL:
            raise
        except ComfyControlError as error:
            result.error = error
        await self._report(done=1, failed=int(result.error is not None))
        self._results.put_nowait(result)

    def _key(self, row: Row, index: int) -> str:
        if not isinstance(row, Mapping):
            raise InvalidArgumentError(f"row {index} must map parameter names to values, not be {type(row).__name__}")
        key = self._options.key_of(row, index)
        if self._options.key is not None:
            mark = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()
            if mark in self._keys:
                raise InvalidArgumentError(f"row {index} has the key {key[:60]!r} of an earlier row")
            self._keys.add(mark)
        return key

    async def _entry(self, result: MapResult) -> Entry:
        """Return what the journal says of a row; a new row is written down as planned."""
        if self._journal is None:
            return Entry(key=result.key, position=result.index, digest="")
        digest = await asyncio.to_thread(digest_of, result.row)  # there may be whole files in it
        entry = await self._journal.get(result.key)
        if entry is None:
            return await self._write(Entry(key=result.key, position=result.index, digest=digest))
        if entry.digest != digest:
            raise InvalidArgumentError(f"row {result.key[:60]!r} is not the one that the journal has under this key")
        return entry

    async def _write(self, entry: Entry) -> Entry:
        if self._journal is not None:
            await self._journal.put(entry)
        return entry

    async def _go_on(self, result: MapResult, entry: Entry) -> None:
        """Do what is left to do for a row."""
        resumed = entry.state not in (State.PLANNED, State.FAILED)
        if entry.state in (State.FINISHED, State.DOWNLOADED):
            result.run = self._run_of(entry)
            await self._report(submitted=1)
            if entry.error:
                raise error_of(result.run, entry.status, entry.error)
        else:
            async with self._unfinished:
                if entry.state is State.SUBMITTED:
                    result.run = self._run_of(entry)
                else:
                    result.run, entry = await self._submit(result, entry)
                await self._report(submitted=1)
                entry = await self._wait(result.run, entry)
        if entry.state is State.DOWNLOADED:
            result.paths = [Path(path) for path in entry.paths]
        elif self._options.outputs:
            await self._fetch(result, result.run, entry, overwrite=resumed)

    async def _submit(self, result: MapResult, entry: Entry) -> tuple[WorkflowRun, Entry]:
        # The name stays the same over all tries: it is what a lost workflow is found by.
        name = entry.name or unique_name(self._options.name_of(entry.key, result.index))
        found = self._found.pop(name, [])
        if len(found) > 1:
            raise SubmitOutcomeUnknownError(name, [summary.id for summary in found])
        summary = found[0] if found else None
        if summary is None:
            async with self._turn:
                try:
                    form = await asyncio.to_thread(workflow_form, self._graph, name, result.row, self._options.tags)
                    await self._pace.turn(first=False)
                    sent_at = entry.sent_at or self._submitter.since(None).isoformat()
                    entry = attrs.evolve(entry, state=State.SUBMITTING, name=name, sent_at=sent_at)
                    await self._write(entry)
                    summary = await self._submitter.submit(form, name, unique=True)
                except (*_FATAL, SubmitOutcomeUnknownError):
                    raise  # the journal says `submitting`: the next start looks for it first
                except ComfyControlError as error:
                    await self._write(attrs.evolve(entry, state=State.FAILED, error=str(error)))
                    raise
        created_at = summary.created_at.isoformat()
        entry = attrs.evolve(entry, state=State.SUBMITTED, id=summary.id, created_at=created_at, error="")
        await self._write(entry)
        return make_run(self._tools, summary, graph=self._graph), entry

    def _run_of(self, entry: Entry) -> WorkflowRun:
        """Make the handle of a workflow that the journal knows."""
        created_at = datetime.fromisoformat(entry.created_at)
        summary = WorkflowSummary(
            id=entry.id,
            name=entry.name,
            status=WorkflowStatus(entry.status or WorkflowStatus.ACCEPTED),
            created_at=created_at,
            updated_at=created_at,
        )
        return make_run(self._tools, summary, graph=self._graph)

    async def _wait(self, run: WorkflowRun, entry: Entry) -> Entry:
        try:
            await follow_to_end(run, self._options.timeout, outputs=self._options.outputs, batch=self._many)
        except WaitTimeoutError:
            raise  # it goes on at the server, and the journal goes on waiting for it
        except WorkflowError as failure:
            ended = attrs.evolve(entry, state=State.FINISHED, status=str(run.status), error=failure.message)
            await self._write(ended)
            raise
        return await self._write(attrs.evolve(entry, state=State.FINISHED, status=str(run.status)))

    async def _fetch(self, result: MapResult, run: WorkflowRun, entry: Entry, *, overwrite: bool) -> None:
        """Get the outputs and, when wanted, the files; what an earlier start wrote half-way is written again."""
        async with self._outputs_turn:
            if run.known_outputs is None:
                await self._pace.turn(first=True)
            result.outputs = await run.outputs()
        if self._options.download_to is None:
            return
        template = stem_of(result.key).replace("{", "{{").replace("}", "}}") + "-{index:03}{ext}"
        async with self._downloads:
            result.paths = await run.download(self._options.download_to, template=template, overwrite=overwrite)
        await self._write(attrs.evolve(entry, state=State.DOWNLOADED, paths=tuple(map(str, result.paths))))

    # The journal

    async def _open_journal(self) -> None:
        """Open the journal, and find the workflows that were being submitted when it was last closed."""
        if self._options.journal is None:
            return
        graph = hashlib.sha256(self._graph.to_json().encode()).hexdigest()
        self._journal = await Journal.open(self._options.journal, graph=graph, origin=self._origin)
        pending = await self._journal.entries(State.SUBMITTING)
        if pending:
            since = min(datetime.fromisoformat(entry.sent_at) for entry in pending)
            names = {entry.name for entry in pending}
            self._found = await self._submitter.find_all(names, since)
