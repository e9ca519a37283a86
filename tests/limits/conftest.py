"""Every asynchronous test of the limiters runs on asyncio's own loop and on uvloop."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Name the event loops."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave what runs on a real server and a real clock to one event loop, unless slow tests are asked for."""
    for item in items:
        if item.name.endswith("[uvloop-redis]") or "[uvloop-redis-" in item.name:
            item.add_marker(pytest.mark.slow)
