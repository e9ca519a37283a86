"""Leaving: the batches of a client that are being closed, for the client to wait for."""

import asyncio
from collections.abc import Callable

# Turns of the loop after which a generator that was left by `break` has begun to close.
_TURNS = 4


class Leaving:
    """The batches of a client and its siblings that are being closed."""

    def __init__(self) -> None:
        self._batches: set[asyncio.Future[None]] = set()

    def begin(self) -> Callable[[], None]:
        """Announce a batch that is being closed; returns what to call when it is."""
        future = asyncio.get_running_loop().create_future()
        self._batches.add(future)

        def done() -> None:
            self._batches.discard(future)
            if not future.done():
                future.set_result(None)

        return done

    async def settle(self) -> None:
        """Wait until those of the running loop are closed; each has a bound of its own."""
        loop = asyncio.get_running_loop()
        for _ in range(_TURNS):
            turn = asyncio.Event()
            loop.call_soon(turn.set)
            await turn.wait()
        self._batches = {future for future in self._batches if future.get_loop() is loop}
        if self._batches:
            await asyncio.wait(set(self._batches))
