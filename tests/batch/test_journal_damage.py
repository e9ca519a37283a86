"""Journals that were damaged, or written by something else: refused with file and key, and never believed."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async import ConfigurationError, Journal
from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._journal_file import JournalFile

GRAPH = "digest of a graph"
ORIGIN = "https://api.test"


async def opened(path: Path, leftover: Callable[[], str | None] = lambda: None) -> BatchJournal:
    """Open a journal as a batch does."""
    return await BatchJournal.open(path, graph=GRAPH, origin=ORIGIN, leftover=leftover)


async def filled(path: Path, rows: int = 5) -> BatchJournal:
    """Open a journal with some rows that have workflows."""
    journal = await opened(path)
    for number in range(rows):
        await journal.put(
            JournalEntry(
                key=f"k{number}",
                position=number,
                digest="d" * 64,
                state=JournalState.SUBMITTED,
                name=f"k{number}-00112233",
                sent_at="2024-01-15T10:30:00+00:00",
                id=f"550e8400-e29b-41d4-a716-44665544000{number % 10}",
                created_at="2024-01-15T10:30:01+00:00",
            )
        )
    return journal


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return a journal of five rows that was closed."""

    path = tmp_path_factory.mktemp("journal") / "batch.db"

    async def make() -> None:
        await (await filled(path)).close()

    asyncio.run(make())
    return path.read_bytes()


COLUMNS = ["position", "digest", "state", "name", "sent_at", "id", "created_at", "status", "error", "paths", "mark"]
VALUES = ["'planned'", "'x'", "5", "-1", "9e999", "9223372036854775807", "x'ff'", "CAST(x'ff00' AS TEXT)"]

# SQL that damages a journal, and what the error has to say besides the file.
DAMAGE = {
    "all-planned": ("UPDATE entries SET state = 'planned', id = '', name = ''", "'k0'"),
    "other-key": ("UPDATE entries SET key = 'k9' WHERE key = 'k3'", "'k9'"),
    "key-of-bytes": ("UPDATE entries SET key = x'6b39' WHERE key = 'k3'", "as it was written"),
    "key-number": ("UPDATE entries SET key = 3 WHERE key = 'k3'", "'3'"),
    "deleted": ("DELETE FROM entries WHERE key = 'k3'", "has 4 rows, but was written with '5'"),
    "all-deleted": ("DELETE FROM entries", "has 0 rows, but was written with '5'"),
    "copied": ("INSERT INTO entries SELECT 'k7', position, digest, state, name, sent_at, id, created_at, status, error,"
               " paths, mark FROM entries WHERE key = 'k3'", "'k7'"),
    "no-count": ("DELETE FROM meta WHERE key = 'entries'", "was written with None"),
    "count": ("UPDATE meta SET value = 'many' WHERE key = 'entries'", "was written with 'many'"),
    "no-format": ("DELETE FROM meta WHERE key = 'format'", "no journal of a batch that this version can read"),
    "no-meta": ("DELETE FROM meta", "no journal of a batch that this version can read"),
    "no-graph": ("DELETE FROM meta WHERE key = 'graph'", "belongs to another graph"),
    "graph-of-bytes": ("UPDATE meta SET value = x'ff' WHERE key = 'graph'", "belongs to another graph"),
    "no-entries-table": ("DROP TABLE entries", "no journal of a batch"),
    "no-meta-table": ("DROP TABLE meta", "no journal of a batch"),
    "more-columns": ("ALTER TABLE entries ADD COLUMN more TEXT", "no journal of a batch"),
    "other-columns": ("ALTER TABLE entries RENAME COLUMN name TO title", "no journal of a batch"),
    "one-more-table": ("CREATE TABLE songs (title TEXT)", "no journal of a batch"),
    "a-trigger": ("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM entries; END", "no journal of a batch"),
    "a-view": ("CREATE VIEW v AS SELECT * FROM meta", "no journal of a batch"),
}  # fmt: skip


def change(path: Path, whole: bytes, statement: str) -> bytes:
    """Write the journal, change it as another program would, and return what the file is then."""
    path.write_bytes(whole)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(statement)
    database.close()
    return path.read_bytes()


