"""LocalLimiter and its store: the slots of one process, in its memory."""

import math
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable
from itertools import count

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async.limits._flights import SETTLED
from comfycontrol_async.limits._pacing import NEVER, Pacing, after_grants, after_refusal, is_spread
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._rule import PacingMode, Rule
from comfycontrol_async.limits._scheduler import Scheduler
from comfycontrol_async.limits._store import BudgetState, Slot, Taken


class MemoryStore:
    """`limit` slots, of which those that are neither in flight nor `charged` are just moments.

    The moments ascend, for each is a span after its answer: taking a slot is a comparison and a `popleft`, freeing one
    an `append`. They lie in `free`, from where the scheduler takes them by itself, as long as nothing but the window
    decides; else in `aside`. A slot whose moment may still be changed, that of a lapsed or lost request, has an entry
    in `charged` until it is taken again.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._span = rule.span
        self.free: deque[float] = deque()
        self.in_flight: dict[Slot, float] = {}
        self.numbers = count(1)
        self._slots = count(-1, -1)
        self._aside: deque[float] = deque([NEVER] * rule.limit)
        self.moments = self._aside
        self._charged: dict[Slot, float] = {}
        self._gate = NEVER
        self._pacing = Pacing()
        # Numbers that were no grants, and grants that were taken back.
        self._not_granted = 0
        self._forked = False
        self._look(NEVER)

    def attach(self, wake: Callable[[], None]) -> None:
        """Nothing changes here but by the scheduler."""

    def take(self, wanted: int, now: float) -> Taken:
        """Take slots, those first that are free the longest."""
        self._look(now)
        if now < self._gate:
            return Taken(wake=self._gate, gate=self._gate)
        slots: list[Slot] = []
        rule, moments, charged = self._rule, self.moments, self._charged
        spread = is_spread(rule, self._pacing, now)
        while len(slots) < wanted:
            if spread and self._pacing.ready_at > now:
                break
            if charged and (slot := min(charged, key=charged.__getitem__)) and charged[slot] <= now:
                del charged[slot]
            elif moments and moments[0] <= now:
                moments.popleft()
            else:
                break
            slots.append(next(self._slots))
            self._pacing = after_grants(rule, self._pacing, 1, now)
        return Taken(slots, self._next_free(now))

    def release_at(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Free a slot then."""
        if slot in self._charged:
            self._charged[slot] = free_at
        elif slot in self.in_flight:
            if final and free_at <= now + self._span:
                self.moments.append(free_at)
            else:
                self._charged[slot] = free_at

    def refund(self, slot: Slot, now: float) -> None:
        """Free a slot at once."""
        self._not_granted += 1
        self.moments.appendleft(NEVER)

    def refused(self, until: float, now: float) -> bool:
        """Close the gate."""
        granted = next(self.numbers) - 1 - self._not_granted
        self._not_granted += 1
        before = is_spread(self._rule, self._pacing, now)
        pacing = self._pacing._replace(granted=granted)
        self._pacing = after_refusal(self._rule, pacing, self._gate, until, now)
        self._gate = max(self._gate, until)
        if self.moments is self.free:
            self._aside.extend(self.free)
            self.free.clear()
            self.moments = self._aside
        return is_spread(self._rule, self._pacing, now) and not before

    def forget(self) -> None:
        """No other process knows of the waiters."""

    def after_fork(self) -> None:
        """Take the window as spent, as the parent shares the address; from when on is seen at the next look."""
        self._forked = True

    def state(self, now: float) -> BudgetState:
        """Return what is known of the budget."""
        self._look(now)
        moments = [moment for moment in (*self.moments, *self._charged.values()) if moment > now]
        moments += [now + self._span] * (self._rule.limit - len(self.moments) - len(self._charged))
        return BudgetState(
            limit=self._rule.limit,
            moments=sorted(moments),
            gate=self._gate,
            spread=is_spread(self._rule, self._pacing, now),
            pace_at=self._pacing.ready_at,
        )

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _look(self, now: float) -> None:
        """Let the scheduler take slots by itself while nothing but the window decides."""
        if self._forked:
            self._forked = False
            self.free.clear()
            self._charged.clear()
            self._aside = self.moments = deque([now + self._span] * self._rule.limit)
        if self.moments is self._aside and self._gate <= now and not is_spread(self._rule, self._pacing, now):
            self.free.extend(self._aside)
            self._aside.clear()
            self.moments = self.free

    def _next_free(self, now: float) -> float:
        """Return when a slot can be taken next; inf while all are in flight."""
        first = min(self._charged.values(), default=math.inf)
        if self.moments:
            first = min(first, self.moments[0])
        return max(first, self._pacing.ready_at) if is_spread(self._rule, self._pacing, now) else first


class LocalPermit(Permit):
    """The permit of a LocalLimiter: the same, with the frequent case written out, where calls are most of the cost."""

    def arrived(self) -> None:
        """Say that the response headers are here: the slot is free a period from now."""
        ledger = self._ledger
        if self._state or _get_running_loop() is not ledger.loop:
            return ledger.on_arrived(self)
        try:
            del ledger.in_flight[self._slot]
        except KeyError:  # of a loop that is gone
            return ledger.on_arrived(self)
        self._state = SETTLED
        free_at = ledger.monotonic() + ledger.span
        ledger.store.moments.append(free_at)  # type: ignore[attr-defined] # a MemoryStore
        if ledger.queue.waiting:
            ledger.freed(free_at, free_at - ledger.span)
        return None


class LocalLimiter(Scheduler):
    """At most `limit` requests in any `period` seconds at the server, for one process and event loop.

    Args:
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit).
        pacing: how grants are spread. "burst": as documented, all that the window allows at once. "smooth": one each
            `period / (limit - 2)`. "auto": bursts, until a 429 comes that the own count cannot explain; then smooth,
            for an hour.
        clock: where time comes from.

    May be made without an event loop and binds to the first one that acquires. When that loop has been closed the
    next one takes over, with what was in flight charged; after `fork` the child starts with the window charged.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
    """

    _permit_type = LocalPermit

    def __init__(
        self, limit: int = 40, period: float = 10.0, *, pacing: PacingMode = "auto", clock: Clock = SYSTEM_CLOCK
    ) -> None:
        rule = Rule(limit, period, pacing)
        store = MemoryStore(rule)
        super().__init__(rule, clock, store, store.free, store.in_flight, store.numbers)
