"""JoinTurns: thousands of callers that begin to wait at once do so over several turns of the event loop."""

import asyncio
from collections import deque

from comfycontrol_async._loop import LoopBinding

# Callers in one turn of the loop; each costs some tens of microseconds.
_AT_ONCE = 250


class JoinTurns:
    """Lets so many callers through in each turn of the loop, first come, first served."""

    __slots__ = ("_binding", "_through", "_waiting")

    def __init__(self) -> None:
        self._binding = LoopBinding("client")
        self._through = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Wait until this caller may go on; the first few hundred in a turn need not.

        Raises:
            ClientLoopError: the client belongs to another event loop that is still alive.
        """
        if self._binding.bind():  # what waited on a loop that is closed is gone with it
            self._through = 0
            self._waiting.clear()
        loop = asyncio.get_running_loop()
        if not self._through:
            loop.call_soon(self._next_turn)
        self._through += 1
        if self._through > _AT_ONCE:
            waiter = loop.create_future()
            self._waiting.append(waiter)
            await waiter

    def _next_turn(self) -> None:
        self._through = 0
        while self._waiting and self._through < _AT_ONCE:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._through += 1
        if self._through:
            asyncio.get_running_loop().call_soon(self._next_turn)