@pytest.mark.parametrize("column", COLUMNS)
async def test_damaged_row(tmp_path: Path, whole: bytes, column: str) -> None:
    """A value that another program wrote into a row is refused with file and key, whatever it is."""
    path = tmp_path / "batch.db"
    for value in VALUES:
        changed = change(path, whole, f"UPDATE entries SET {column} = {value} WHERE key = 'k3'")
        for opening in (opened(path), asyncio.to_thread(Journal.open, path)):
            with pytest.raises(ConfigurationError, match=r"batch\.db.*'k3' is not as it was written"):
                await opening
        assert path.read_bytes() == changed


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damaged_content(tmp_path: Path, whole: bytes, kind: str) -> None:
    """Content that another program changed is refused with the file and, where a row is damaged, its key."""
    path = tmp_path / "batch.db"
    statement, text = DAMAGE[kind]
    changed = change(path, whole, statement)
    with pytest.raises(ConfigurationError) as caught:
        await opened(path)
    assert str(path) in str(caught.value)
    assert text in str(caught.value)
    assert path.read_bytes() == changed


def cut(part: float) -> Callable[[bytes], bytes]:
    """Return what keeps a part of a file."""
    return lambda data: data[: int(len(data) * part)]


def overwritten(begin: float, data: bytes) -> Callable[[bytes], bytes]:
    """Return what writes over a place of a file."""

    def work(whole: bytes) -> bytes:
        start = int(len(whole) * begin)
        return whole[:start] + data + whole[start + len(data) :]

    return work


BYTES: dict[str, Callable[[bytes], bytes]] = {
    "half": cut(0.5),
    "one-page-less": lambda data: data[:-4096],
    "one-byte-less": lambda data: data[:-1],
    "a-header": lambda data: data[:100],
    "part-of-a-header": lambda data: data[:50],
    "no-header": overwritten(0.0, b"\0" * 100),
    "zeros": lambda data: b"\0" * len(data),
    "ones": lambda data: b"\xff" * len(data),
    "text": lambda data: b"buy milk\n" * 1000,
    "other-page-size": overwritten(0.0, b"SQLite format 3\0\x02\x00"),
    "zeros-in-the-last-page": overwritten(0.8, b"\0" * 1500),
    "garbage-in-the-schema": lambda data: data.replace(b"CREATE TABLE entries", b"\xa5" * 20),
    "garbage-in-the-rows": lambda data: data.replace(b"k3-0011", b"k3-0012"),
    "garbage-in-a-key": lambda data: data.replace(b"k3", b"zz"),
    "page-type": lambda data: data[:8192] + b"\x05" + data[8193:],
}


