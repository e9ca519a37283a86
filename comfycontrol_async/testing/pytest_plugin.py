"""pytest plugin: the fixtures `comfycontrol_server` and `comfycontrol`.

`@pytest.mark.comfycontrol(limit=5, speed=50)` passes options to the LocalServer of one test, class or module.
The fixtures need pytest-asyncio, in strict or auto mode; without it, tests that ask for them are skipped.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from comfycontrol_async import ComfyControl
    from comfycontrol_async.testing.server._server import LocalServer

_SPEED = 20.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "comfycontrol(**options): options of the LocalServer of this test")


async def _serve(request: pytest.FixtureRequest) -> "AsyncIterator[LocalServer]":
    """Run a LocalServer, twenty times as fast as the service unless the marker says otherwise."""
    # Imported here so that runs which never ask for the fixture do not pay for it.
    from comfycontrol_async.testing.server._server import LocalServer

    options: dict[str, Any] = {"speed": _SPEED}
    for marker in reversed(list(request.node.iter_markers("comfycontrol"))):
        options.update(marker.kwargs)
    async with LocalServer(**options) as server:
        yield server


async def _connect(comfycontrol_server: "LocalServer") -> "AsyncIterator[ComfyControl]":
    """Open a client of `comfycontrol_server` whose limiter and watcher keep pace with it."""
    from comfycontrol_async import ComfyControl, LocalLimiter, WatchPolicy

    server = comfycontrol_server
    async with ComfyControl(
        server.token,
        base_url=server.url,
        limiter=LocalLimiter(server.limit, server.period),
        watch=WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed),
    ) as client:
        yield client


def _refuse() -> None:
    """Skip the test, since nothing can run an async fixture."""
    pytest.skip("the fixtures of comfycontrol_async need pytest-asyncio")


try:
    import pytest_asyncio
except ImportError:
    comfycontrol_server = pytest.fixture(name="comfycontrol_server")(_refuse)
    comfycontrol = pytest.fixture(name="comfycontrol")(_refuse)
else:
    comfycontrol_server = pytest_asyncio.fixture(name="comfycontrol_server")(_serve)  # type: ignore[assignment]
    comfycontrol = pytest_asyncio.fixture(name="comfycontrol")(_connect)  # type: ignore[assignment]
