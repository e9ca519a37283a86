"""Threads that a test on a fake clock must not wait for: how long a real one takes is another clock."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


class _SameThread(ThreadPoolExecutor):
    """An executor that does its work at once, where it is asked."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **options: P.kwargs) -> Future[T]:
        """Do the work, and return what came of it."""
        done: Future[T] = Future()
        try:
            done.set_result(work(*args, **options))
        except Exception as error:
            done.set_exception(error)
        return done


def work_without_threads() -> None:
    """Let `asyncio.to_thread` work at once, on the running loop: no fake time passes meanwhile, on any machine."""
    asyncio.get_running_loop().set_default_executor(_SameThread())