@pytest.mark.parametrize("kind", BYTES)
async def test_damaged_bytes(tmp_path: Path, whole: bytes, kind: str) -> None:
    """Bytes that a disk has lost are refused, with an error of ours that names the file."""
    path = tmp_path / "batch.db"
    damaged = BYTES[kind](whole)
    assert damaged != whole
    path.write_bytes(damaged)
    with pytest.raises(ConfigurationError) as caught:
        await opened(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged


async def killed(path: Path, *ends: str) -> Path:
    """Return what a kill leaves behind of a journal that is open: the file, and what else is asked for."""
    journal = await filled(path)
    left = path.with_name("left.db")
    for end in ("", *ends):
        left.with_name(left.name + end).write_bytes(path.with_name(path.name + end).read_bytes())
    await journal.close()
    return left


class TestLog:
    """The log beside a journal, which has its newest rows."""

    async def test_taken(self, tmp_path: Path) -> None:
        """With its log a journal that was killed is whole, for scripts and for the next batch."""
        left = await killed(tmp_path / "batch.db", "-wal")
        with Journal.open(left) as journal:
            assert journal.summary()["submitted"] == 5
        again = await opened(left)
        assert len(await again.entries(JournalState.SUBMITTED)) == 5
        await again.close()
        assert [name for name in os.listdir(tmp_path) if name.startswith("left")] == ["left.db"]

    async def test_missing(self, tmp_path: Path) -> None:
        """Without it a batch refuses, for rows would be made twice; a script reads all but the last few."""
        path = tmp_path / "batch.db"
        journal = await filled(path, 100)
        left = tmp_path / "left.db"
        left.write_bytes(path.read_bytes())
        await journal.close()
        with pytest.raises(ConfigurationError, match=r"its log 'left.db-wal' is missing or damaged"):
            await opened(left)
        with Journal.open(left) as reading:
            assert 90 <= reading.summary()["submitted"] <= 100
        with pytest.raises(ConfigurationError, match=r"its log 'left.db-wal' is missing or damaged"):
            await opened(left)

    @pytest.mark.parametrize("data", [b"", b"\0" * 5000, b"x" * 40])
    async def test_damaged(self, tmp_path: Path, data: bytes) -> None:
        """One that is empty or garbage is as good as missing."""
        left = await killed(tmp_path / "batch.db")
        (tmp_path / "left.db-wal").write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"left.db"):
            await opened(left)

    @pytest.mark.parametrize("place", [17, 26, 40, 5000, 0.3, 0.5, 0.7], ids=str)
    async def test_damaged_within(self, tmp_path: Path, place: float) -> None:
        """SQLite would read it up to the damage and forget the rows behind it, which would be made twice: refused."""
        left = await killed(tmp_path / "batch.db", "-wal")
        log = bytearray((tmp_path / "left.db-wal").read_bytes())
        log[int(place * len(log)) if place < 1 else int(place)] ^= 4
        (tmp_path / "left.db-wal").write_bytes(log)
        with pytest.raises(ConfigurationError, match=r"its log 'left.db-wal' is missing or damaged"):
            await opened(left)
        with Journal.open(left) as reading:
            assert reading.summary()["submitted"] < 5
        with pytest.raises(ConfigurationError, match=r"its log 'left.db-wal' is missing or damaged"):
            await opened(left)

    @pytest.mark.parametrize("cut", [1, 4100, 4121], ids=str)
    async def test_cut_short(self, tmp_path: Path, cut: int) -> None:
        """A last write that was cut off was told to no caller as durable: the rows before it are there."""
        left = await killed(tmp_path / "batch.db", "-wal")
        log = (tmp_path / "left.db-wal").read_bytes()
        (tmp_path / "left.db-wal").write_bytes(log[:-cut])
        again = await opened(left)
        assert len(await again.entries(JournalState.SUBMITTED)) == 4
        await again.close()

    async def test_kept_by_one_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A start that fails closes the file, which moves the log into it: that is no lost log for the next one."""
        left = await killed(tmp_path / "batch.db", "-wal")

        def in_use(self: JournalFile) -> None:
            raise ConfigurationError("in use")

        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "inspect", in_use)
            with pytest.raises(ConfigurationError, match="in use"):
                await opened(left)
        again = await opened(left)
        assert len(await again.entries(JournalState.SUBMITTED)) == 5
        await again.close()

    @pytest.mark.parametrize("there", [True, False])
    async def test_alone(self, tmp_path: Path, there: bool) -> None:
        """Beside a journal that is empty or missing it is asked about, not taken for a new batch."""
        left = await killed(tmp_path / "batch.db", "-wal")
        left.unlink()
        if there:
            left.touch()
        with pytest.raises(ConfigurationError, match=r"is (empty|missing), but 'left.db-wal' of it is there"):
            await opened(left)
        assert (tmp_path / "left.db-wal").stat().st_size > 0
        assert left.exists() == there


class TestFile:
    """What the file is to other programs."""

    async def test_mode(self, tmp_path: Path) -> None:
        """Its owner alone may read it, and its log; also one that was there, empty, before."""
        other = tmp_path / "other.db"
        other.touch(0o644)
        for path in (tmp_path / "batch.db", other):
            journal = await filled(path)
            for name in (path, path.with_name(path.name + "-wal")):
                assert stat.S_IMODE(name.stat().st_mode) == 0o600
            await journal.close()

    async def test_leftover(self, tmp_path: Path) -> None:
        """An empty file is asked about where something of its batch lies about; a new one is not."""
        path = tmp_path / "batch.db"
        await (await opened(path, lambda: "'out' holds files such as 'a-001.png'")).close()
        path.write_bytes(b"")
        with pytest.raises(ConfigurationError, match=r"is empty, but 'out' holds files such as 'a-001.png' of a batch"):
            await opened(path, lambda: "'out' holds files such as 'a-001.png'")
        assert path.read_bytes() == b""
        await (await opened(path)).close()

    async def test_no_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path of a process whose directory is gone leads nowhere."""

        def gone() -> str:
            raise FileNotFoundError(2, "No such file or directory")

        monkeypatch.setattr(os, "getcwd", gone)
        with pytest.raises(ConfigurationError, match=r"'batch.db' cannot be opened: .*No such file"):
            await opened(Path("batch.db"))
        with pytest.raises(ConfigurationError, match=r"'batch.db' cannot be opened: .*No such file"):
            Journal.open("batch.db")

    @pytest.mark.parametrize("how", ["removed", "replaced"])
    async def test_lost_in_use(self, tmp_path: Path, how: str) -> None:
        """A file that is removed or replaced while it is in use is told at the next step, before anything is sent."""
        path = tmp_path / "batch.db"
        journal = await filled(path)
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"other")
        with pytest.raises(ConfigurationError, match="was removed or replaced while it was in use"):
            await journal.put(JournalEntry(key="new", position=9, digest="d"))
        await journal.close()
        assert path.exists() == (how == "replaced")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    async def test_no_file(self, tmp_path: Path) -> None:
        """A pipe or a device is refused at once."""
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", Path(os.devnull), Path("a\0b"), tmp_path):
            with pytest.raises(ConfigurationError, match=r"cannot be (opened|used)"):
                await opened(path)


