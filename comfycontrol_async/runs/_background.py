"""Background: tasks that a client leaves running beside its calls, and ends when it is closed."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("comfycontrol_async")


class Background:
    """Tasks of one client; those of an event loop that is closed are gone with it."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run some work as a task; an error of it is logged."""
        task = asyncio.get_running_loop().create_task(self._guard(work), name=f"comfycontrol {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception:
            log.warning("work beside the calls of a client failed", exc_info=True)

    async def close(self) -> None:
        """Cancel what still runs on this loop, and wait until it is gone."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
