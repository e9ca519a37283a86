"""View: what one process knows of the slots that it shares, and how long somebody would have to wait."""

import math
from collections.abc import Sequence

import attrs

from comfycontrol_async.limits._rule import Rule


@attrs.frozen(kw_only=True)
class View:
    """The slots at one moment.

    `moments` says in ascending order when slots come free, at the earliest if they are in flight; one that is not in
    it is free. `gate` is when the cooldown
    ends, `pace_at` when the next request may go while they are spread; `rivals` holds how many wait in each other
    process. `limit` is the rule's, or less while this process has to do with a part of it.
    """

    limit: int
    moments: Sequence[float]
    gate: float = -math.inf
    smooth: bool = False
    pace_at: float = -math.inf
    rivals: Sequence[int] = ()

    def used(self, now: float) -> int:
        """How many slots are taken."""
        return min(self.limit, sum(moment > now for moment in self.moments))

    def needed(self, rule: Rule, now: float, ahead: int) -> float:
        """Estimate the wait of someone with `ahead` others before it in its process.

        Every grant counts as answered at once, and everybody as taking turns: what comes out is the earliest moment,
        late only by the round trips in between.
        """
        ahead += sum(min(demand, ahead + 1) for demand in self.rivals)
        rounds, place = divmod(ahead, self.limit)
        busy = self.moments
        place -= self.limit - len(busy)
        first = now if place < 0 else busy[place]
        start = max(self.gate, now)
        at = max(first, start) + rounds * rule.span
        if self.smooth:
            at = max(at, max(self.pace_at, start) + ahead * rule.pace)
        return at - now
