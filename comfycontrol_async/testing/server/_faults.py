"""Faults that a test orders for coming requests."""

import math
from collections.abc import Mapping

import attrs

from comfycontrol_async.testing.server._records import Answer, error_answer


@attrs.define(eq=False)
class Fault:
    """What shall go wrong, and how often.

    `answer` replaces the real one, `drop` closes the connection instead, `truncate` breaks off the answer. With
    `effect` the request is carried out first.
    """

    method: str
    path: str
    times: int
    answer: Answer | None = None
    drop: bool = False
    truncate: bool = False
    effect: bool = True
    delay: float = 0.0

    def matches(self, method: str, *paths: str) -> bool:
        """Return whether it is meant for this request."""
        return self.method in ("*", method) and (self.path == "*" or self.path in paths)


class Faults:
    """The faults that are still to happen, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._outcomes: list[Fault] = []
        self._delays: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Keep a fault for the next request it matches.

        Raises:
            ValueError: it could never happen as it was asked for.
        """
        if not isinstance(fault.times, int) or fault.times < 1:
            raise ValueError(f"times must be a whole number of at least 1, not {fault.times!r}")
        if not isinstance(fault.method, str) or not (fault.method == "*" or fault.method.isupper()):
            raise ValueError(f"method must be '*' or one such as 'GET', not {fault.method!r}")
        if not isinstance(fault.path, str) or not (fault.path == "*" or fault.path.startswith("/")):
            raise ValueError(f"path must be '*' or begin with '/', not {fault.path!r}")
        if not isinstance(fault.delay, int | float) or not 0 <= fault.delay < math.inf:
            raise ValueError(f"seconds must be a finite number of at least 0, not {fault.delay!r}")
        (self._delays if fault.delay else self._outcomes).append(fault)

    def take_outcome(self, method: str, *paths: str) -> Fault | None:
        """Return the fault of a request, used up by that, or None."""
        return _take(self._outcomes, method, paths) if self._outcomes else None

    def take_delay(self, method: str, *paths: str) -> float:
        """Return by how much the answer to a request is late."""
        fault = _take(self._delays, method, paths) if self._delays else None
        return fault.delay if fault else 0.0


def failing_answer(
    status: int, body: str | bytes | None, headers: Mapping[str, str] | None, content_type: str | None
) -> Answer:
    """Return the answer of an ordered failure: the API's envelope unless a body is given.

    Raises:
        ValueError: HTTP knows no such answer.
    """
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise ValueError(f"status must be a number from 200 to 599, not {status!r}")
    if body is not None and not isinstance(body, str | bytes):
        raise ValueError(f"body must be text or bytes, not a {type(body).__name__}")
    if body is None:
        answer = error_answer(status)
    else:
        answer = Answer(status, body.encode() if isinstance(body, str) else body, "text/plain; charset=utf-8")
    return attrs.evolve(answer, headers=dict(headers or {}), content_type=content_type or answer.content_type)


def _take(faults: list[Fault], method: str, paths: tuple[str, ...]) -> Fault | None:
    for fault in faults:
        if fault.matches(method, *paths):
            fault.times -= 1
            if not fault.times:
                faults.remove(fault)
            return fault
    return None
