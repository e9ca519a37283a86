"""What the unit tests share: a scripted API, a client of it, and a cure for aioresponses on aiohttp 3.14."""

import asyncio
import gc
import inspect
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4
from zlib import crc32

import aiohttp
import aioresponses.core
import pytest
from aiohttp.client_proto import ResponseHandler
from aioresponses.compat import stream_reader_factory
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from comfycontrol_async import ComfyControl, LocalLimiter, RetryPolicy
from support.scripted import BASE_URL, TOKEN, ScriptedApi


class _Response(aiohttp.ClientResponse):
    """A response that can be made without the `stream_writer` that aiohttp 3.14 wants."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **options)


def _large_stream_reader(loop: asyncio.AbstractEventLoop | None = None) -> aiohttp.StreamReader:
    """Make a stream reader that takes a whole body at once: beyond twice its limit it wants a transport to pause."""
    assert loop is not None
    return aiohttp.StreamReader(ResponseHandler(loop=loop), limit=2**30, loop=loop)


# aioresponses 0.7.9 on aiohttp 3.14; each cure switches itself off where it is not needed.
if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters and (
    "stream_writer" not in inspect.getsource(aioresponses.core.RequestMatch)
):
    aioresponses.core.ClientResponse = _Response  # type: ignore[attr-defined] # imported there, not exported
if "2 ** 16" in inspect.getsource(stream_reader_factory):
    aioresponses.core.stream_reader_factory = _large_stream_reader  # type: ignore[attr-defined] # as above


# Where bytecode is not kept, each worker rewrites the asserts of every test module, and each process that a test starts
# compiles the package: a quarter of the whole time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Started in the background of a shell, we would ignore Ctrl-C, and every process that a test starts with us.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of what is tested, and each run tries the same examples. The step `slow` tries others, and
# ten times as many: `--hypothesis-profile thorough`.
settings.register_profile("tests", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=300)
settings.load_profile("tests")


def pytest_configure(config: pytest.Config) -> None:
    """Leave the constants of the package's source to the thorough profile.

    Hypothesis mixes them into its examples: other ones in each worker, as they are those of the modules that happen to
    be loaded, and each worker of a fresh clone parses every module for them.
    """
    if config.getoption("--hypothesis-profile") != "thorough":
        pytest.MonkeyPatch().setattr(providers, "_get_local_constants", lambda: providers._local_constants)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without a look for garbage, and leave what was collected out of later looks: it stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mix the files, and refuse a test whose id holds an address: each worker would know it by another name.

    A worker begins with its part of the list, and by name those that wait for servers would all come to one.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: crc32(item.path.name.encode()))
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:
        raise pytest.UsageError(f"give these cases an id of their own: {changing}")


# What may never be printed, logged or recorded: a whole token, or the query of a signed URL.
SECRET = re.compile(r"cfc_[A-Za-z0-9]{12,}|[?&](?:signature|sig|X-Amz-Signature)=(?!\.\.\.)[^&\s'\"]{4,}")


class _Records(logging.Handler):
    """Collects what is logged, at whatever level it is shown: message, arguments, `extra` and traceback."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's words."""
        self.texts.append(self.format(record) + repr(record.__dict__))


@pytest.fixture(autouse=True)
def _no_secrets() -> Iterator[None]:
    """Fail a test in which the package logs a secret."""
    logger = logging.getLogger("comfycontrol_async")
    records = _Records()
    logger.addHandler(records)
    try:
        yield
    finally:
        logger.removeHandler(records)
    found = [text for text in records.texts if SECRET.search(text)]
    assert not found, f"a secret was logged: {found[0][:500]}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in which a secret was printed."""
    report = yield
    printed = [name for name, text in report.sections if SECRET.search(text)]
    if report.passed and printed:
        report.outcome = "failed"
        report.longrepr = f"a secret was printed: {printed}"
    return report


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the settings of the machine out of the tests, and what they leave behind off the machine."""
    # A directory for each test: a budget is shared by all programs that use it.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache" / uuid4().hex))
    for name in ("COMFYCONTROL_API_TOKEN", "COMFYCONTROL_BASE_URL", "COMFYCONTROL_LIMITER", "COMFYCONTROL_LOG"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    """Serve a scripted API; a request that the script does not know fails the test."""
    script = ScriptedApi()
    with script:
        yield script
    assert script.unexpected == []


@pytest.fixture
async def comfy(api: ScriptedApi) -> AsyncIterator[ComfyControl]:
    """Open a client of the scripted API, which waits for nothing between its attempts."""
    async with ComfyControl(
        TOKEN, base_url=BASE_URL, limiter=LocalLimiter(1000, 0.05), retry=RetryPolicy(base_delay=0.0)
    ) as client:
        yield client
