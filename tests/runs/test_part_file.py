"""Files written aside: whole or absent under their name, never mixed, and nothing is left behind."""

import asyncio
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async import DownloadError
from comfycontrol_async.runs import _part_file
from comfycontrol_async.runs._part_file import PartFile, in_thread, sweep, written_aside
from support.services import names_in


async def write(target: Path, content: bytes, *, overwrite: bool = False, pieces: int = 1) -> None:
    """Write a file as a transfer does."""
    async with written_aside(target, overwrite=overwrite) as part:
        for start in range(0, len(content), -(-len(content) // pieces)):
            await part.write(content[start : start + -(-len(content) // pieces)])


async def test_written(tmp_path: Path) -> None:
    """The file has its content, the rights that the process gives new files, and nothing lies beside it."""
    await write(tmp_path / "new" / "a.png", b"content", pieces=3)
    assert (tmp_path / "new" / "a.png").read_bytes() == b"content"
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "new" / "a.png").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "plain").stat().st_mode
    )
    assert names_in(tmp_path / "new") == ["a.png"]


async def test_large(tmp_path: Path) -> None:
    """What is larger than one lot is written in order."""
    content = os.urandom(9_000_000)
    await write(tmp_path / "a", content, pieces=37)
    assert (tmp_path / "a").read_bytes() == content


async def test_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that writes less than it was given is given the rest."""
    part = PartFile(tmp_path / "a")
    part.open()
    real = part._opened

    class Reluctant:
        def write(self, data: memoryview) -> int:
            return real.write(data[:3])

        def fileno(self) -> int:
            return real.fileno()

    monkeypatch.setattr(part, "_file", Reluctant())
    part.write([b"0123", b"456789"])
    monkeypatch.setattr(part, "_file", real)
    part.finish(overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"0123456789"


async def test_rewound(tmp_path: Path) -> None:
    """What begins again holds nothing of before, written or gathered."""
    async with written_aside(tmp_path / "a", overwrite=False) as part:
        await part.write(b"x" * 5_000_000)
        await part.write(b"x")
        await part.rewind()
        await part.write(b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


async def test_names_of_their_own(tmp_path: Path) -> None:
    """Every transfer has a random, hidden name in the target's directory, however long the target's is."""
    parts = [PartFile(tmp_path / ("x" * 255)) for _ in range(1000)]
    assert len({part._path for part in parts}) == 1000
    assert {part._path.parent for part in parts} == {tmp_path}
    assert all(part._path.name.startswith(".") and part._path.name.endswith(".part") for part in parts)
    await write(tmp_path / ("x" * 255), b"content")


@pytest.mark.parametrize("kind", ["link", "file", "directory", "nowhere"])
def test_made_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What stands at the name of its own, a link above all, is neither followed nor used nor removed."""
    (tmp_path / "victim").write_text("precious")
    part = PartFile(tmp_path / "a")
    makers: dict[str, Callable[[], object]] = {
        "link": lambda: part._path.symlink_to(tmp_path / "victim"),
        "nowhere": lambda: part._path.symlink_to(tmp_path / "new"),
        "file": lambda: part._path.write_text("mine"),
        "directory": part._path.mkdir,
    }
    makers[kind]()
    with pytest.raises(FileExistsError):
        part.open()
    part.discard()
    assert (tmp_path / "victim").read_text() == "precious"
    assert os.path.lexists(part._path)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
@pytest.mark.parametrize("moment", ["holds it", "has removed it"])
async def test_swept_while_it_was_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """A sweep that comes between the creation of a part and its lock costs a new name, and nothing else."""
    lock, seen = _part_file._lock, []

    def swept_at_first(descriptor: int) -> None:
        seen.append(names_in(tmp_path)[-1])
        if len(seen) == 1:
            (tmp_path / seen[0]).unlink()
            if moment == "holds it":
                raise BlockingIOError
        lock(descriptor)

    monkeypatch.setattr(_part_file, "_lock", swept_at_first)
    await write(tmp_path / "a", b"content")
    assert len({*seen}) == 2
    assert names_in(tmp_path) == ["a"]


class TestTaken:
    """Targets that are there."""

    @pytest.mark.parametrize("kind", ["file", "link", "dangling"])
    async def test_not_overwritten(self, tmp_path: Path, kind: str) -> None:
        """What came while it was written stays; a link counts, wherever it points."""
        target = tmp_path / "a"

        async def write_while_it_is_taken() -> None:
            async with written_aside(target, overwrite=False) as part:
                await part.write(b"ours")
                if kind == "file":
                    target.write_text("theirs")
                else:
                    (tmp_path / "b").write_text("theirs")
                    target.symlink_to(tmp_path / ("b" if kind == "link" else "nothing"))

        with pytest.raises(DownloadError, match="exists") as caught:
            await write_while_it_is_taken()
        assert caught.value.path == str(target)
        assert len([name for name in names_in(tmp_path) if name.endswith(".part")]) == 0
        if kind != "dangling":
            assert target.read_text() == "theirs"

    async def test_link_is_replaced_not_followed(self, tmp_path: Path) -> None:
        """With `overwrite` a link at the target is replaced by the file, and what it led to stays."""
        (tmp_path / "victim").write_text("precious")
        (tmp_path / "a").symlink_to(tmp_path / "victim")
        await write(tmp_path / "a", b"ours", overwrite=True)
        assert (tmp_path / "victim").read_text() == "precious"
        assert not (tmp_path / "a").is_symlink()

    @pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
    @pytest.mark.parametrize("taken", [False, True])
    async def test_without_hard_links(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, taken: bool
    ) -> None:
        """A file system without hard links gives the same: a free name is taken, another is not."""

        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", refuse)
        target = tmp_path / "a"
        if not taken:
            await write(target, b"ours")
            assert target.read_bytes() == b"ours"
        else:
            target.write_text("theirs")
            with pytest.raises(DownloadError, match="exists"):
                await write(target, b"ours")
            assert target.read_text() == "theirs"
        assert names_in(tmp_path) == ["a"]

    async def test_windows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On Windows the rename itself refuses a name that is taken."""
        renamed = []
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(os, "rename", lambda part, target: renamed.append((part.name, target.name)))
        _part_file._rename_to_new(tmp_path / "p", tmp_path / "a")
        assert renamed == [("p", "a")]


class TestBad:
    """Paths that cannot be written."""

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            pytest.param("zero\0", "null", id="zero-byte"),
            pytest.param("half\ud800", "surrogate", id="surrogate"),
            pytest.param("x" * 300, "too long", id="too-long"),
            pytest.param("file/below", "its directory is a file", id="in-a-file"),
            pytest.param("file/deep/below", "Not a directory", id="below-a-file"),
            pytest.param("directory", "it is a directory", id="directory"),
            pytest.param("pipe", "it is a device, a pipe or a socket", id="pipe"),
        ],
    )
    @pytest.mark.parametrize("overwrite", [False, True])
    async def test_paths(self, tmp_path: Path, path: str, reason: str, overwrite: bool) -> None:
        """An error of ours names the path and why; nothing is there that was not."""
        (tmp_path / "file").touch()
        (tmp_path / "directory").mkdir()
        if path == "pipe" and not hasattr(os, "mkfifo"):
            pytest.skip("needs named pipes")
        (getattr(os, "mkfifo", None) or Path.touch)(tmp_path / "pipe")
        with pytest.raises(DownloadError) as caught:
            await write(tmp_path / path, b"x", overwrite=overwrite)
        assert reason in caught.value.message
        assert caught.value.path == str(tmp_path / path)
        assert names_in(tmp_path) == ["directory", "file", "pipe"]

    async def test_body_fails(self, tmp_path: Path) -> None:
        """Whatever goes wrong while it is written goes on, and nothing is left."""

        async def fail() -> None:
            async with written_aside(tmp_path / "a", overwrite=False) as part:
                await part.write(b"x" * 2_000_000)
                raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            await fail()
        assert names_in(tmp_path) == []


class TestCancelled:
    """Cancellation comes while a thread works."""

    async def test_waits_for_the_thread(self) -> None:
        """However often it is cancelled, it stays until the thread has ended, and is cancelled then."""
        begun, go_on = threading.Event(), threading.Event()
        done = []

        def work() -> None:
            begun.set()
            go_on.wait(10)
            done.append(True)

        task = asyncio.create_task(in_thread(Path("a"), work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == [True]

    @pytest.mark.parametrize("turns", range(0, 24, 2))
    async def test_nothing_is_left(self, tmp_path: Path, turns: int) -> None:
        """At whatever moment it comes, the file is whole or absent, and no other one is there."""
        content = os.urandom(10_000_000)
        task = asyncio.create_task(write(tmp_path / "a", content, pieces=5))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert names_in(tmp_path) in ([], ["a"])
        assert names_in(tmp_path) == [] or (tmp_path / "a").read_bytes() == content


def test_sweep(tmp_path: Path) -> None:
    """What a killed process left behind is removed, also in folders below; what is written now or not ours stays."""
    (tmp_path / "a").mkdir()
    for name in (".0123456789abcdef.part", "a/.0123456789abcdee.part", ".hidden.part", "0123456789abcdef.part"):
        (tmp_path / name).write_bytes(b"left")
    (tmp_path / ".00112233445566ff.part").symlink_to(tmp_path / ".hidden.part")
    part = PartFile(tmp_path / "whole.png")
    part.open()
    part.write([b"whole"])
    sweep(tmp_path)
    part.finish(overwrite=False)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".00112233445566ff.part",
        ".hidden.part",
        "0123456789abcdef.part",
        "a",
        "whole.png",
    ]
    assert (tmp_path / "whole.png").read_bytes() == b"whole"
