"""JournalFile: the SQLite file of a journal, and every doubt about it before it is believed; blocking.

A row that is lost from a journal is made twice, and paid twice. So each entry carries a mark of its content, the file
counts its entries, and both are checked when it is opened: what was damaged or changed by another program is refused,
with the name of the file and the key, before anything is sent.

The file is written in WAL mode with synchronous FULL: the newest entries lie in `<file>-wal` until a checkpoint, which
comes every few rows, moves them into the file. While it is open the file says so; one that says so and has no `-wal`
beside it has lost entries, and is refused too.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfycontrol_async.batch._journal_entry import FIELDS, JournalEntry, JournalState, entry_of, values_of
from comfycontrol_async.batch._journal_log import has_log
from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.graph._issues import shown

if TYPE_CHECKING:
    import sqlite3  # a batch without a journal, and `import comfycontrol_async`, do without it

FORMAT = "comfycontrol_async batch 2"
_OLD_FORMAT = "comfycontrol_async batch 1"
# Pages of the log, about four to a row, after which they are moved into the file.
_CHECKPOINT_PAGES = 24


_COLUMNS = ", ".join((*FIELDS, "mark"))
_PUT = f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * (len(FIELDS) + 1))})"
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE entries (key TEXT PRIMARY KEY, "
    + ", ".join(f"{name} {'INTEGER' if name == 'position' else 'TEXT'} NOT NULL" for name in (*FIELDS[1:], "mark"))
    + ") WITHOUT ROWID",
)


class JournalFile:
    """An open journal; `open_journal` makes one."""

    def __init__(self, path: Path, database: "sqlite3.Connection") -> None:
        self.path = path
        self._database = database
        self._count = 0
        self._inode: tuple[int, int] | None = None

    def get(self, key: str) -> JournalEntry | None:
        """Return the entry of a row, None when there is none."""
        with refusing(self.path):
            row = self._database.execute(f"SELECT {_COLUMNS} FROM entries WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._entry(row)

    def entries(self, state: JournalState | None = None) -> Iterator[JournalEntry]:
        """Yield the entries, of one state if that is given, in order of their rows."""
        where = "" if state is None else "WHERE state = ?"
        with refusing(self.path):
            rows = self._database.execute(
                f"SELECT {_COLUMNS} FROM entries {where} ORDER BY position, key",
                () if state is None else (state.value,),
            )
            for row in rows:
                yield self._entry(row)

    def summary(self) -> dict[str, int]:
        """Return how many rows are in each state."""
        with refusing(self.path):
            found = dict(self._database.execute("SELECT state, count(*) FROM entries GROUP BY state").fetchall())
        return {state.value: found.get(state.value, 0) for state in JournalState}

    def put(self, entry: JournalEntry) -> None:
        """Write an entry; when this returns it is durable."""
        self._see_that_it_is_there()
        values = values_of(entry)
        with refusing(self.path):
            new = self._database.execute("SELECT 1 FROM entries WHERE key = ?", (entry.key,)).fetchone() is None
            self._database.execute("BEGIN")
            try:
                self._database.execute(_PUT, values)
                if new:
                    self._set("entries", str(self._count + 1))
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self._count += new

    def close(self) -> None:
        """Close it: what lies in the log is moved into the file, which then says that it is closed."""
        if self._inode is not None and self._is_there():
            with suppress(ConfigurationError), refusing(self.path):
                try:
                    self._set("open", "no")
                except Exception:  # the disk is full: what the log has taken is free once it is moved into the file
                    self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    self._set("open", "no")
        with refusing(self.path):
            self._database.close()

    # Opening

    def check(self, wanted: Mapping[str, str]) -> bool:
        """Check that it is a journal of what is wanted, with its log; False when it is still empty.

        Raises:
            ConfigurationError: it is something else, another's, or damaged.
        """
        meta = self._meta()
        if not meta:
            return False
        for what, text in (("origin", "another API address ({})"), ("graph", "another graph")):
            if meta.get(what) != wanted[what]:
                raise ConfigurationError(
                    f"the journal {str(self.path)!r} belongs to {text.format(meta.get(what))}: use another file"
                )
        if meta.get("open") == "yes" and not has_log(self.path):
            raise ConfigurationError(
                f"the journal {str(self.path)!r} was not closed, and its log {self.path.name + '-wal'!r} is missing or "
                "damaged, which holds the newest rows: put it back beside it. If it is lost, Journal.open(...).rows() "
                "says what the journal knows; begin a new one with the other rows"
            )
        return True

    def _meta(self) -> dict[str, str]:
        """Read what the file says of itself: nothing when it is still empty.

        Raises:
            ConfigurationError: it is something else.
        """
        tables = {sql for (sql,) in self._database.execute("SELECT sql FROM sqlite_master") if sql}
        if not tables:
            return {}
        rows = self._database.execute("SELECT * FROM meta").fetchall() if _SCHEMA[0] in tables else ()
        meta = {row[0]: row[1] for row in rows if len(row) == 2}
        if meta.get("format") == _OLD_FORMAT:
            raise ConfigurationError(
                f"the journal {str(self.path)!r} was begun by version 0.1.0: finish it with that version, or use "
                "another file"
            )
        if meta.get("format") != FORMAT or tables != set(_SCHEMA):
            raise ConfigurationError(f"{str(self.path)!r} is no journal of a batch that this version can read")
        return meta

    def check_to_read(self) -> None:
        """Check that it is a journal, whose log may be lost.

        Raises:
            ConfigurationError: it is something else.
        """
        if not self._meta():
            raise ConfigurationError(f"the journal {str(self.path)!r} is empty")

    def keep_log(self) -> None:
        """Say that it is closed, if it has its log: closing a file that was read moves the log into it."""
        if has_log(self.path):
            with suppress(ConfigurationError), refusing(self.path):
                self._set("open", "no")

    def inspect(self) -> None:
        """Check every entry and the pages that they lie in.

        Raises:
            ConfigurationError: something is damaged.
        """
        (verdict,) = self._database.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise self._damaged(str(verdict).splitlines()[-1])
        before = b""
        count = 0
        for row in self._database.execute(f"SELECT {_COLUMNS} FROM entries"):
            key = self._entry(row).key.encode()
            if key <= before and count:
                raise self._damaged(f"the key {shown(row[0])} is out of order")
            before, count = key, count + 1
        said = dict(self._database.execute("SELECT key, value FROM meta")).get("entries")
        if said != str(count):
            raise self._damaged(f"it has {count} rows, but was written with {shown(said)}")
        self._count = count

    def lay_out(self, wanted: Mapping[str, str]) -> None:
        """Make the tables of a new journal."""
        for statement in _SCHEMA:
            self._database.execute(statement)
        for key, value in {"format": FORMAT, "entries": "0", "open": "no", **wanted}.items():
            self._set(key, value)

    def begin(self) -> None:
        """Say in the file that it is open; from here on it can be written."""
        self._set("open", "yes")
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        found = os.stat(self.path)
        self._inode = (found.st_dev, found.st_ino)

    def _set(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # Believing

    def _entry(self, row: tuple[Any, ...]) -> JournalEntry:
        entry = entry_of(row)
        if entry is None:
            raise self._damaged(f"the row with the key {shown(row[0])} is not as it was written")
        return entry

    def _damaged(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"the journal {str(self.path)!r} is damaged ({what}): restore the file, or use another one"
        )

    def _is_there(self) -> bool:
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._inode

    def _see_that_it_is_there(self) -> None:
        if self._inode is None:
            raise ConfigurationError(f"the journal {str(self.path)!r} was opened to be read")
        if not self._is_there():
            raise ConfigurationError(
                f"the journal {str(self.path)!r} was removed or replaced while it was in use: put it back"
            )


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Raise whatever goes wrong with a journal's file as a ConfigurationError that names it."""
    import sqlite3

    name = f"the journal {str(path)!r}"
    try:
        yield
    except ConfigurationError:
        raise
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ConfigurationError(f"{name} is in use: let the other batch end, or use another file") from error
        raise ConfigurationError(f"{name} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigurationError(f"{str(path)!r} is no journal of a batch, or a damaged one: {error}") from error
    except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
        raise ConfigurationError(f"{name} cannot be opened: {error}") from error


def open_journal(path: Path, wanted: Mapping[str, str], leftover: Callable[[], str | None]) -> JournalFile:
    """Open or make the journal of a batch, to be written.

    Args:
        path: the file.
        wanted: the graph's digest and the API's origin that it must belong to.
        leftover: returns what lies about of a batch that may have had this journal; asked where the file is empty.

    Raises:
        ConfigurationError: it is in use, is no journal, is damaged, cannot be written, or belongs to another batch.
    """
    with refusing(path):
        path = Path(os.path.abspath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        new = _create(path)
        journal = JournalFile(path, _connect(path))
    known = False
    try:
        with refusing(path):
            database = journal._database
            known = journal.check(wanted)  # before anything in it is changed: it may be another program's
            if not known and not new and (left := leftover()) is not None:
                raise ConfigurationError(
                    f"the journal {str(path)!r} is empty, but {left} of a batch that may have used it: restore the "
                    "journal, or, if this batch is a new one, remove the empty file and choose another directory"
                )
            with suppress(OSError):  # another user's, who lets us write: their choice
                os.chmod(path, 0o600)  # the log gets the mode of the file
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            if not journal.check(wanted):
                journal.lay_out(wanted)
            database.execute("COMMIT")
            # Only now: the file itself has its tables before there is a log.
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            journal.inspect()
            journal.begin()
    except BaseException:
        if known:  # as of a batch that was killed
            journal.keep_log()
        journal._database.close()
        raise
    return journal


def read_journal(path: Path) -> JournalFile:
    """Open a journal to read it.

    Raises:
        ConfigurationError: there is none, it is in use, or it is damaged.
    """
    with refusing(path):
        path = Path(os.path.abspath(path))
        if not path.exists():
            raise ConfigurationError(f"there is no journal {str(path)!r}")
        _check_kind(path)
        journal = JournalFile(path, _connect(path))
    try:
        with refusing(path):
            journal.check_to_read()
            journal.inspect()
            journal.keep_log()
    except BaseException:
        journal._database.close()
        raise
    return journal


def _create(path: Path) -> bool:
    """Make an empty file for its owner alone, unless there is one; return True if it is new.

    Raises:
        ConfigurationError: a log lies beside no journal, or something else has the name.
    """
    size = path.stat().st_size if path.exists() else 0
    log = Path(f"{path}-wal")
    if not size and log.exists() and log.stat().st_size:
        raise ConfigurationError(
            f"the journal {str(path)!r} is {'empty' if path.exists() else 'missing'}, but {log.name!r} of it is there: "
            "restore the journal, or remove that file if this batch is a new one"
        )
    _check_kind(path)
    if path.exists():
        return False
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return True


def _check_kind(path: Path) -> None:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise ConfigurationError(f"the journal {str(path)!r} cannot be opened: it is not a file")


def _connect(path: Path) -> "sqlite3.Connection":
    import sqlite3

    database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    # Damaged text must not stop the reading: the mark of its row tells.
    database.text_factory = lambda data: data.decode(errors="surrogateescape")
    return database
