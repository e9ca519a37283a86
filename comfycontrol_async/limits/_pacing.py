"""Pacing: what to do when the server disagrees with our own count.

- `burst`: as the API documents it: whatever the window allows goes at once.
- `smooth`: what every known kind of edge lets through, see below.
- `auto`: bursts, until a 429 comes that our own count cannot explain; then smooth, until an hour has passed without
  another one. As long as no more than `limit` requests went out in all, a 429 says nothing about how they were spread:
  somebody else behind the address used up the budget.

The method that Cloudflare published counts in two fixed buckets: with `previous` and `current` arrivals in the bucket
before and in the one that began e seconds ago, an arrival passes while

    previous * (1 - e / period) + current + 1 <= limit

and nobody but the edge knows where its buckets begin. Between two neighbouring moments at which an earlier request
leaves or enters a bucket the left side grows with the beginning b of the current bucket, so it suffices to look at the
b that coincide with an earlier request, at those a period after one, and at b = now: if it holds there, it holds for
every b. One request is kept in hand, as requests do not arrive in the rhythm in which they are sent: two of them would
have to be late across the same boundary to be noticed.

In numbers, limit 40 and period 10, all at once at second 0 after a long pause: 39 pass. At second 10 a bucket may have
begun right after them and be about to end: 39 * 0 + 39 pass; but had it begun at second 4, 39 * 0.4 + 23 pass, and
had it begun just now, 39 + 0: none. So the next one goes at second 10.26, and then one each 0.26 s: 38 per period, 95 %
of the limit, which is the price of not knowing. One look costs O(limit).
"""

from collections import deque
from typing import Literal, get_args

PacingMode = Literal["auto", "burst", "smooth"]
MODES: tuple[str, ...] = get_args(PacingMode)

# Seconds without a 429 after which `auto` returns to bursts. An edge that counts in buckets refuses the first burst
# again, which costs one cooldown: once an hour that is 0.3 % of the throughput.
QUIET = 3600.0

_ALWAYS = float("-inf")
# Seconds by which a request is later than the moment at which it has left a bucket.
_JUST_AFTER = 1e-6


class Pacing:
    """Decides when the next request may go, beside the window; `mode` is what the user asked for."""

    __slots__ = ("_log", "_ready", "_spare", "_until", "limit", "mode", "period")

    def __init__(self, mode: PacingMode, limit: int, period: float) -> None:
        self.mode = mode
        self.limit = limit
        self.period = period
        self._until = float("inf") if mode == "smooth" else _ALWAYS
        # The grants of the last two periods, while smooth.
        self._log: deque[float] = deque()
        self._ready: float | None = None
        # How many may be counted at once: one is kept in hand where there are enough.
        self._spare = limit - 1 if limit > 3 else limit

    def smooth(self, now: float) -> bool:
        """Tell whether requests are spread now."""
        return now < self._until

    def refused(self, now: float, granted: int) -> bool:
        """Take note of the first 429 of a cooldown, after `granted` requests in all; tell whether the way changed."""
        if self.mode == "burst" or (granted <= self.limit and not self.smooth(now)):
            return False
        changed = not self.smooth(now)
        if self.mode == "auto":
            self._until = now + QUIET
        # Nobody knows what the edge has counted so far: at worst all that it allows, and just now.
        self._log = deque([now] * self._spare)
        self._ready = None
        return changed

    def granted(self, now: float) -> None:
        """Take note of a request that goes now."""
        self._log.append(now)
        self._ready = None

    def ready_at(self, now: float) -> float:
        """Return the moment from which on the next request may go, as far as can be told now."""
        if not self.smooth(now):
            return _ALWAYS
        if self._ready is None or self._ready <= now:
            self._ready = self._next(now)
        return self._ready

    def expected(self, now: float, ahead: int) -> float:
        """Estimate when a newcomer with `ahead` others before it may go."""
        if not self.smooth(now):
            return _ALWAYS
        return self.ready_at(now) + ahead * self.period / max(1, self.limit - 2)

    def _next(self, now: float) -> float:
        log, period = self._log, self.period
        while log and log[0] < now - 2 * period:
            log.popleft()
        stamps = list(log)
        boundaries = [stamp for stamp in stamps if stamp > now - period]
        boundaries += [stamp + period for stamp in stamps if now - period < stamp + period <= now]
        boundaries.append(now)
        boundaries.sort()
        at = now
        before = left = 0  # how many stamps lie before the boundary, and before the bucket before it
        for boundary in boundaries:
            while before < len(stamps) and stamps[before] < boundary:
                before += 1
            while left < before and stamps[left] < boundary - period:
                left += 1
            previous, current = before - left, len(stamps) - before
            room = self._spare - current - 1
            if room < 0:
                at = max(at, boundary + period + _JUST_AFTER)
            elif previous > room:
                at = max(at, boundary + period * (1 - room / previous))
        return at
