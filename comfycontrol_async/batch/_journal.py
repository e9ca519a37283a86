"""Journal: what became of each row of a batch, in a file that survives `kill -9` at any moment.

Every step is durable before it is acted on: planned -> submitting -> submitted -> finished -> downloaded, or failed.
`Journal` reads one, for scripts; `BatchJournal` is written by a batch, in a thread of its own.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from comfycontrol_async._loop import stay_until_done
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._journal_file import JournalFile, open_journal, read_journal
from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError

T = TypeVar("T")

# Seconds for which a journal that is being closed is waited for; cancelling a thousand workflows takes 280 s.
_LONGEST_CLOSE = 600.0
# Journals of this process that are being closed, by their paths.
_closing: dict[str, Future[None]] = {}


class Journal:
    """The journal of a batch, to be read; blocking, for scripts.

    with Journal.open("batch.sqlite") as journal:
        print(journal.summary())
        failed = [row.key for row in journal.rows("failed")]

    It is locked as long as it is open: a batch that uses it cannot be read, and cannot begin meanwhile.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidArgumentError(f"a journal is given by its path, not by {type(path).__name__}")
        self._file = read_journal(Path(path))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a journal.

        Raises:
            ConfigurationError: there is none, a batch is using it, it is something else, or it is damaged.
        """
        return cls(path)

    def summary(self) -> dict[str, int]:
        """Return how many rows are in each state; see `rows` for what each means."""
        return self._file.summary()

    def rows(self, state: str | None = None) -> Iterator[JournalEntry]:
        """Return the rows of one state, or all, in order of the batch's rows.

        Args:
            state: "planned" (not sent yet), "submitting" (a request may have been sent), "submitted" (runs),
                "cancelling" (was left with on_cancel="cancel"), "finished", "downloaded", or "failed" (`id` is ""
                when it could not be submitted).

        Raises:
            InvalidArgumentError: there is no such state.
        """
        if state is not None and state not in JournalState._value2member_map_:
            raise InvalidArgumentError(f"a row is {', '.join(JournalState)}, not {state!r:.60}")
        return self._file.entries(None if state is None else JournalState(state))

    def close(self) -> None:
        """Close the file; any number of times."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class BatchJournal:
    """A journal that a batch writes; `await BatchJournal.open(...)` makes one, `await journal.close()` lets it go."""

    def __init__(self, path: Path) -> None:
        from concurrent.futures import ThreadPoolExecutor  # slow to import, for those who keep a journal

        self.path = path
        self._thread = ThreadPoolExecutor(1, "comfycontrol journal")
        self._file: JournalFile | None = None
        self._closed: Future[None] | None = None

    @classmethod
    async def open(
        cls, path: str | Path, *, graph: str, origin: str, leftover: Callable[[], str | None] = lambda: None
    ) -> Self:
        """Open or make the journal of a batch of `graph` (a digest) at `origin`.

        One that this process is closing, as after a `break`, is waited for.

        Raises:
            ConfigurationError: it is in use, is no journal, is damaged, cannot be written, or belongs to another graph
                or origin.
        """
        journal = cls(Path(path))
        if (closing := _closing.get(_name_of(journal.path))) is not None:
            await asyncio.wait([asyncio.wrap_future(closing)], timeout=_LONGEST_CLOSE)
        wanted = {"graph": graph, "origin": origin}

        def work() -> None:
            journal._file = open_journal(journal.path, wanted, leftover)

        try:
            await journal._run(work)
        except BaseException:
            await journal.close()
            raise
        return journal

    async def get(self, key: str) -> JournalEntry | None:
        """Return the entry of a row, None when there is none."""
        return await self._run(lambda: self._opened.get(key))

    async def entries(self, state: JournalState) -> list[JournalEntry]:
        """Return all entries in one state, in order of their rows."""
        return await self._run(lambda: list(self._opened.entries(state)))

    async def put(self, entry: JournalEntry) -> None:
        """Write an entry; when this returns it is durable."""
        await self._run(lambda: self._opened.put(entry))

    def closes(self) -> None:
        """Announce that it will be closed soon, to the next that opens the same file."""
        if self._closed is None:
            self._closed = _closing[_name_of(self.path)] = Future()

    async def close(self) -> None:
        """Close the file; any number of times."""

        def work() -> None:
            file, self._file = self._file, None
            if file is not None:
                file.close()

        try:
            with suppress(RuntimeError):  # the thread is gone: it was closed before
                await stay_until_done(asyncio.wrap_future(self._thread.submit(work)))
        finally:
            self._thread.shutdown(wait=False)
            if self._closed is not None and not self._closed.done():
                _closing.pop(_name_of(self.path), None)
                self._closed.set_result(None)

    @property
    def _opened(self) -> JournalFile:
        if self._file is None:
            raise ConfigurationError(f"the journal {str(self.path)!r} is closed")
        return self._file

    async def _run(self, work: Callable[[], T]) -> T:
        """Run work in the journal's thread; it is finished even when the caller is cancelled."""
        try:
            running = self._thread.submit(work)
        except RuntimeError as error:  # the thread is gone
            raise ConfigurationError(f"the journal {str(self.path)!r} is closed") from error
        return await stay_until_done(asyncio.wrap_future(running))


def _name_of(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # no path at all, as opening it will say
        return str(path)
