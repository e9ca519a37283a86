"""Batch: run one graph over many rows, a bounded number at a time, and resume where an earlier start ended."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sized
from contextlib import suppress
from datetime import datetime
from typing import Any

from comfycontrol_async._loop import own_cancel
from comfycontrol_async.batch._columns import Columns
from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalState
from comfycontrol_async.batch._leave import leave
from comfycontrol_async.batch._options import BatchOptions, check_directory
from comfycontrol_async.batch._progress import Tally
from comfycontrol_async.batch._results import MapResult
from comfycontrol_async.batch._row_work import BatchTools, RowWork
from comfycontrol_async.batch._rows import Row, Rows, columns_of, count_rows, table_of, walk
from comfycontrol_async.batch._tables import FaultyRow
from comfycontrol_async.batch._templates import shape_of
from comfycontrol_async.errors import InvalidArgumentError, TooManyFailuresError
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.runs._part_file import sweep

_NO_ROW = object()


class Batch:
    """One batch on its way: reads rows, has each processed, and gives results as they come."""

    def __init__(self, tools: BatchTools, graph: Graph, options: BatchOptions, rows: Rows) -> None:
        self._tools = tools
        self._graph = graph
        self._options = options
        self._rows = rows
        self._table = table_of(rows)
        base = None if self._table is None else self._table.parent
        self._columns = Columns(graph.parameters, params=options.params, needed=options.needed(), base=base)
        self._journal: BatchJournal | None = None
        self._tally = Tally(
            options.on_progress, tools.run.clock, lambda: tools.attempts.count, tools.run.watcher.limits, self._end_with
        )
        # Rows in this process, those finished but not taken included.
        self._room = asyncio.Semaphore(2 * options.concurrency)
        self._results: asyncio.Queue[MapResult | BaseException | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        # Results that are ahead of their turn, and the index of the next in order.
        self._early: dict[int, MapResult] = {}
        self._next = 0
        # What ended the rows before their end.
        self._broken: Exception | None = None

    async def results(self) -> AsyncGenerator[MapResult, None]:
        """Give the result of every row, as they come or in order; errors as `ComfyControl.map`."""
        work: RowWork | None = None
        left = False
        try:
            self._ticking = asyncio.get_running_loop().create_task(self._tally.tick())
            await asyncio.to_thread(check_directory, self._options.download_to)
            journal = await self._open_journal()
            if journal is not None and self._options.download_to is not None:
                await asyncio.to_thread(sweep, self._options.download_to)
            work = RowWork(self._tools, self._graph, self._options, self._columns, journal, self._tally)
            self._tools.attempts.listeners.append(work.on_attempt)
            await self._find_lost(work)
            await self._count()
            self._spawn(self._feed, work)
            while (result := await self._results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                for ready in self._in_order(result):
                    yield ready
                    self._room.release()
            for index in sorted(self._early):
                yield self._early[index]
            if self._broken is not None:
                raise self._broken
            if self._too_many():
                raise TooManyFailuresError(self._tally.failed, self._options.max_failures or 0)
        except (GeneratorExit, asyncio.CancelledError):
            left = True
            raise
        finally:
            if work is not None:
                self._tools.attempts.listeners.remove(work.on_attempt)
                work.pace.close()
            await self._close(work if left else None)

    def _in_order(self, result: MapResult) -> Iterator[MapResult]:
        """Yield what can be given now that this result is there."""
        if not self._options.ordered:
            yield result
            return
        self._early[result.index] = result
        while self._next in self._early:
            yield self._early.pop(self._next)
            self._next += 1

    # Beginning and ending

    async def _open_journal(self) -> BatchJournal | None:
        path = self._options.journal
        if path is None:
            return None
        self._journal = await BatchJournal.open(
            path, graph=self._graph.digest(), origin=self._tools.origin, leftover=self._leftover
        )
        return self._journal

    def _leftover(self) -> str | None:
        """Return what lies in the directory of downloads and looks like files of this batch; blocking."""
        directory = self._options.download_to
        if directory is None:
            return None
        shape = shape_of(self._options.pattern)
        for path in directory.rglob("*"):
            if shape.fullmatch(path.relative_to(directory).as_posix()):
                return f"{str(directory)!r} holds files such as {path.name!r}"
        return None

    async def _find_lost(self, work: RowWork) -> None:
        """Look for the workflows that were being submitted when the journal was last closed."""
        pending = [] if self._journal is None else await self._journal.entries(JournalState.SUBMITTING)
        if pending:
            await self._tally.report()
            since = min(datetime.fromisoformat(entry.sent_at) for entry in pending)
            names = {entry.name for entry in pending}
            work.found = await self._tools.submitter.find_all(names, since)
            await self._tally.report()

    async def _count(self) -> None:
        """Find out how many rows there are, where that is quick, for the progress to tell what is left."""
        if self._options.on_progress is None:
            return
        if self._table is not None:
            self._tally.total = await asyncio.to_thread(count_rows, self._table)
        elif isinstance(self._rows, Sized):
            with suppress(Exception):  # a caller's own type
                self._tally.total = len(self._rows)

    async def _close(self, left: RowWork | None) -> None:
        """Stop everything; a batch that was `left` with on_cancel="cancel" cancels what runs for it."""
        done = self._tools.leaving.begin()
        try:
            if self._journal is not None:
                self._journal.closes()
            cancel = self._tools.cancel if self._options.on_cancel == "cancel" else None
            if left is not None and (cancel is not None or self._journal is not None):
                await leave(left, set(self._tasks), self._journal, cancel)
        finally:
            try:
                await self._stop()
            finally:
                done()

    async def _stop(self) -> None:
        ticking = {self._ticking} if self._ticking is not None else set()
        for task in self._tasks | ticking:
            task.cancel()
        try:
            if self._tasks or ticking:
                await asyncio.wait(self._tasks | ticking)
        finally:
            if self._journal is not None:
                await self._journal.close()

    def _spawn(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run a part of the batch beside the others; what goes wrong in it for good ends the batch."""

        async def guarded() -> None:
            try:
                await work(*args)
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                raise
            except GeneratorExit:  # raised again it would end the caller's generator
                self._end_with(InvalidArgumentError("a callback of the batch raised GeneratorExit"))
            except BaseException as error:  # one of the caller's own: rows must not be lost in silence
                self._end_with(error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _end_with(self, error: BaseException) -> None:
        """End the batch with an error that no row can go on after."""
        self._results.put_nowait(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._results.put_nowait(None)

    def _too_many(self) -> bool:
        allowed = self._options.max_failures
        return allowed is not None and self._tally.failed > allowed

    # Rows

    async def _feed(self, work: RowWork) -> None:
        """Read a row whenever there is room for one more."""
        iterator = walk(self._rows)
        index, known = 0, False
        try:
            while True:
                await self._room.acquire()
                if self._too_many():
                    return
                found = await self._read(iterator)
                if found is _NO_ROW:
                    self._tally.total = index
                    return
                rows = [found]
                if not known and (columns := _names_of(found)) is not None:
                    known, rows = True, await self._first(found, columns, iterator)
                for row in rows:
                    self._spawn(self._process, work, index, row)
                    index += 1
        finally:
            await iterator.aclose()

    async def _read(self, iterator: AsyncGenerator[Row, None]) -> Row:
        """Read one row; an error that comes in its place ends the batch, after the rows before it are done."""
        try:
            return await anext(iterator, _NO_ROW)
        except asyncio.CancelledError as error:
            if own_cancel():
                raise
            self._broken = InvalidArgumentError("the rows ended early: something that they waited for was cancelled")
            self._broken.__cause__ = error
        except Exception as error:
            self._broken = error
        return _NO_ROW

    async def _first(self, row: Row, columns: set[Any], iterator: AsyncGenerator[Row, None]) -> list[Row]:
        """Check the columns of the first row, and return the rows that were read for that.

        Raises:
            InvalidArgumentError: every row would fail.
        """
        self._columns.study(columns_of(row))
        wrong = self._columns.missing(columns)
        if wrong is None:
            return [row]
        # It may be this row's fault alone: the next one tells.
        second = await self._read(iterator)
        if second is _NO_ROW or _names_of(second) == columns:
            raise InvalidArgumentError(wrong)
        await self._room.acquire()
        return [row, second]

    async def _process(self, work: RowWork, index: int, row: Row) -> None:
        """Bring one row to its end and put its result out."""
        result = await work.process(index, row)
        self._tally.done += 1
        self._tally.failed += result.error is not None
        try:
            await self._tally.report()
        except InvalidArgumentError as error:
            self._tally.failed += result.error is None
            result.error = result.error or error
        self._results.put_nowait(result)


def _names_of(row: Row) -> set[Any] | None:
    """Return the names of a row's columns, None when it has none."""
    if isinstance(row, FaultyRow):
        return None
    try:
        return set(columns_of(row))
    except InvalidArgumentError:
        return None
