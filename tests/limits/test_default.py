"""The default limiter: one budget for each machine, API origin and proxy; or what the environment says."""

import asyncio
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, ConfigurationError, Limiter
from comfycontrol_async.limits import _default as module
from comfycontrol_async.limits._default import default_limiter, read_choice
from comfycontrol_async.limits._machine import default_path, remove_unused
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.limits.redis import RedisLimiter
from support.scripted import TOKEN

ORIGIN = "https://api.comfycontrol.app"
OTHER = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Begin without limiters, in an empty cache directory."""
    monkeypatch.setattr(module, "_limiters", {})
    monkeypatch.setattr(module, "_places", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path / "comfycontrol"


async def spend(count: int, origin: str = ORIGIN, proxy: str | None = None) -> int:
    """Send so many requests, and return how many slots are taken then."""
    limiter = default_limiter(origin, proxy)
    for _ in range(count):
        (await limiter.acquire()).arrived()
    return limiter.snapshot().used


def in_thread(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run to the end in another thread, with a loop of its own."""
    thread = threading.Thread(target=lambda: asyncio.run(coroutine))
    thread.start()
    thread.join()


# Who shares


async def test_one_for_an_origin_and_loop() -> None:
    """Two clients share the limiter itself; another server or another proxy has another budget."""
    assert default_limiter(ORIGIN) is default_limiter(ORIGIN)
    assert await spend(3) == 3
    assert await spend(1, OTHER) == 1
    assert await spend(1, ORIGIN, "http://proxy:3128") == 1
    assert await spend(1, ORIGIN, "http://user:secret@PROXY:3128") == 2


def test_outlives_its_loop() -> None:
    """The next `asyncio.run` knows what was spent."""
    assert asyncio.run(spend(1)) == 1
    assert asyncio.run(spend(1)) == 2


@pytest.mark.parametrize("choice", ["", "local", "file"])
async def test_two_loops_share_one_budget(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    """A loop in another thread has a limiter of its own, with the same slots."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", choice)
    assert await spend(3) == 3
    in_thread(spend(2))
    assert default_limiter(ORIGIN).snapshot().used == 5
    default_limiter(ORIGIN).cool_down(12.0)
    seen: list[float] = []

    async def look() -> None:
        seen.append(default_limiter(ORIGIN).snapshot().cooldown)

    in_thread(look())
    assert 10.0 < seen[0] <= 12.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child starts with the window charged, as the parent shares the address."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "local")
    asyncio.run(spend(1))
    child = os.fork()
    if child == 0:
        os._exit(0 if default_limiter(ORIGIN).snapshot().used == 40 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert default_limiter(ORIGIN).snapshot().used == 1


def test_client_without_a_limiter(cache: Path) -> None:
    """The client's default is the file of its server and proxy."""
    public, local = ComfyControl(TOKEN), ComfyControl(TOKEN, base_url=OTHER)
    limiters = [comfy.limiter for comfy in (public, local)]
    assert [type(limiter) for limiter in limiters] == [FileLimiter, FileLimiter]
    paths = [limiter.path for limiter in limiters if isinstance(limiter, FileLimiter)]
    assert paths[0] == FileLimiter().path
    assert {path.parent for path in paths} == {cache}
    assert paths[1].name.startswith("127.0.0.1-40-per-10s-")


# The environment

CHOICES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "local": ("local", ("local", "", ORIGIN, 40, 10.0)),
    "local, another rule": ("local?limit=20&period=2.5", ("local", "", ORIGIN, 20, 2.5)),
    "a path": (" file:/run/slots?limit=20 ", ("path", "/run/slots", "", 20, 10.0)),
    "redis": ("redis://:pw@host:6379/1?limit=20", ("redis", "redis://:pw@host:6379/1", ORIGIN, 20, 10.0)),
    "redis, key": (
        "rediss://host?key=k&ssl_cert_reqs=none",
        ("redis", "rediss://host?ssl_cert_reqs=none", "k", 40, 10.0),
    ),
    "unix": ("unix:///run/redis.sock?db=1", ("redis", "unix:///run/redis.sock?db=1", ORIGIN, 40, 10.0)),
}


@pytest.mark.parametrize("case", CHOICES)
def test_read_choice(case: str) -> None:
    """Each kind, with the rule and the key that it is given."""
    text, choice = CHOICES[case]
    assert read_choice(text, ORIGIN, None) == choice


