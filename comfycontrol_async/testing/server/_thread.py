"""An event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_PATIENCE = 30.0  # real seconds for what another thread asks of the loop: more than any of it takes


class LoopThread:
    """Runs coroutines and functions on its own loop, for callers in any other thread.

    The thread is a daemon: a program that never stops it still ends.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="comfycontrol-local-server", daemon=True)

    def start(self) -> None:
        """Start the thread, and return once its loop runs."""
        self._thread.start()
        if not self._ready.wait(_PATIENCE):
            raise RuntimeError(f"the thread of the local server did not start within {_PATIENCE:g} s")

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result(_PATIENCE)

    def call(self, function: Callable[[], _T]) -> _T:
        """Call a function in the thread and return its result; directly when the caller is that thread."""
        if threading.current_thread() is self._thread:
            return function()

        async def run() -> _T:
            return function()

        return self.run(run())

    def stop(self) -> None:
        """End the loop and the thread."""
        loop = self._running()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(_PATIENCE)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the thread of the local server was not started")
        return self._loop

    def _serve(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._loop.call_soon(self._ready.set)
            self._loop.run_forever()
