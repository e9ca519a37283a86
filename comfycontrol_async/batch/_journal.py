"""Journal: what became of each row of a batch, in a SQLite file that survives `kill -9` at any moment.

Every step is durable before it is acted on: planned -> submitting -> submitted -> finished -> downloaded, or failed
when a row could not be submitted. The file is written in WAL mode with synchronous FULL, by a thread of its own, and is
locked as long as it is open.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import attrs

from comfycontrol_async.errors import ConfigurationError

if TYPE_CHECKING:
    import sqlite3  # a batch without a journal, and `import comfycontrol_async`, do without it

T = TypeVar("T")

_FORMAT = "comfycontrol_async batch 1"
_COLUMNS = "key, position, digest, state, name, sent_at, id, created_at, status, error, paths"


class State(StrEnum):
    """How far a row has come."""

    PLANNED = "planned"
    SUBMITTING = "submitting"  # a request may have been sent: look for its name before sending again
    SUBMITTED = "submitted"
    FINISHED = "finished"
    DOWNLOADED = "downloaded"
    FAILED = "failed"  # it could not be submitted: tried again


@attrs.frozen(kw_only=True)
class Entry:
    """A row of the journal. Times are ISO 8601 text by the server's clock; `error` says how the workflow ended."""

    key: str
    position: int
    digest: str
    state: State = State.PLANNED
    name: str = ""
    sent_at: str = ""
    id: str = ""
    created_at: str = ""
    status: str = ""
    error: str = ""
    paths: tuple[str, ...] = ()


class Journal:
    """An open journal; `await Journal.open(...)` makes one, `await journal.close()` lets it go."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "comfycontrol journal")
        self._database: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    async def open(cls, path: str | Path, *, graph: str, origin: str) -> Self:
        """Open or make the journal of a batch of `graph` (a digest) at `origin`.

        Raises:
            ConfigurationError: it is in use, is no journal, cannot be written, or belongs to another graph or origin.
        """
        journal = cls(Path(path))
        try:
            await journal._run(lambda: journal._open(graph, origin))
        except BaseException:
            await journal.close()
            raise
        return journal

    async def get(self, key: str) -> Entry | None:
        """Return the entry of a row, None when there is none."""
        return await self._run(lambda: self._get(key))

    async def entries(self, state: State) -> list[Entry]:
        """Return all entries in one state, in order of their rows."""
        return await self._run(lambda: self._entries(state))

    async def put(self, entry: Entry) -> None:
        """Write an entry; when this returns it is durable."""
        await self._run(lambda: self._put(entry))

    async def close(self) -> None:
        """Close the file; any number of times."""
        database, self._database, self._closed = self._database, None, True
        if database is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, database.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run database work in the journal's thread; it is finished even when the caller is cancelled."""
        import sqlite3

        if self._closed:
            raise ConfigurationError(f"the journal {str(self.path)!r} is closed")
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            with suppress(Exception):
                await future
            raise
        except sqlite3.Error as error:
            raise ConfigurationError(f"the journal {str(self.path)!r} cannot be used: {error}") from error

    # In the thread

    @property
    def _db(self) -> "sqlite3.Connection":
        assert self._database is not None  # work is done between `_open` and `close`
        return self._database

    def _open(self, graph: str, origin: str) -> None:
        import sqlite3

        wanted = {"format": _FORMAT, "graph": graph, "origin": origin}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"the journal {str(self.path)!r} cannot be opened: {error}") from error
        self._database = database
        try:
            self._check(wanted)  # before anything in it is changed: it may be somebody else's
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN EXCLUSIVE")
            if not self._check(wanted):
                self._lay_out(wanted)
            database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigurationError(
                    f"the journal {str(self.path)!r} is in use: let the other batch end, or use another file"
                ) from error
            raise ConfigurationError(f"the journal {str(self.path)!r} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(f"{str(self.path)!r} is no journal of a batch: {error}") from error

    def _check(self, wanted: dict[str, str]) -> bool:
        """See that it is a journal of this batch, or an empty file: then return False."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return False
        rows = self._db.execute("SELECT * FROM meta") if {"meta", "entries"} <= tables else ()
        found = dict(row for row in rows if len(row) == 2)
        if found.get("format") != _FORMAT:
            raise ConfigurationError(f"{str(self.path)!r} is no journal of a batch that this version can read")
        for what, text in (("origin", "another API address ({})"), ("graph", "another graph")):
            if found.get(what) != wanted[what]:
                raise ConfigurationError(
                    f"the journal {str(self.path)!r} belongs to {text.format(found.get(what))}: use another file"
                )
        return True

    def _lay_out(self, wanted: dict[str, str]) -> None:
        self._db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        self._db.execute(
            "CREATE TABLE entries (key TEXT PRIMARY KEY, position INTEGER NOT NULL, digest TEXT NOT NULL,"
            " state TEXT NOT NULL, name TEXT NOT NULL, sent_at TEXT NOT NULL, id TEXT NOT NULL,"
            " created_at TEXT NOT NULL, status TEXT NOT NULL, error TEXT NOT NULL, paths TEXT NOT NULL)"
            " WITHOUT ROWID"
        )
        self._db.execute("CREATE INDEX entries_by_state ON entries (state, position)")
        self._db.executemany("INSERT INTO meta VALUES (?, ?)", list(wanted.items()))

    def _get(self, key: str) -> Entry | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else _entry(row)

    def _entries(self, state: State) -> list[Entry]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM entries WHERE state = ? ORDER BY position", (state.value,))
        return [_entry(row) for row in rows]

    def _put(self, entry: Entry) -> None:
        values = (*attrs.astuple(entry)[:-1], json.dumps(entry.paths))
        self._db.execute(f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", values)


def _entry(row: tuple[object, ...]) -> Entry:
    names = [field.name for field in attrs.fields(Entry)]
    values = dict(zip(names, row, strict=True))
    values["state"] = State(str(values["state"]))
    values["paths"] = tuple(json.loads(str(values["paths"])))
    return Entry(**values)  # type: ignore[arg-type] # the columns are those of the class, in its order
