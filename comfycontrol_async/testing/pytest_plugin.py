"""pytest plugin: the fixtures `comfycontrol_server`, `comfycontrol_server_factory` and `comfycontrol`.

`comfycontrol_server` is a `LocalServer` in a thread of its own, so it serves synchronous tests (FastAPI's TestClient)
and every event loop alike: pytest-asyncio in auto and strict mode and with any loop scope, anyio, pytest-aiohttp. Each
worker of pytest-xdist has its own. It runs twenty times as fast as the service unless the test says otherwise:
`@pytest.mark.comfycontrol(limit=5, speed=50)` passes options to the server of one test, class or module, the nearest
mark last. `comfycontrol_server_factory(**options)` starts as many as a test needs, and they stop after it.

`comfycontrol` is a client of that server, not opened yet: it binds to the event loop that uses it first, and closes
with that loop. Its limiter keeps the pace of the server and touches no file. Async tests need a plugin that runs
them, such as pytest-asyncio, which the extra `comfycontrol-async[testing]` installs; without one they fail.

How to test in milliseconds what takes three minutes: let the workflow last its 180 s and the server's time pass two
thousand times as fast. Limits, cooldowns, polling and timestamps keep their proportions.

    @pytest.mark.comfycontrol(duration=180.0, speed=2000.0)
    async def test_poster(comfycontrol, comfycontrol_server):
        run = await comfycontrol.run("poster.json", params={"prompt": "a red fox"})
        assert run.status == "completed"
        assert comfycontrol_server.max_in_window <= 40

How to test a failure: let `outcome` return a `Failure`, or `comfycontrol_server.fail_next("POST", "/v1/workflow",
status=503)`.

    @pytest.mark.comfycontrol(outcome=lambda index: Failure("3", "KSampler", "OutOfMemoryError", "CUDA out of memory"))
    async def test_out_of_memory(comfycontrol):
        with pytest.raises(WorkflowFailedError, match="CUDA out of memory"):
            await comfycontrol.run("poster.json", params={"prompt": "a red fox"})
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from comfycontrol_async import ComfyControl
    from comfycontrol_async.testing.server._server import LocalServer

_SPEED = 20.0
_NOT_RUN = "async def function"
_FIXTURES = {"comfycontrol", "comfycontrol_server", "comfycontrol_server_factory"}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "comfycontrol(**options): options of the LocalServer of this test")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail an async test that no plugin has run with a sentence of ours: some versions of pytest would skip it."""
    try:
        return (yield)
    except (pytest.fail.Exception, pytest.skip.Exception) as error:
        # pytest's own word, when no plugin has taken a test that is a coroutine function.
        if _NOT_RUN in str(error) and _FIXTURES & {*pyfuncitem.fixturenames}:
            pytest.fail(
                "no plugin runs this async test: install comfycontrol-async[testing], which brings pytest-asyncio, and "
                "set asyncio_mode = auto or mark the test with pytest.mark.asyncio",
                pytrace=False,
            )
        raise


@pytest.fixture
def comfycontrol_server_factory() -> "Iterator[Callable[..., LocalServer]]":
    """Return a function that starts a LocalServer with the given options; all stop after the test."""
    # Imported here so that runs which never ask for the fixture do not pay for it.
    from comfycontrol_async.testing.server._server import LocalServer

    with ExitStack() as running:

        def start(**options: Any) -> LocalServer:
            return running.enter_context(LocalServer(**{"speed": _SPEED, **options}))

        yield start


@pytest.fixture
def comfycontrol_server(
    request: pytest.FixtureRequest, comfycontrol_server_factory: "Callable[..., LocalServer]"
) -> "LocalServer":
    """Run a LocalServer, twenty times as fast as the service unless the marker says otherwise."""
    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("comfycontrol"))):
        if marker.args:
            pytest.fail("pytest.mark.comfycontrol takes options by name, such as limit=5", pytrace=False)
        options.update(marker.kwargs)
    return comfycontrol_server_factory(**options)


@pytest.fixture
def comfycontrol(comfycontrol_server: "LocalServer") -> "ComfyControl":
    """Make a client of `comfycontrol_server` whose limiter and watcher keep pace with it; it closes with its loop."""
    from comfycontrol_async import ComfyControl, LocalLimiter, WatchPolicy

    server = comfycontrol_server
    return ComfyControl(
        server.token,
        base_url=server.url,
        limiter=LocalLimiter(server.limit, server.period),
        watch=WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed),
    )