class TestReading:
    """Journals for scripts."""

    async def test_rows(self, tmp_path: Path) -> None:
        """A journal tells how many rows are in each state, and which."""
        path = tmp_path / "batch.db"
        journal = await filled(path, 3)
        await journal.put(JournalEntry(key="bad", position=1, digest="d", state=JournalState.FAILED, error="E: no"))
        await journal.close()
        with Journal.open(str(path)) as reading:
            assert reading.summary() == {
                "planned": 0,
                "submitting": 0,
                "submitted": 3,
                "cancelling": 0,
                "finished": 0,
                "downloaded": 0,
                "failed": 1,
            }
            assert [(row.key, row.error) for row in reading.rows("failed")] == [("bad", "E: no")]
            assert [row.key for row in reading.rows()] == ["k0", "bad", "k1", "k2"]
            with pytest.raises(ValueError, match="a row is planned, submitting"):
                reading.rows("done")
        reading.close()
        assert os.listdir(tmp_path) == ["batch.db"]

    def test_none(self, tmp_path: Path) -> None:
        """Where there is no journal none is made."""
        with pytest.raises(ConfigurationError, match="there is no journal"):
            Journal.open(tmp_path / "batch.db")
        (tmp_path / "empty.db").touch()
        with pytest.raises(ConfigurationError, match="is empty"):
            Journal.open(tmp_path / "empty.db")
        assert os.listdir(tmp_path) == ["empty.db"]

    async def test_in_use(self, tmp_path: Path) -> None:
        """A journal that a batch is using is not read, and one that is read is not used."""
        path = tmp_path / "batch.db"
        journal = await filled(path)
        with pytest.raises(ConfigurationError, match="is in use"):
            Journal.open(path)
        await journal.close()
        with Journal.open(path), pytest.raises(ConfigurationError, match="is in use"):
            await opened(path)


async def test_half_a_pair(tmp_path: Path) -> None:
    """What the service says may hold half a surrogate pair: it is written with an escape."""
    journal = await opened(tmp_path / "batch.db")
    entry = JournalEntry(key="k", position=0, digest="d", state=JournalState.FAILED, id="i", error="E: cut \ud83d")
    await journal.put(entry)
    found = await journal.get("k")
    assert found is not None
    assert found.error == "E: cut \\ud83d"
    await journal.close()
