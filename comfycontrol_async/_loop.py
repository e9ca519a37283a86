"""close_with_loop: closes what its owner forgot to close when the event loop ends."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any


def close_with_loop(resource: AbstractAsyncContextManager[Any]) -> AsyncGenerator[None, None]:
    """Return a generator whose `aclose` closes the resource; `asyncio.run` calls that too, before it closes its loop.

    Entering the resource must need no waiting.
    """

    async def wait() -> AsyncGenerator[None, None]:
        async with resource:
            yield

    closer = wait()
    with suppress(StopIteration):
        closer.asend(None).send(None)  # up to its `yield`
    return closer
