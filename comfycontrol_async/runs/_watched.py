"""Watched: a workflow that callers wait for, as the watcher knows it."""

import asyncio
from copy import copy

import attrs

from comfycontrol_async._clock import Timer
from comfycontrol_async._loop import own_cancel
from comfycontrol_async.errors import ComfyControlError
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._state import State


@attrs.define(eq=False, repr=False, kw_only=True)
class Watched:
    """A workflow that callers wait for.

    `created` and `seen` are moments of the monotonic clock; `born` says whether `created` is known, or only when it was
    joined. `offset` gives its place in the listing, 0 for the newest: the number of workflows made here plus `offset`.
    """

    id: str
    state: State
    route: Route
    created: float
    seen: float
    born: bool
    offset: int | None
    outputs: bool = False
    followers: set[asyncio.Event] = attrs.field(factory=set)
    # Followers whose caller is shown every update, so that polls may not come late for long.
    live: int = 0
    error: Exception | None = None
    stream: asyncio.Task[None] | None = None
    # Pages on which it was looked for in vain; streams that ended early in a row; since when looking for it fails.
    misses: int = 0
    failed: int = 0
    failing_since: float | None = None
    # Tells the end that a page showed if its stream does not tell it first.
    grace: Timer | None = None

    def tell(self, state: State) -> None:
        """Pass a state on to all followers; after a final one there is none."""
        if not self.ended:
            self.state = state
            self._wake()

    def fail(self, error: Exception) -> None:
        """End the wait of all followers with an error."""
        if not self.ended:
            self.error = error
            self._wake()

    def _wake(self) -> None:
        for follower in self.followers:
            follower.set()

    def own_error(self) -> Exception:
        """Return the error for one of many to raise: each raise would add its traceback and notes to a shared one."""
        assert self.error is not None  # asked for only when there is one
        if not isinstance(self.error, ComfyControlError):
            return self.error
        mine = copy(self.error)
        mine.__cause__ = self.error.__cause__
        mine.__dict__.pop("__notes__", None)
        return mine

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.error is not None or self.state.ended


def not_own(error: BaseException) -> Exception:
    """Return what ended a task that others wait for, as an error for them; raise it if the task was to be cancelled.

    A CancelledError may come from something that the task waited for, such as a limiter of the user's.
    """
    if isinstance(error, Exception):
        return error
    if own_cancel():
        raise error
    wrapped = ComfyControlError("waiting failed: something that it waited for was cancelled")
    wrapped.__cause__ = error
    return wrapped
