"""LocalServer in a thread of its own: `with` instead of `async with`."""

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from comfycontrol_async.testing import LocalServer


def get_user(server: LocalServer) -> int:
    """Send one request without any event loop, and return the status."""
    request = urllib.request.Request(f"{server.url}/v1/user", headers={"Authorization": f"Bearer {server.token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def names() -> list[str]:
    """Return the names of the threads that run."""
    return [thread.name for thread in threading.enumerate()]


def test_without_a_loop() -> None:
    """It serves synchronous code, and its thread ends with it; entered again it is on the same port."""
    before = names()
    server = LocalServer(limit=2, period=1000.0, cooldown=1000.0)
    with server:
        url = server.url
        assert [get_user(server) for _ in range(3)] == [200, 200, 429]
        assert (len(server.requests), server.max_in_window, server.refused) == (3, 3, 1)
    assert names() == before
    with server:
        assert (server.url, len(server.requests)) == (url, 3)
    assert names() == before


def test_faults_from_any_thread() -> None:
    """Faults are ordered from several threads at once; each happens once."""
    with LocalServer(limit=10_000) as server, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.fail_next("GET", "/v1/user", status=503), range(20)))
        seen = list(pool.map(lambda _: get_user(server), range(30)))
    assert sorted(seen) == [200] * 10 + [503] * 20


def test_reading_while_it_works() -> None:
    """What the server shows may be walked through from another thread while requests arrive."""
    with LocalServer(limit=10_000) as server, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(get_user, server) for _ in range(25)]
        while not all(future.done() for future in asked):
            for view in (server.workflows, server.runners):
                assert len(list(view.items())) == len(view)
            assert {record.path for record in list(server.requests)} <= {"/v1/user"}
            assert server.max_in_window <= 25
    assert len(server.requests) == 25


def test_outcome_may_use_the_server() -> None:
    """What the server calls in its own thread may call the server back."""
    with LocalServer(latency=lambda: float(server.consume() or 0)) as server:
        assert get_user(server) == 200
        assert server.max_in_window == 2


async def test_beside_a_running_loop() -> None:
    """A blocking request from a coroutine is answered, as the server has its own loop."""
    with LocalServer() as server:
        assert get_user(server) == 200  # a loop that is blocked is what is tested


def test_started_twice() -> None:
    """A server that runs is not started again."""
    with LocalServer() as server:
        with pytest.raises(RuntimeError, match="runs already"), server:
            pass
        with pytest.raises(RuntimeError, match="runs already"):
            asyncio.run(server.start())
        assert get_user(server) == 200


def test_port_taken() -> None:
    """A port that is taken is an OSError, and no thread is left behind."""
    before = names()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = LocalServer(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"), server:
            pass
    assert names() == before


def test_stop_ends_long_waits() -> None:
    """Leaving does not wait for what the server has still to answer."""
    with LocalServer() as server, ThreadPoolExecutor(1) as pool:
        server.delay_next("GET", "/v1/user", 1000.0)
        asked = pool.submit(get_user, server)
        deadline = time.monotonic() + 10
        while not server.requests and time.monotonic() < deadline:
            time.sleep(0.005)
        assert server.requests
        began = time.monotonic()
        server.__exit__(None, None, None)
        assert time.monotonic() - began < 5
        assert isinstance(asked.exception(10), OSError)
