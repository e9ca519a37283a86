"""The default limiter: one budget for each machine, API origin and proxy; or what the environment says."""

import asyncio
import logging
import os
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from comfycontrol_async import ComfyControl, ConfigurationError, Limiter
from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.limits.redis import RedisLimiter
from support.redis_server import RedisServer, servers
from support.scripted import TOKEN
from support.waiting import eventually

PUBLIC = "https://api.comfycontrol.app"
OTHER = "http://127.0.0.1:8080"


# What may differ between event loops is in the conformance table.
on_one_loop = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Begin with an empty cache directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path / "comfycontrol"


@pytest.fixture
def origin() -> str:
    """Name a server that no other test has, and so without limiters: they outlive clients and loops."""
    return f"https://{uuid4().hex}.test"


def limiter_of(origin: str, proxy: str | None = None) -> Limiter:
    """Return the limiter of a client that was given none."""
    return ComfyControl(TOKEN, base_url=origin, proxy=proxy).limiter


async def spend(count: int, origin: str, proxy: str | None = None) -> int:
    """Send so many requests, and return how many slots are taken then."""
    limiter = limiter_of(origin, proxy)
    for _ in range(count):
        (await limiter.acquire()).arrived()
    return limiter.snapshot().used


def in_thread(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run to the end in another thread, with a loop of its own."""
    thread = threading.Thread(target=lambda: asyncio.run(coroutine))
    thread.start()
    thread.join()


# Who shares


async def test_one_for_an_origin_and_loop(origin: str) -> None:
    """Two clients share the limiter itself; another server or another proxy has another budget."""
    assert limiter_of(origin) is limiter_of(origin)
    assert await spend(3, origin) == 3
    assert await spend(1, OTHER) == 1
    assert await spend(1, origin, "http://proxy:3128") == 1
    assert await spend(1, origin, "http://user:secret@PROXY:3128") == 2


def test_outlives_its_loop(origin: str) -> None:
    """The next `asyncio.run` knows what was spent."""
    assert asyncio.run(spend(1, origin)) == 1
    assert asyncio.run(spend(1, origin)) == 2


@on_one_loop
@pytest.mark.parametrize("choice", ["", "local", "file"])
async def test_two_loops_share_one_budget(monkeypatch: pytest.MonkeyPatch, origin: str, choice: str) -> None:
    """A loop in another thread has a limiter of its own, with the same slots."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", choice)
    assert await spend(3, origin) == 3
    in_thread(spend(2, origin))
    assert limiter_of(origin).snapshot().used == 5
    limiter_of(origin).cool_down(12.0)
    seen: list[float] = []

    async def look() -> None:
        seen.append(limiter_of(origin).snapshot().cooldown)

    in_thread(look())
    assert 10.0 < seen[0] <= 12.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_memory(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """A forked child starts with the window charged, as the parent shares the address."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "local")
    asyncio.run(spend(1, origin))
    child = os.fork()
    if child == 0:
        os._exit(0 if limiter_of(origin).snapshot().used == 40 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert limiter_of(origin).snapshot().used == 1


def test_client_without_a_limiter(cache: Path) -> None:
    """The client's default is the file of its server and proxy."""
    limiters = [ComfyControl(TOKEN).limiter, limiter_of(OTHER)]
    paths = [limiter.path for limiter in limiters if isinstance(limiter, FileLimiter)]
    assert paths[0] == FileLimiter().path
    assert {path.parent for path in paths} == {cache}
    assert paths[1].name.startswith("127.0.0.1-40-per-10s-")


# The environment


def choose(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the environment say which limiter a client has."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("local?limit=7", "<ProcessLimiter 7 per 10 s, 0 waiting>"),
        ("local?limit=20&period=2.5", "<ProcessLimiter 20 per 2.5 s, 0 waiting>"),
        ("file?limit=7", "<FileLimiter 7 per 10 s, 0 waiting>"),
        ("file?period=2.5", "<FileLimiter 40 per 2.5 s, 0 waiting>"),
        ("redis://127.0.0.1:1/0?limit=7", "<RedisLimiter 7 per 10 s, 0 waiting>"),
    ],
    ids=str,
)
def test_chosen_limiter(monkeypatch: pytest.MonkeyPatch, origin: str, text: str, shown: str) -> None:
    """The environment's choice is what the client uses, with the rule that it is given."""
    choose(monkeypatch, text)
    limiter = limiter_of(origin)
    assert repr(limiter) == shown
    now = limiter.snapshot()
    assert shown.startswith(f"<{type(limiter).__name__} {now.limit} per {now.period:g} s")


