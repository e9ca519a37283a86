"""SlotFile: files that are not to be trusted, and where they lie.

The layout is written down here once more: programs with another version of this package may use the same file.
"""

import asyncio
import math
import os
import shutil
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import FakeClock
from support.limiters import Crowd, turns

PERIOD = 10.0
LEASE = 3.25

# What may differ between event loops is in the conformance table.
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])

# magic, version, limit, period, boot, clock; a checksum of these follows.
CONSTANTS = struct.Struct("=8sIId16sI")
# Numbers after that, with a limit of 4: 8 that are shared, 3 for each slot; then 4 for each process that waited.
SHARED, LAST_SLOT, FIRST_MEMBER = range(8, 16), range(25, 28), range(28, 32)


@pytest.fixture
def clock() -> FakeClock:
    """Fire timers in time."""
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a file in a directory that is not there yet."""
    return tmp_path / "new" / "slots"


async def make(path: Path, clock: FakeClock) -> None:
    """Make a file and use it once."""
    limiter = FileLimiter(path, limit=4, period=PERIOD, clock=clock)
    (await limiter.acquire()).arrived()
    await limiter.aclose()


def content(path: Path) -> bytes | None:
    """Read a file, if it is one."""
    return path.read_bytes() if path.is_file() else None


def size(path: Path) -> int:
    """Return the size of a file."""
    return path.stat().st_size


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Change bytes in the middle."""
    changed = bytearray(path.read_bytes())
    changed[offset : offset + len(data)] = data
    path.write_bytes(changed)


def constants(path: Path) -> tuple[bytes, int, int, float, bytes, int]:
    """Read what was written once."""
    read: tuple[bytes, int, int, float, bytes, int] = CONSTANTS.unpack_from(path.read_bytes())
    return read


def restamp(path: Path, version: int = 2, boot: bytes | None = None, clock: int = 0) -> None:
    """Let the file look as if it was made by another version, before the last boot, or on another clock."""
    magic, _, limit, period, own_boot, _ = constants(path)
    stamped = CONSTANTS.pack(magic, version, limit, period, own_boot if boot is None else boot, clock)
    overwrite(path, 0, stamped + struct.pack("=I", crc32(stamped)))


def say_boot_id(monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    """Let the kernel give this number for the boot, or none at all."""
    read_text = Path.read_text

    def read(path: Path, *options: str) -> str:
        if path.name != "boot_id":
            return read_text(path, *options)
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)


def test_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It lies in the user's cache directory, and is another for each limit and machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    path = FileLimiter().path
    assert path.parent == tmp_path / "comfycontrol"
    assert path.name.startswith("api.comfycontrol.app-40-per-10s-")
    assert FileLimiter(limit=41).path != path
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert FileLimiter().path.parent.parent == Path.home() / ".cache"
    monkeypatch.setattr("sys.platform", "darwin")
    assert FileLimiter().path.parent.parent == Path.home() / "Library" / "Caches"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert FileLimiter().path.parent.parent == tmp_path / "local"
    monkeypatch.setattr("platform.node", lambda: "another")
    assert FileLimiter().path.name != path.name


async def test_file_is_the_users(path: Path, clock: FakeClock) -> None:
    """No other user can read or write it, and nothing is made before it is used."""
    limiter = FileLimiter(path, limit=4, clock=clock)
    assert not path.parent.exists()
    (await limiter.acquire()).arrived()
    assert mode(path) == 0o600
    assert repr(limiter) == "<FileLimiter 4 per 10 s, 0 waiting>"


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "another program's": (lambda path: path.write_bytes(b"#!/bin/sh\necho hello\n"), "not a file of this limiter"),
    "zeros of another length": (lambda path: path.write_bytes(bytes(100)), "not a file of this limiter"),
    "a directory": (lambda path: path.mkdir(), "cannot be used: Is a directory"),
    "another limit": (lambda path: None, "for 4 requests per 10 s, not 40 per 10 s"),
}


@on_one_loop
@pytest.mark.parametrize("case", REFUSED)
async def test_refused_files(path: Path, clock: FakeClock, case: str) -> None:
    """What is not ours is left as it is, and the error says why."""
    path.parent.mkdir()
    spoil, message = REFUSED[case]
    spoil(path)
    if case == "another limit":
        await make(path, clock)
    before = content(path)
    limiter = FileLimiter(path, clock=clock)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=message):
            await limiter.acquire()
        with pytest.raises(ConfigurationError, match=message):
            limiter.snapshot()
    assert content(path) == before


@on_one_loop
async def test_another_period_version_or_clock(path: Path, clock: FakeClock) -> None:
    """Each is refused with both values, and the file is left as it is."""
    await make(path, clock)
    with pytest.raises(ConfigurationError, match="for 4 requests per 10 s, not 4 per 20 s"):
        await FileLimiter(path, limit=4, period=20.0, clock=clock).acquire()
    for version, own_clock, message in ((2, 1, "another clock"), (3, 0, "of version 3, not 2")):
        restamp(path, version, clock=own_clock)
        before = content(path)
        limiter = FileLimiter(path, limit=4, clock=clock)
        with pytest.raises(ConfigurationError, match=message):
            limiter.snapshot()
        with pytest.raises(ConfigurationError, match=message):
            await limiter.acquire()
        assert content(path) == before


@on_one_loop
@pytest.mark.parametrize("place", ["/proc/slots", "/dev/null", "/dev/null/slots"])
async def test_unusable_paths(clock: FakeClock, place: str) -> None:
    """A path where no file can be is a clear error when the limiter is first used."""
    limiter = FileLimiter(place, clock=clock)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        await limiter.acquire()
    limiter.cool_down(3.0)  # is not lost on this process


