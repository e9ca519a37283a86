"""The edge in front of the API: which arrivals pass, as pure functions of `now`, and how it refuses the others.

Three ways of counting "limit in any period" are in use at real edges, and a client cannot know which it faces:

- `exact`: the stamps of the last period; nothing else is exact.
- `counter`: two fixed buckets, the previous one weighted by its overlap with the sliding window. With a limit of 40
  in 10 s, 40 arrivals at second 9 leave an estimate of 40 * (1 - 0.2) = 32 at second 12, so 8 more pass there.
- `fixed`: the count starts again at every multiple of the period, so up to twice the limit passes around a boundary.

One arrival too many starts the cooldown: it and everything after it is refused until the cooldown is over, then
counting starts from nothing. Refused arrivals do not prolong the cooldown.
"""

import json
from collections import deque
from typing import Protocol

from comfycontrol_async.testing.server._records import Answer, error_answer

REFUSALS = ("html", "problem", "json")

_PAGE = """<!DOCTYPE html>
<html>
<head><title>Error 1015 | {host} | Cloudflare</title></head>
<body>
<h1>Error 1015</h1>
<p>Too many requests came from your address, so {host} answers none of them for a while.</p>
<p>Ray ID: {ray}</p>
</body>
</html>
"""


class Counter(Protocol):
    """A way of counting arrivals."""

    def take(self, now: float) -> bool:
        """Count an arrival, or return False when it is one too many."""
        ...

    def clear(self) -> None:
        """Forget all arrivals."""


class ExactWindow:
    """Counts the arrivals of the last `period`, the far end excluded."""

    def __init__(self, limit: int, period: float) -> None:
        self._limit = limit
        self._period = period
        self._stamps: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Count an arrival, or return False when it is one too many."""
        stamps = self._stamps
        while stamps and now - stamps[0] >= self._period:
            stamps.popleft()
        if len(stamps) >= self._limit:
            return False
        stamps.append(now)
        return True

    def clear(self) -> None:
        """Forget all arrivals."""
        self._stamps.clear()


class WeightedBuckets:
    """Counts by fixed buckets; the previous one counts in proportion to its overlap with the sliding window."""

    def __init__(self, limit: int, period: float, phase: float = 0.0) -> None:
        self._limit = limit
        self._period = period
        self._phase = phase
        self._bucket = 0
        self._previous = 0
        self._current = 0

    def take(self, now: float) -> bool:
        """Count an arrival, or return False when it is one too many."""
        bucket, elapsed = divmod(now - self._phase, self._period)
        self._turn_to(int(bucket))
        estimate = self._previous * (1 - elapsed / self._period) + self._current + 1
        if estimate > self._limit:
            return False
        self._current += 1
        return True

    def clear(self) -> None:
        """Forget all arrivals."""
        self._previous = self._current = 0

    def _turn_to(self, bucket: int) -> None:
        if bucket == self._bucket:
            return
        self._previous = self._current if bucket == self._bucket + 1 else 0
        self._current = 0
        self._bucket = bucket


class FixedWindow:
    """Counts from zero in every window of a fixed grid."""

    def __init__(self, limit: int, period: float, phase: float = 0.0) -> None:
        self._limit = limit
        self._period = period
        self._phase = phase
        self._window = 0
        self._count = 0

    def take(self, now: float) -> bool:
        """Count an arrival, or return False when it is one too many."""
        window = int((now - self._phase) // self._period)
        if window != self._window:
            self._window = window
            self._count = 0
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def clear(self) -> None:
        """Forget all arrivals."""
        self._count = 0


class Edge:
    """Lets arrivals pass until one is too many, then refuses all for `cooldown`."""

    def __init__(self, counter: Counter, cooldown: float) -> None:
        self._counter = counter
        self._cooldown = cooldown
        self._tripped = False
        self._until = 0.0

    def admit(self, now: float) -> bool:
        """Return whether an arrival passes; an arrival too many starts the cooldown."""
        if self._tripped:
            if now < self._until:
                return False
            self._tripped = False
            self._counter.clear()
        if self._counter.take(now):
            return True
        self._tripped = True
        self._until = now + self._cooldown
        return False

    def cooling(self, now: float) -> float:
        """Return how long everything is refused from `now` on."""
        return max(0.0, self._until - now) if self._tripped else 0.0


def make_edge(kind: str, limit: int, period: float, cooldown: float, phase: float = 0.0) -> Edge:
    """Return an edge that counts in the way named `kind`."""
    if kind == "exact":
        return Edge(ExactWindow(limit, period), cooldown)
    if kind == "counter":
        return Edge(WeightedBuckets(limit, period, phase), cooldown)
    if kind == "fixed":
        return Edge(FixedWindow(limit, period, phase), cooldown)
    raise ValueError(f"edge must be 'exact', 'counter' or 'fixed', not {kind!r}")


def most_in_window(stamps: list[float], period: float) -> int:
    """Return the most of the ascending `stamps` that lie in any window [t, t + period)."""
    most = first = 0
    for index, stamp in enumerate(stamps):
        while stamp - stamps[first] >= period:
            first += 1
        most = max(most, index - first + 1)
    return most


def refuse(style: str, host: str, ray: str, cooling: float, retry_after: float | None) -> Answer:
    """Return a 429 in the given style.

    Args:
        style: One of `REFUSALS`.
        host: The name in the HTML page.
        ray: The id of the request at the edge.
        cooling: Real seconds until the edge lets requests pass again.
        retry_after: Real seconds for a Retry-After header, or None for no such header.
    """
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    if style == "html":
        return Answer(429, _PAGE.format(host=host, ray=ray).encode(), "text/html; charset=UTF-8", headers)
    if style == "json":
        return Answer(429, error_answer(429).body, headers=headers)
    wait = cooling if retry_after is None else retry_after
    problem = {
        "title": "Error 1015: rate limited",
        "status": 429,
        "detail": "Too many requests came from your address.",
        "retry_after": round(wait, 3),
        "ray_id": ray,
    }
    return Answer(429, json.dumps(problem).encode(), "application/problem+json", headers)
