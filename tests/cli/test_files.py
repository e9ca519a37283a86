"""Files that commands write are whole, or not there."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async import ComfyControlError
from comfycontrol_async.cli._files import write_new, write_over
from comfycontrol_async.testing import LocalServer
from support.command_line import TXT2IMG, call, errors


@pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")
def test_written(tmp_path: Path) -> None:
    """A new file is made, another one replaced with its mode, through a link too; nothing else is left."""
    file, link = tmp_path / "x.py", tmp_path / "link.py"
    write_new(file, "é" * 100_000)
    assert file.read_text(encoding="utf-8") == "é" * 100_000
    file.chmod(0o640)
    link.symlink_to(file)
    write_over(link, "b")
    assert (file.read_text(), link.is_symlink(), stat.S_IMODE(file.stat().st_mode)) == ("b", True, 0o640)
    write_over(tmp_path / "new.py", "c")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.py", "new.py", "x.py"]


def test_exists(tmp_path: Path) -> None:
    """What must be new is not written over, and a directory is no file."""
    file = tmp_path / "x.json"
    file.write_text("a")
    with pytest.raises(ComfyControlError, match="File exists"):
        write_new(file, "b")
    assert file.read_text() == "a"
    with pytest.raises(ComfyControlError, match="cannot write"):
        write_over(tmp_path, "b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
def test_pipe(tmp_path: Path) -> None:
    """A pipe, such as /dev/stdout, is written to and stays one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_over(pipe, "a")
    assert os.read(reader, 9) == b"a"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("write", [write_new, write_over])
def test_full_disk(write: Callable[[Path, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk no half of a file is left, and the old one is as it was."""
    file = tmp_path / "x.py"
    if write is write_over:
        file.write_text("old")

    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ComfyControlError, match="No space left on device"):
        write(file, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == (["old"] if write is write_over else [])


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use can be removed")
async def test_working_directory_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory that was removed is found out before anything is submitted."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    place.rmdir()
    async with LocalServer() as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x")
        written = await call(server, "types", TXT2IMG, "-o", "x.py")
        assert not server.requests
    assert errors(result) == ["error: cannot write to 'outputs': the working directory was removed"]
    assert errors(written) == ["error: cannot write 'x.py': No such file or directory"]