@pytest.mark.parametrize("text", ["local", "local?limit=20"])
def test_in_memory(monkeypatch: pytest.MonkeyPatch, cache: Path, origin: str, text: str) -> None:
    """`local` is one budget for each server and proxy, and touches no file."""
    choose(monkeypatch, text)
    assert asyncio.run(spend(2, origin)) == 2
    assert asyncio.run(spend(1, origin, "http://proxy:3128")) == 1
    assert asyncio.run(spend(1, f"{origin}:8443")) == 1
    assert not cache.exists()


def test_file_of_our_own(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """`file` is the default file, and so is no text: another limit, server or proxy has another one."""

    def path(text: str, origin: str, proxy: str | None = None) -> Path:
        choose(monkeypatch, text)
        limiter = limiter_of(origin, proxy)
        assert isinstance(limiter, FileLimiter)
        return limiter.path

    assert path("file", PUBLIC) == path("", PUBLIC) == FileLimiter().path
    assert path("file?limit=20", PUBLIC) == FileLimiter(limit=20).path != FileLimiter().path
    assert path("file", origin) == path("", origin) != FileLimiter().path
    assert path("file", origin, "http://proxy:3128") != path("file", origin)


def test_file_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, origin: str) -> None:
    """A path is taken as it is, for all servers; spaces around the text do no harm."""
    choose(monkeypatch, f" file:{tmp_path}/slots?limit=20 ")
    limiter = limiter_of(origin)
    assert isinstance(limiter, FileLimiter)
    assert (limiter.path, limiter.snapshot().limit) == (tmp_path / "slots", 20)
    assert limiter_of(OTHER) is limiter
    choose(monkeypatch, "file:~/slots")
    at_home = limiter_of(origin)
    assert isinstance(at_home, FileLimiter)
    assert at_home.path == Path.home() / "slots"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """Run a server with a password, which can be reached by a socket in its directory too."""
    running = RedisServer(next(iter(servers().values())), "--requirepass", "pw")
    running.options += ("--unixsocket", f"{running.directory}/socket")
    with running:
        yield running


@attrs.frozen
class Budget:
    """A choice (PORT and SOCKET are the server's), and the budget that it leads to in the server."""

    text: str
    database: int
    limit: int = 40
    period: float = 10.0
    key: str | None = None
    proxy: str | None = None


BUDGETS = {
    "database, limit": Budget("redis://:pw@127.0.0.1:PORT/1?limit=20", 1, limit=20),
    "key, period": Budget("redis://:pw@127.0.0.1:PORT?key=shared&period=2.5", 0, period=2.5, key="shared"),
    "socket, options of redis-py": Budget("unix://SOCKET?db=3&password=pw", 3),
    "proxy": Budget("redis://:pw@127.0.0.1:PORT", 0, proxy="http://user:secret@PROXY:3128"),
}


@on_one_loop
@pytest.mark.skipif(not servers(), reason="no Redis or Valkey server here")
@pytest.mark.parametrize("case", BUDGETS)
async def test_budget_in_redis(monkeypatch: pytest.MonkeyPatch, server: RedisServer, origin: str, case: str) -> None:
    """A URL leads to the server, with all that redis-py is to know, the rule, and a key for server and proxy."""
    budget = BUDGETS[case]
    text = budget.text.replace("PORT", str(server.port)).replace("SOCKET", f"{server.directory}/socket")
    choose(monkeypatch, text)
    limiter = limiter_of(origin, budget.proxy)
    assert isinstance(limiter, RedisLimiter)
    waiting = asyncio.create_task(limiter.acquire())  # for long: the server is young
    key = budget.key or (f"{origin}|http://proxy:3128" if budget.proxy else origin)
    with server.client(password="pw", db=budget.database) as client:
        name = f"{{comfycontrol:{key}}}:1:state"
        await eventually(lambda: client.exists(name))
        state = client.hgetall(name)
    assert (state["limit"], state["period"]) == (str(budget.limit), f"{budget.period * 1e6:.0f}")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await limiter.aclose()


