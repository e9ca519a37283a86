"""Known: what one process knows of slots that a server keeps, and its share of them while the server is gone."""

import math
from collections.abc import Sequence

from comfycontrol_async.limits._pacing import NEVER, Pacing, after_grants, is_spread
from comfycontrol_async.limits._question import Answer
from comfycontrol_async.limits._rule import HOLD_CAP, LEASE, LOST_TAIL, Rule
from comfycontrol_async.limits._store import BudgetState, Slot


class Known:
    """Our own slots, and what the last answer said of the others'.

    `gate` is when the cooldown ends; `rivals` other processes wait; `round_trip` is for how many seconds a slot is
    held, in the mean of the last ones. `share_at` is from when on our share may be used, None while the server is
    there; `share_used` whether it was.
    """

    def __init__(self, rule: Rule, share: int) -> None:
        self._rule = rule
        self._share = Rule(max(1, share), rule.period, rule.pacing)
        # Until when our slots are taken, and when they were taken.
        self._own: dict[Slot, float] = {}
        self._taken_at: dict[Slot, float] = {}
        # Until when the slots of others are charged, and when those come free that no process has.
        self._others: Sequence[float] = ()
        self._spent: Sequence[float] = ()
        self._pacing = Pacing()
        self.rivals = 0
        self.gate = NEVER
        self.round_trip = 0.0
        self.share_at: float | None = None
        self.share_used = False

    def took(self, slot: Slot, lease: float, at: float) -> None:
        """Note a slot that was taken."""
        self._own[slot], self._taken_at[slot] = lease + self._rule.span, at

    def released(self, slot: Slot, free_at: float, now: float, *, final: bool) -> None:
        """Note when a slot of ours comes free."""
        if final or self._own.get(slot, NEVER) > now:
            self._own[slot] = free_at
        if final and free_at <= now + self._rule.span:  # answered
            held = min(now - self._taken_at.pop(slot, now), HOLD_CAP)
            self.round_trip += (held - self.round_trip) / 8

    def refunded(self, slot: Slot) -> None:
        """Forget a slot of ours."""
        self._own.pop(slot, None)
        self._taken_at.pop(slot, None)

    def own(self, now: float) -> dict[Slot, float]:
        """Return until when each of our slots is taken, of those that are."""
        self._own = {slot: until for slot, until in self._own.items() if until > now}
        if len(self._taken_at) > 4 * self._rule.limit:
            self._taken_at = {slot: at for slot, at in self._taken_at.items() if slot in self._own}
        return self._own

    def learn(self, answer: Answer, sent_at: float, now: float) -> None:
        """Take over what the server said, which is back if it was gone."""
        self.share_at, self.share_used = None, False
        self._others = [sent_at + left for left in answer.others]
        self._spent = [sent_at + left for left in answer.spent]
        self._pacing = Pacing(math.inf if answer.spread else NEVER, now + answer.pace)
        self.rivals = answer.rivals
        if answer.gate:
            self.gate = max(self.gate, now + answer.gate)

    def state(self, now: float) -> BudgetState:
        """Return what is known of the budget."""
        # In flight: free a span from now at the earliest, less what rounding may add to that.
        rule, latest = self._rule, now + self._rule.span - 1e-6
        taken = [min(moment, latest) for moment in self._own.values()]
        if self.share_at is not None:
            rule = self._share
            taken += [self.share_at] * rule.limit
        else:
            taken += [*(min(moment, latest) for moment in self._others), *self._spent]
        return BudgetState(
            limit=rule.limit,
            moments=sorted(moment for moment in taken if moment > now)[-rule.limit :],
            gate=self.gate,
            spread=is_spread(rule, self._pacing, now),
            pace_at=self._pacing.ready_at,
        )

    # Our share

    def go_on_alone(self, now: float) -> None:
        """Begin to use our share: what all sent until now counts, and what we have under way may be the last of it."""
        in_flight = any(until > now + self._rule.span for until in self._own.values())
        self.share_at = now + (HOLD_CAP if in_flight else LOST_TAIL) + self._rule.span
        self.share_used = False

    def take_share(self, first: Slot, wanted: int, now: float) -> range:
        """Take at most so many slots of our share, with numbers from `first` on."""
        slot = first
        while slot < first + wanted and self.next_of_share(now) <= now:
            self.took(slot, now + LEASE, now)
            self._pacing = after_grants(self._share, self._pacing, 1, now)
            self.share_used = True
            slot += 1
        return range(first, slot)

    def next_of_share(self, now: float) -> float:
        """Return when the next slot of our share can be taken."""
        at = self.share_at or now
        taken = sorted(self.own(now).values())
        if len(taken) >= self._share.limit:
            at = max(at, taken[len(taken) - self._share.limit])
        return max(at, self._pacing.ready_at) if is_spread(self._share, self._pacing, now) else at
