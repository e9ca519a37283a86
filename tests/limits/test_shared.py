"""The default limiter: one for all clients of an origin and loop, and it outlives both."""

import asyncio
import threading

import pytest

from comfycontrol_async.limits import LocalLimiter
from comfycontrol_async.limits import _shared as module
from comfycontrol_async.limits._shared import shared_limiter

ORIGIN = "https://api.comfycontrol.app"


@pytest.fixture(autouse=True)
def _none_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_limiters", {})


async def test_one_for_an_origin() -> None:
    """Two clients of one origin share it; another origin has its own."""
    assert shared_limiter(ORIGIN) is shared_limiter(ORIGIN)
    assert shared_limiter(ORIGIN) is not shared_limiter("http://127.0.0.1:8080")
    assert shared_limiter(ORIGIN).snapshot().limit == 40


def test_outlives_its_loop() -> None:
    """The next `asyncio.run` gets the same one, with what was spent."""

    async def spend() -> LocalLimiter:
        limiter = shared_limiter(ORIGIN)
        (await limiter.acquire()).arrived()
        return limiter

    assert asyncio.run(spend()) is asyncio.run(spend())
    assert shared_limiter(ORIGIN).snapshot().used == 2


async def test_one_for_each_living_loop() -> None:
    """A loop in another thread gets one of its own."""
    mine = shared_limiter(ORIGIN)
    (await mine.acquire()).arrived()
    theirs: list[LocalLimiter] = []

    async def look() -> None:
        theirs.append(shared_limiter(ORIGIN))
        (await theirs[0].acquire()).arrived()

    thread = threading.Thread(target=lambda: asyncio.run(look()))
    thread.start()
    thread.join()
    assert theirs[0] is not mine
