"""What ties work to one event loop: the loop of an object, closing with that loop, and whose cancellation one is.

Client, sessions, watcher and limiters react to another event loop alike: they belong to the first loop that uses them;
once that loop is closed the next one takes over, and while it is alive another one gets `ClientLoopError`.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeVar

from comfycontrol_async.errors import ClientLoopError

T = TypeVar("T")


class LoopBinding:
    """The event loop that an object belongs to; None until one has used it. `what` names the object in the error."""

    __slots__ = ("_what", "loop")

    def __init__(self, what: str) -> None:
        self._what = what
        self.loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> bool:
        """Belong to the running loop; return True if that is another loop than before, so state must start again.

        Raises:
            ClientLoopError: the loop that it belongs to is still alive.
        """
        loop = asyncio.get_running_loop()
        if loop is self.loop:
            return False
        self.check(loop)
        self.loop = loop
        return True

    def check(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Check that `loop`, or the running one, may use it; nothing is bound.

        Raises:
            ClientLoopError: the loop that it belongs to is still alive.
        """
        if not self.serves(loop or asyncio.get_running_loop()):
            raise ClientLoopError(
                f"this {self._what} belongs to another event loop that is still alive; "
                f"use one {self._what} for each loop, or close the first loop"
            )

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return True if `loop` may use it: it belongs to that loop, to none yet, or to one that is closed."""
        return self.loop is None or self.loop is loop or self.loop.is_closed()

    def is_running(self) -> bool:
        """Return True if the loop that it belongs to runs in this thread; False too when none runs here."""
        return self.loop is not None and self.loop is asyncio._get_running_loop()

    def release(self) -> None:
        """Belong to no loop, as before the first use: in a forked child the parent's loop never runs."""
        self.loop = None


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


async def stay_until_done(future: asyncio.Future[T]) -> T:
    """Wait for work that cannot be stopped, such as a thread's, however often the caller is cancelled meanwhile.

    The cancellation is raised when the work has ended, and goes before its result or error.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not log it
        raise cancelled
    return future.result()


def own_cancel() -> bool:
    """Tell whether a CancelledError is meant for the running task, and not from something else that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
