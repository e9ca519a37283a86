"""The journal of a batch: durable, locked, and only ever its own batch's."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from comfycontrol_async import ConfigurationError
from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._journal_file import JournalFile

GRAPH = "digest of a graph"
ORIGIN = "https://api.test"


async def opened(path: Path, graph: str = GRAPH, origin: str = ORIGIN) -> BatchJournal:
    """Open a journal."""
    return await BatchJournal.open(path, graph=graph, origin=origin)


def entry(key: str = "cat", **options: object) -> JournalEntry:
    """Make an entry."""
    return JournalEntry(key=key, position=3, digest="d", **options)  # type: ignore[arg-type] # the tests say what they set


async def test_entries(tmp_path: Path) -> None:
    """What is put is there after the file is opened again, in the order of rows."""
    journal = await opened(tmp_path / "new" / "batch.db")
    full = entry(
        "käse 'n' \"quotes\"",
        state=JournalState.DOWNLOADED,
        name="n",
        sent_at="2024-01-15T10:30:00+00:00",
        id="i",
        created_at="2024-01-15T10:30:01+00:00",
        status="completed",
        error="e",
        paths=("a/1.png", "a/ü.png"),
    )
    await journal.put(full)
    await journal.put(entry("b", state=JournalState.SUBMITTING))
    await journal.put(JournalEntry(key="a", position=9, digest="d", state=JournalState.SUBMITTING))
    await journal.put(entry("b", state=JournalState.SUBMITTING, name="changed"))
    await journal.close()
    await journal.close()
    again = await opened(tmp_path / "new" / "batch.db")
    assert await again.get(full.key) == full
    assert await again.get("absent") is None
    assert [(it.key, it.name) for it in await again.entries(JournalState.SUBMITTING)] == [("b", "changed"), ("a", "")]
    assert await again.entries(JournalState.FAILED) == []
    await again.close()


async def test_durable(tmp_path: Path) -> None:
    """The file is in WAL mode, every change is synced, and what was put outlives a process that was killed."""
    path = tmp_path / "batch.db"
    journal = await opened(path)
    assert journal._file is not None
    database = journal._file._database
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    await journal.put(entry())
    # What a kill leaves behind: the file and its log as they are now.
    for end in ("", "-wal"):
        (tmp_path / f"left.db{end}").write_bytes((tmp_path / f"batch.db{end}").read_bytes())
    await journal.close()
    left = await opened(tmp_path / "left.db")
    assert await left.get("cat") == entry()
    await left.close()


async def test_off_the_loop(tmp_path: Path) -> None:
    """The event loop goes on while the disk is slow."""
    journal = await opened(tmp_path / "batch.db")
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)

    working = asyncio.create_task(journal._run(slow))
    await asyncio.sleep(0.01)
    assert not working.done()
    release.set()
    await working
    await journal.close()


async def test_cancelled_put(tmp_path: Path) -> None:
    """A put that is cancelled is finished all the same, before the cancelled one goes on."""
    journal = await opened(tmp_path / "batch.db")
    putting = asyncio.create_task(journal.put(entry()))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await journal.get("cat") == entry()
    await journal.close()


@pytest.mark.parametrize("turns", range(3))
async def test_cancelled_again_and_again(tmp_path: Path, turns: int) -> None:
    """Opening that is cancelled leaves the file closed, however often it is cancelled."""
    path = tmp_path / "batch.db"
    opening = asyncio.create_task(opened(path))
    for _ in range(4):
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await (await opened(path)).close()


class TestRefused:
    """Files that are not for this batch."""

    async def test_in_use(self, tmp_path: Path) -> None:
        """A journal that is open is refused to others, in this process and in another one."""
        path = tmp_path / "batch.db"
        journal = await opened(path)
        with pytest.raises(ConfigurationError, match="is in use"):
            await opened(path)
        script = (
            "import asyncio, sys\n"
            "from comfycontrol_async.batch._journal import BatchJournal\n"
            "asyncio.run(BatchJournal.open(sys.argv[1], graph=sys.argv[2], origin=sys.argv[3]))\n"
        )
        command = [sys.executable, "-c", script, str(path), GRAPH, ORIGIN]
        other = await asyncio.to_thread(lambda: subprocess.run(command, capture_output=True, text=True, check=False))
        assert other.returncode == 1
        assert "is in use: let the other batch end" in other.stderr
        await journal.put(entry())
        await journal.close()
        await (await opened(path)).close()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            pytest.param({"graph": "another"}, "belongs to another graph: use another file", id="graph"),
            pytest.param({"origin": "https://x.test"}, r"another API address \(https://api.test\)", id="origin"),
        ],
    )
    async def test_other_batch(self, tmp_path: Path, options: dict[str, str], text: str) -> None:
        """A journal of another graph or API address is refused with a text that says so, and stays as it is."""
        path = tmp_path / "batch.db"
        await (await opened(path)).close()
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match=text):
            await opened(path, **options)
        assert path.read_bytes() == before

    async def test_no_database(self, tmp_path: Path) -> None:
        """A file that is no database is refused and stays as it is."""
        path = tmp_path / "notes.txt"
        path.write_text("buy milk\n" * 1000)
        with pytest.raises(ConfigurationError, match="is no journal of a batch"):
            await opened(path)
        assert path.read_text() == "buy milk\n" * 1000
        assert os.listdir(tmp_path) == ["notes.txt"]

    @pytest.mark.parametrize(
        "layout",
        [
            pytest.param("CREATE TABLE songs (title TEXT)", id="other-tables"),
            pytest.param("CREATE TABLE meta (a, b, c)", id="a-meta-of-its-own"),
            pytest.param("CREATE TABLE meta (a, b, c); CREATE TABLE entries (x)", id="both-tables-of-its-own"),
        ],
    )
    async def test_foreign_database(self, tmp_path: Path, layout: str) -> None:
        """Another program's database is refused and stays as it is, its journal mode too."""
        path = tmp_path / "songs.db"
        with sqlite3.connect(path) as database:
            database.executescript(layout + "; INSERT INTO " + layout.split()[2] + " DEFAULT VALUES")
        database.close()
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match="is no journal of a batch"):
            await opened(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(("number", "text"), [(1, "begun by version 0.1.0"), (3, "that this version can read")])
    async def test_other_format(self, tmp_path: Path, number: int, text: str) -> None:
        """A journal of an earlier or later version is refused."""
        path = tmp_path / "batch.db"
        await (await opened(path)).close()
        with sqlite3.connect(path) as database:
            database.execute("UPDATE meta SET value = ? WHERE key = 'format'", (f"comfycontrol_async batch {number}",))
        database.close()
        with pytest.raises(ConfigurationError, match=text):
            await opened(path)

    async def test_paths(self, tmp_path: Path) -> None:
        """A path that no file can be at is refused, with the path."""
        (tmp_path / "file").write_text("")
        for path in (tmp_path, tmp_path / "file" / "batch.db", Path("/proc/nowhere/batch.db")):
            with pytest.raises(ConfigurationError, match=r"cannot be (opened|used)"):
                await opened(path)

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anything")
    async def test_read_only(self, tmp_path: Path) -> None:
        """A file that cannot be written is refused."""
        path = tmp_path / "batch.db"
        await (await opened(path)).close()
        path.chmod(0o400)
        with pytest.raises(ConfigurationError, match="cannot be"):
            await opened(path)

    async def test_empty_file(self, tmp_path: Path) -> None:
        """An empty file, as `mktemp` makes it, becomes a journal."""
        path = tmp_path / "batch.db"
        path.touch()
        journal = await opened(path)
        await journal.put(entry())
        await journal.close()

    async def test_disk_full(self, tmp_path: Path) -> None:
        """A put that cannot be written is a ConfigurationError that names the file."""
        journal = await opened(tmp_path / "batch.db")
        assert journal._file is not None
        database = journal._file._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ConfigurationError, match=r"batch\.db.*full"):
            await journal.put(entry("x" * 100_000))
        await journal.close()

    async def test_closed_on_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the log has no room to grow, it is moved into the file first, which then says that it is closed."""
        path = tmp_path / "batch.db"
        journal = await opened(path)
        await journal.put(entry())
        put = JournalFile._set

        def full(self: JournalFile, key: str, value: str) -> None:
            if Path(f"{path}-wal").stat().st_size:
                raise sqlite3.OperationalError("database or disk is full")
            put(self, key, value)

        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "_set", full)
            await journal.close()
        again = await opened(path)
        assert await again.get("cat") == entry()
        await again.close()

    async def test_closed(self, tmp_path: Path) -> None:
        """A closed journal says so."""
        journal = await opened(tmp_path / "batch.db")
        await journal.close()
        with pytest.raises(ConfigurationError, match="is closed"):
            await journal.get("cat")
