"""Waiting for what becomes true outside of the test: in another task, another process, a server."""

import asyncio
from collections.abc import Callable


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait until `condition` holds, for `seconds` at most: far more than it takes, for a machine may be busy."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 # what is waited for sets no event
            await asyncio.sleep(0.002)
