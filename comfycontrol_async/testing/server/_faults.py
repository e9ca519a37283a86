"""Faults that a test orders for coming requests."""

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
        """Keep a fault for the next request it matches."""
        if fault.times < 1:
            raise ValueError("times must be at least 1")
        if fault.path != "*" and not fault.path.startswith("/"):
            raise ValueError(f"path must be '*' or begin with '/', not {fault.path!r}")
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
    """Return the answer of an ordered failure: the API's envelope unless a body is given."""
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