def test_file_of_our_own(cache: Path) -> None:
    """`file` is the default file, and so is no text: another limit has another one."""
    kind, place, *_ = read_choice("file", ORIGIN, None)
    assert (kind, place) == ("file", str(default_path(40, 10.0)))
    assert read_choice("", ORIGIN, None)[1] == place
    assert Path(read_choice("file?limit=20", ORIGIN, None)[1]).parent == cache != Path(place)


@pytest.mark.parametrize(
    "text",
    [
        "memory",
        "local:/path",
        "local?key=k",
        "file?limit=0",
        "file?limit=1_0",
        "file?limit=",
        "file?period=inf",
        "file?limit=2.5",
        "file?sorts=1",
        "http://host",
        "redis:host",
    ],
)
def test_bad_choice(text: str) -> None:
    """What is not known is refused, with the variable's name."""
    with pytest.raises(ConfigurationError, match="COMFYCONTROL_LIMITER"):
        read_choice(text, ORIGIN, None)


def test_secret_is_not_shown() -> None:
    """An error does not show a URL: it may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        read_choice("http://:hunter2@host", ORIGIN, None)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("local", module.ProcessLimiter), ("file", FileLimiter), ("redis://127.0.0.1:1/0", RedisLimiter)],
    ids=["local", "file", "redis"],
)
def test_chosen_limiter(monkeypatch: pytest.MonkeyPatch, text: str, kind: type[Limiter]) -> None:
    """The environment's choice is what the client uses."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", text + "?limit=7")
    limiter = ComfyControl(TOKEN).limiter
    assert type(limiter) is kind
    assert limiter.snapshot().limit == 7


# The file


def test_modes(cache: Path) -> None:
    """No other user can reach the directory or the file."""
    cache.mkdir(mode=0o755)
    asyncio.run(spend(1))
    (path,) = cache.iterdir()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _text(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir()
    path.write_text("hello")


def _link(path: Path, elsewhere: Path) -> None:
    path.parent.mkdir()
    elsewhere.write_bytes(b"")
    path.symlink_to(elsewhere)


UNUSABLE: dict[str, Callable[[Path, Path], object]] = {
    "no directory can be made": lambda path, elsewhere: path.parent.write_text(""),
    "a link in its place": _link,
    "a directory in its place": lambda path, elsewhere: path.mkdir(parents=True),
    "another program's file": _text,
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_without_a_file(cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """Where no file can be used the process keeps the budget in memory, for all its loops, and says so once."""
    caplog.set_level(logging.INFO, "comfycontrol_async.limits")
    UNUSABLE[case](default_path(40, 10.0), tmp_path / "elsewhere")
    assert await spend(2) == 2
    in_thread(spend(3))
    assert default_limiter(ORIGIN).snapshot().used == 5
    told = [record.levelno for record in caplog.records if "within this process only" in record.getMessage()]
    assert told == [logging.INFO]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_file_of_another_user(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a directory that belongs to another user is not used."""
    asyncio.run(spend(1))
    me = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: me + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        FileLimiter(next(cache.iterdir())).snapshot()
    monkeypatch.setattr(module, "_limiters", {})
    assert isinstance(default_limiter(ORIGIN), module.ProcessLimiter)


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home directory shares within the process."""
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert isinstance(default_limiter(ORIGIN), module.ProcessLimiter)
    with pytest.raises(ConfigurationError, match="no home directory"):
        FileLimiter()


def test_unused_files_are_removed(cache: Path) -> None:
    """After a day; one that is in use, or not ours, stays."""
    asyncio.run(spend(1))
    (mine,) = cache.iterdir()
    old, locked, other = (cache / name for name in ("old.slots", "locked.slots", "notes.txt"))
    for path in (old, locked, other):
        path.write_bytes(b"")
        os.utime(path, (1.0, 1.0))
    holder = FileLimiter(locked)
    holder.snapshot()  # used now
    remove_unused(cache, time.time())
    assert sorted(cache.iterdir()) == sorted([mine, locked, other])
    remove_unused(cache, time.time() + 2 * 86400)
    assert sorted(cache.iterdir()) == [other]
    assert asyncio.run(spend(1)) >= 1  # goes on, in a new file
