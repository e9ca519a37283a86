"""Fixtures of the end-to-end tests: a fast server with a large budget, and a client of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from comfycontrol_async import ComfyControl
from comfycontrol_async.batch._leave import ANSWER_TIME
from comfycontrol_async.runs._submit import LOOKS_AT
from comfycontrol_async.testing import LocalServer
from support.services import SPEED, client_of, serving


@pytest.fixture(autouse=True)
async def _loop_debug(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let asyncio watch itself, over real sockets only: calls from a wrong thread, descriptors used twice.

    The loop looks at its own flag for these. Futures, tasks and handles ask `get_debug`, and keep the whole stack of
    where they were made if it says yes: half the time of a test for a line that is rarely read.
    """
    monkeypatch.setattr("asyncio.constants.DEBUG_STACK_DEPTH", 1)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    monkeypatch.setattr(loop, "get_debug", lambda: False)
    yield
    loop.set_debug(False)


@pytest.fixture(autouse=True)
def _looks_in_scaled_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for workflows in the time of the servers here, which run fifty times as fast as the service."""
    monkeypatch.setattr("comfycontrol_async.runs._submit.LOOKS_AT", tuple(at / SPEED for at in LOOKS_AT))
    monkeypatch.setattr("comfycontrol_async.runs._key_index._PAUSE", 2.0 / SPEED)
    monkeypatch.setattr("comfycontrol_async.batch._leave.ANSWER_TIME", ANSWER_TIME / SPEED)


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    """Run a server, fifty times as fast as the service, with a budget that no test here uses up."""
    async with serving() as server:
        yield server


@pytest.fixture
async def comfy(server: LocalServer) -> AsyncIterator[ComfyControl]:
    """Open a client of `server`."""
    async with client_of(server) as client:
        yield client
