"""LocalShare: what one process may send while nobody can be asked for slots."""

from bisect import bisect_right


class LocalShare:
    """`limit` slots of this process alone, by number; all are taken until `charged_until` at first."""

    __slots__ = ("_taken", "granted", "limit")

    def __init__(self, limit: int, charged_until: float) -> None:
        self.limit = limit
        # Whether any request went out on it.
        self.granted = False
        self._taken: dict[int, float] = {-1 - index: charged_until for index in range(limit)}

    def take(self, number: int, free_at: float, now: float) -> bool:
        """Take a slot under this number if one is free."""
        self._taken = {key: at for key, at in self._taken.items() if at > now}
        if len(self._taken) >= self.limit:
            return False
        self._taken[number] = free_at
        self.granted = True
        return True

    def note(self, number: int, free_at: float) -> None:
        """Note when the slot of this number will be free; one that was taken elsewhere counts from now on."""
        self._taken[number] = free_at

    def moments(self, now: float) -> list[float]:
        """Return in ascending order when slots come free that are taken."""
        moments = sorted(self._taken.values())
        return moments[bisect_right(moments, now) :]

    def next_free(self, now: float) -> float:
        """Return when the next slot can be taken: now, or later."""
        moments = self.moments(now)
        return moments[len(moments) - self.limit] if len(moments) >= self.limit else now