TORN: dict[str, Callable[[Path], object]] = {
    "cut off": lambda path: os.truncate(path, 100),
    "cut off in the header": lambda path: os.truncate(path, 20),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "killed while it was made": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "bad checksum": lambda path: overwrite(path, 20, b"\x01\x02\x03"),
}


@on_one_loop
@pytest.mark.parametrize("case", TORN)
async def test_torn_files(path: Path, clock: FakeClock, case: str) -> None:
    """A file of ours that cannot be trusted is written again, with the window charged."""
    await make(path, clock)
    before = size(path)
    TORN[case](path)
    limiter = FileLimiter(path, limit=4, clock=clock)
    shown = limiter.snapshot()
    assert (shown.used, shown.cooldown) == (4, 0.0)
    assert shown.next_free_in >= PERIOD
    assert size(path) == before
    await clock.advance(PERIOD + 1.1)
    (await limiter.acquire()).arrived()


IMPOSSIBLE = {
    "too far away": 1e9,
    "beyond all": 1e300,
    "endless": math.inf,
    "below all": -math.inf,
    "negative": -1.0,
    "no number": math.nan,
}


@on_one_loop
@pytest.mark.parametrize("in_use", [False, True], ids=["before it is opened", "while it is in use"])
@pytest.mark.parametrize("case", IMPOSSIBLE)
async def test_impossible_numbers(path: Path, clock: FakeClock, case: str, in_use: bool) -> None:
    """What cannot be true, wherever it stands, costs one span at the most, and all go on."""
    await make(path, clock)
    whole = path.with_name("whole")
    shutil.copyfile(path, whole)
    for place in (*SHARED, *LAST_SLOT):
        shutil.copyfile(whole, path)
        limiter = FileLimiter(path, limit=4, clock=clock)
        if in_use:
            (await limiter.acquire()).arrived()
        overwrite(path, 8 * place, struct.pack("=d", IMPOSSIBLE[case]))
        assert limiter.snapshot().next_free_in <= PERIOD + 0.01, place
        tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
        await clock.advance(4 * PERIOD)
        assert all(task.done() for task in tasks), place
        for task in tasks:
            (await task).arrived()
        await limiter.aclose()


@on_one_loop
@pytest.mark.parametrize("case", IMPOSSIBLE)
async def test_impossible_members(path: Path, clock: FakeClock, case: str) -> None:
    """Nonsense in the record of one of two processes that wait keeps neither from going on."""
    for place in FIRST_MEMBER:
        limiters = [FileLimiter(path, limit=4, clock=clock) for _ in range(2)]
        crowds = [Crowd(limiter, clock.monotonic) for limiter in limiters]
        for number in range(4):
            for crowd in crowds:
                crowd.send(number)
        await turns()
        overwrite(path, 8 * place, struct.pack("=d", IMPOSSIBLE[case]))
        await clock.advance(PERIOD + 0.2)
        assert [crowd.order for crowd in crowds] == [[0, 1, 2, 3]] * 2, place
        for limiter in limiters:
            await limiter.aclose()
        remove(path)


@on_one_loop
async def test_reboot(path: Path, clock: FakeClock) -> None:
    """Stamps from before a reboot are dropped; in the same boot a clock that is ahead is refused."""
    old = FileLimiter(path, limit=4, clock=clock)
    for _ in range(4):
        (await old.acquire()).arrived()
    old.cool_down(100.0)
    await old.aclose()
    restamp(path, boot=b"another boot's  ")
    new = FileLimiter(path, limit=4, clock=clock)
    assert (new.snapshot().used, new.snapshot().cooldown) == (0, 0.0)
    for _ in range(4):
        (await new.acquire()).arrived()
    await new.aclose()
    earlier = FileLimiter(path, limit=4, clock=FakeClock(10.0))
    with pytest.raises(ConfigurationError, match="clock is ahead"):
        earlier.snapshot()
    with pytest.raises(ConfigurationError, match="clock is ahead"):
        await earlier.acquire()


@on_one_loop
async def test_boot_id(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file names the boot in which it was made, as the kernel does."""
    say_boot_id(monkeypatch, "1f1e1d1c-1b1a-1918-1716-151413121110\n")
    await make(path, clock)
    assert constants(path)[4] == bytes(range(31, 15, -1))


@on_one_loop
@pytest.mark.parametrize("text", [None, "nonsense"])
async def test_machine_without_a_boot_id(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """There a reboot is seen by the clock, which went back."""
    say_boot_id(monkeypatch, text)
    await make(path, clock)
    assert constants(path)[4] == bytes(16)
    assert FileLimiter(path, limit=4, clock=clock).snapshot().used == 1
    assert FileLimiter(path, limit=4, clock=FakeClock(10.0)).snapshot().used == 0


async def test_removed_file(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """When the file is removed, all meet in the new one, with the window charged."""
    limiters = [FileLimiter(path, limit=4, clock=clock) for _ in range(2)]
    for limiter in limiters:
        (await limiter.acquire()).arrived()
    held = await limiters[0].acquire()
    remove(path)
    await clock.advance(1.1)
    tasks = [asyncio.create_task(limiter.acquire()) for limiter in limiters]
    await clock.advance(PERIOD)
    assert not any(task.done() for task in tasks)
    held.arrived()
    await clock.advance(2 * LEASE)
    for task in tasks:
        (await task).arrived()
    assert limiters[0].snapshot().used == 3 == limiters[1].snapshot().used  # the late answer is charged in the new one
    assert "was removed or replaced" in caplog.text
