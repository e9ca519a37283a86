"""Attempts: counts what a client sends, and passes it on to its listeners; private until events are public."""

from collections.abc import Callable
from typing import Any

from comfycontrol_async._http._request import Request


class Attempts:
    """The attempts of a client and its siblings: every request that gets a slot, once for each time that it is sent."""

    def __init__(self) -> None:
        self.count = 0
        self.listeners: list[Callable[[Request[Any]], None]] = []

    def leave(self, request: Request[Any]) -> None:
        """Count a request that is sent now; the listeners are called in the task that sends it."""
        self.count += 1
        for listener in self.listeners:
            listener(request)
