"""SlotFile: files that are not to be trusted, and where they lie."""

import asyncio
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits import _machine, _slot_file
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import FakeClock

PERIOD = 10.0
LEASE = 3.25


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


async def test_another_period_version_or_clock(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused with both values."""
    await make(path, clock)
    with pytest.raises(ConfigurationError, match="for 4 requests per 10 s, not 4 per 20 s"):
        await FileLimiter(path, limit=4, period=20.0, clock=clock).acquire()
    with monkeypatch.context() as patch:
        patch.setattr(_slot_file, "clock_id", lambda: 1)
        with pytest.raises(ConfigurationError, match="another clock"):
            await FileLimiter(path, limit=4, clock=clock).acquire()
    monkeypatch.setattr(_slot_file, "VERSION", 3)
    with pytest.raises(ConfigurationError, match="of version 2, not 3"):
        await FileLimiter(path, limit=4, clock=clock).acquire()


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


@pytest.mark.parametrize("case", TORN)
async def test_torn_files(path: Path, clock: FakeClock, case: str) -> None:
    """A file of ours that cannot be trusted is written anew, with the window charged."""
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


DOUBLE = struct.Struct("=d")
IMPOSSIBLE: dict[str, tuple[int, float]] = {
    "moment too far away": (_slot_file.SLOTS, 1e9),
    "endless moment": (_slot_file.SLOTS, float("inf")),
    "no number": (_slot_file.SLOTS, float("nan")),
    "gate too far away": (_slot_file.GATE, 1e12),
    "gate is no number": (_slot_file.GATE, float("nan")),
    "pace too far away": (_slot_file.READY_AT, 1e9),
    "spread for ever": (_slot_file.SPREAD_UNTIL, float("inf")),
    "contended for ever": (_slot_file.CONTENDED, float("nan")),
    "too many members": (_slot_file.RECORDS, 1e6),
    "fewer members than none": (_slot_file.RECORDS, -1.0),
    "serial beyond all": (_slot_file.SLOTS + 2, 1e300),
    "serial is no number": (_slot_file.SLOTS + 2, float("nan")),
    "first serial below all": (_slot_file.FIRST_SERIAL, float("-inf")),
}


@pytest.mark.parametrize("in_use", [False, True], ids=["before it is opened", "while it is in use"])
@pytest.mark.parametrize("case", IMPOSSIBLE)
async def test_impossible_numbers(path: Path, clock: FakeClock, case: str, in_use: bool) -> None:
    """What cannot be true costs one span at the most, and all go on."""
    place, value = IMPOSSIBLE[case]
    limiter = FileLimiter(path, limit=4, clock=clock)
    if in_use:
        (await limiter.acquire()).arrived()
    else:
        await make(path, clock)
    overwrite(path, 8 * place, DOUBLE.pack(value))
    assert limiter.snapshot().next_free_in <= PERIOD + 0.01
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await clock.advance(4 * PERIOD)
    for task in tasks:
        (await task).arrived()
    await limiter.aclose()


async def test_reboot(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps from before a reboot are dropped, by the boot's id or, where there is none, by a clock that went back."""
    old = FileLimiter(path, limit=4, clock=clock)
    for _ in range(4):
        (await old.acquire()).arrived()
    old.cool_down(100.0)
    await old.aclose()
    monkeypatch.setattr(_slot_file, "boot_id", lambda: b"another boot's  ")
    new = FileLimiter(path, limit=4, clock=clock)
    assert (new.snapshot().used, new.snapshot().cooldown) == (0, 0.0)
    for _ in range(4):
        (await new.acquire()).arrived()
    await new.aclose()
    earlier = FakeClock(10.0)
    with pytest.raises(ConfigurationError, match="clock is ahead"):
        await FileLimiter(path, limit=4, clock=earlier).acquire()
    remove(path)
    monkeypatch.setattr(_slot_file, "boot_id", lambda: bytes(16))
    await make(path, clock)
    assert FileLimiter(path, limit=4, clock=clock).snapshot().used == 1
    assert FileLimiter(path, limit=4, clock=earlier).snapshot().used == 0


def test_boot_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the kernel's, or nothing where there is none."""
    file = tmp_path / "boot_id"
    monkeypatch.setattr(_machine, "_BOOT_ID", file)
    assert _machine.boot_id() == bytes(16)
    file.write_text("0f0e0d0c-0b0a-0908-0706-050403020100\n")
    assert _machine.boot_id() == bytes(range(15, -1, -1))
    file.write_text("nonsense")
    assert _machine.boot_id() == bytes(16)


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
