"""Reset limiters in a forked child, as the parent goes on with the same address."""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """A limiter that wants to know."""

    def _after_fork(self) -> None:
        """Let go, in the child, of what is the parent's."""


_limiters: "weakref.WeakSet[Forked]" = weakref.WeakSet()
_registered: list[bool] = []


def watch_forks(limiter: Forked) -> None:
    """Reset `limiter` in every forked child, for as long as it lives."""
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_tell)
        _registered.append(True)  # it cannot be taken back
    _limiters.add(limiter)


def _tell() -> None:
    for limiter in list(_limiters):
        limiter._after_fork()