@on_one_loop
async def test_redis_with_tls(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """`rediss://` begins with a TLS handshake."""
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.readexactly(2))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as running:
        port = running.sockets[0].getsockname()[1]
        choose(monkeypatch, f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none")
        limiter = limiter_of(origin)
        assert isinstance(limiter, RedisLimiter)
        waiting = asyncio.create_task(limiter.acquire())
        assert await heard == b"\x16\x03"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await limiter.aclose()


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
def test_bad_choice(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What is not known is refused, with the variable's name."""
    choose(monkeypatch, text)
    with pytest.raises(ConfigurationError, match="COMFYCONTROL_LIMITER"):
        _ = ComfyControl(TOKEN).limiter


def test_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error does not show a URL: it may hold a password."""
    choose(monkeypatch, "http://:hunter2@host")
    with pytest.raises(ConfigurationError) as caught:
        _ = ComfyControl(TOKEN).limiter
    assert "hunter2" not in str(caught.value)


# The file


def test_modes(cache: Path) -> None:
    """No other user can reach the directory or the file."""
    cache.mkdir(mode=0o755)
    asyncio.run(spend(1, PUBLIC))
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


@on_one_loop
@pytest.mark.parametrize("case", UNUSABLE)
async def test_without_a_file(cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    """Where no file can be used the process keeps the budget in memory, for all its loops, and says so once."""
    caplog.set_level(logging.INFO, "comfycontrol_async.limits")
    UNUSABLE[case](FileLimiter().path, tmp_path / "elsewhere")
    assert await spend(2, PUBLIC) == 2
    in_thread(spend(3, PUBLIC))
    assert limiter_of(PUBLIC).snapshot().used == 5
    told = [record.levelno for record in caplog.records if "within this process only" in record.getMessage()]
    assert told == [logging.INFO]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users here")
def test_file_of_another_user(cache: Path, monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """A file or a directory that belongs to another user is not used."""
    asyncio.run(spend(1, PUBLIC))
    files = list(cache.iterdir())
    me = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: me + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        FileLimiter(files[0]).snapshot()
    elsewhere = cache.with_name("elsewhere")
    elsewhere.write_bytes(files[0].read_bytes())
    with pytest.raises(ConfigurationError, match="it belongs to another user"):
        FileLimiter(elsewhere).snapshot()
    assert repr(limiter_of(origin)).startswith("<ProcessLimiter")
    assert list(cache.iterdir()) == files


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """A user without a home directory shares within the process."""
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert repr(limiter_of(origin)).startswith("<ProcessLimiter")
    with pytest.raises(ConfigurationError, match="no home directory"):
        FileLimiter()


def test_unused_files_are_removed(cache: Path, origin: str) -> None:
    """A day after the last use, when another is opened; one that is in use, locked or not ours stays."""
    fcntl = pytest.importorskip("fcntl")

    def new(origin: str, *, beside: set[Path]) -> Path:
        """Use the file of a server, and check that the directory holds nothing else but these then."""
        before = {*cache.iterdir()}
        asyncio.run(spend(1, origin))
        (path,) = {*cache.iterdir()} - before
        assert {*cache.iterdir()} == {path, *beside}
        return path

    asyncio.run(spend(1, origin))
    (mine,) = cache.iterdir()
    old, locked, other = (cache / name for name in ("old.slots", "locked.slots", "notes.txt"))
    for path in (old, locked, other):
        path.write_bytes(b"")
        os.utime(path, (1.0, 1.0))
    with locked.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = new(f"{origin}:2", beside={mine, locked, other})
    third = new(f"{origin}:3", beside={mine, second, other})
    now = third.stat().st_mtime
    os.utime(mine, (1.0, now - 86400 + 60))
    os.utime(second, (1.0, now - 86400 - 60))
    fourth = new(f"{origin}:4", beside={mine, third, other})
    os.utime(mine, (1.0, 1.0))
    new(f"{origin}:5", beside={third, fourth, other})
    assert asyncio.run(spend(1, origin)) >= 1  # goes on, in a new file
