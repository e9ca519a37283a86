"""CooldownGate: a deadline that only moves out; nothing is sent before it.

After a 429 the server refuses everything for 10 s (API documentation: authentication, rate limit), so one refusal
closes the gate for all.
"""

_OPEN = float("-inf")


class CooldownGate:
    """Closed until `until`, in seconds of the limiter's clock; -inf when it is open."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = _OPEN

    def close(self, until: float) -> bool:
        """Close it until then; an earlier deadline changes nothing. Tell whether it was open before."""
        was_open = self.until == _OPEN
        self.until = max(self.until, until)
        return was_open

    def passes(self, now: float) -> bool:
        """Tell whether it lets requests through."""
        return now >= self.until

    def open_if_due(self, now: float) -> bool:
        """Open it when its time has come; tell whether this call opened it."""
        if self.until == _OPEN or now < self.until:
            return False
        self.until = _OPEN
        return True

    def remaining(self, now: float) -> float:
        """Return the seconds until it opens, 0.0 when it is open."""
        return max(0.0, self.until - now)
