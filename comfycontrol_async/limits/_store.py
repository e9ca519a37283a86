"""SlotStore: where slots are kept, as the scheduler needs it; three implementations: memory, file, Redis.

A store never waits and never queues. A slot is a whole number, which means something to its store only: it names one
unit of the limit *and* one time that it was handed out, so that the holder of an old one cannot touch the new holder's.
All moments are seconds of the limiter's clock.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import attrs

from comfycontrol_async.limits._pacing import NEVER
from comfycontrol_async.limits._rule import Rule

Slot = int


class Taken(NamedTuple):
    """What `take` brought: at most as many slots as were wanted, and when to look again.

    The slots are charged already until `lease` + a span, and are another process's after that unless they are charged
    again; inf where no other process can take them. `gate` is when the cooldown ends, of which the store knows.
    """

    slots: Sequence[Slot] = ()
    wake: float = math.inf
    lease: float = math.inf
    gate: float = NEVER


@attrs.frozen(kw_only=True)
class BudgetState:
    """The budget at one moment, and the one estimate of a newcomer's wait.

    `moments` says in ascending order when each slot comes free that is taken, at the earliest if it is in flight.
    `gate` is when the cooldown ends; while requests are `spread`, the next one may go at `pace_at`. `limit` is the
    rule's, or less while this process has to do with a part of it.
    """

    limit: int
    moments: Sequence[float]
    gate: float = NEVER
    spread: bool = False
    pace_at: float = NEVER

    def used(self, now: float) -> int:
        """Return how many slots are taken."""
        return min(self.limit, sum(moment > now for moment in self.moments))

    def wait(self, rule: Rule, now: float, ahead: int) -> float:
        """Return the shortest wait of a newcomer with `ahead` others before it in its process.

        Every request counts as answered at once, and no other process as waiting: it may take longer, never less,
        unless a waiter or a permit is given up meanwhile.
        """
        rounds, place = divmod(ahead, self.limit)
        place -= self.limit - len(self.moments)
        start = max(self.gate, now)
        at = max(now if place < 0 else self.moments[place], start) + rounds * rule.span
        if self.spread:
            at = max(at, max(self.pace_at, start) + ahead * rule.pace)
        return at - now


class SlotStore(Protocol):
    """Where slots are kept. All methods but `aclose` return at once; all run on the thread of the limiter's loop."""

    def attach(self, wake: Callable[[], None]) -> None:
        """Get ready for the running event loop; call `wake` there when an answer of the store changes something.

        Raises:
            ConfigurationError: slots cannot be kept there.
        """

    def take(self, wanted: int, now: float) -> Taken:
        """Take at most `wanted` slots, all that is this process's turn, and remember that the rest is waited for.

        Whatever it raises, a `ComfyControlError`, all waiters get.
        """
        ...

    def release_at(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Free a slot at `free_at`: its request has arrived or is lost, or its lease is renewed.

        Unless it is `final` it may be called again, also with an earlier moment. If the slot was taken again by then
        it does nothing; or, where the lease had ended before the request was known to have arrived, it charges another.
        """

    def refund(self, slot: Slot, now: float) -> None:
        """Free a slot at once: its request never left."""

    def refused(self, until: float, now: float) -> bool:
        """Close the gate until then, for all processes, after a 429; return whether requests are spread from now on."""
        ...

    def forget(self) -> None:
        """No task of this process waits any more."""

    def after_fork(self) -> None:
        """Let go, in a forked child, of what is the parent's."""

    def state(self, now: float) -> BudgetState:
        """Return what is known of the budget.

        Raises:
            ConfigurationError: slots cannot be kept there.
        """
        ...

    async def aclose(self) -> None:
        """Pass on what was not yet, and let go of what is the limiter's own."""
