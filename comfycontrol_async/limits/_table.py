"""SlotTable: a store that several schedulers share, each of which counts as a process: in a file, or in memory.

`take` is one step under the lock: look at the slots, count the turns (`_turns`), charge what is taken, register what is
still wanted. All else is a few bytes.
"""

import logging
import random
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Protocol

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits._pacing import NEVER, Pacing, after_grants, after_refusal, is_spread, spread_out
from comfycontrol_async.limits._rule import LEASE, Rule
from comfycontrol_async.limits._slot_file import (
    CONTENDED,
    COUNT,
    DEMAND,
    DUE,
    FIRST_SERIAL,
    GATE,
    MEMBERS,
    NAME,
    READY_AT,
    RECORD,
    RECORDS,
    SLOT,
    SLOTS,
    SPREAD_UNTIL,
    TOUCHED,
    LockBusyError,
)
from comfycontrol_async.limits._store import BudgetState, Slot, Taken
from comfycontrol_async.limits._turns import Member, share_out, starting_count

log = logging.getLogger("comfycontrol_async.limits")

# Seconds until the next try when a process that was stopped has the lock.
_RETRY = 0.05
# Seconds by which processes that wake for the same moment are spread.
_JITTER = 0.001
# A slot that is charged for so many seconds more can be charged again without the lock.
_SAFE = 1.0
# A record that says it looks later, or wants or had more, is harm.
_FURTHEST_LOOK = 1000.0
_MOST_WANTED = 2.0**40

# Seconds between two records of the last use.
_TOUCH = 1.0

_DOUBLE, _TRIPLE, _RECORD = Struct("=d"), Struct("=3d"), Struct("=4d")


class Doubles(Protocol):
    """The numbers that are shared, as `_slot_file` lays them out."""

    members: int

    def unlock(self) -> None:
        """Let the others in."""

    def load(self, now: float) -> "array[float]":
        """Return everything up to the members; the lock is held."""
        ...

    def check(self, data: "array[float]", now: float) -> None:
        """Correct what cannot be true in it; the lock is held."""

    def read(self, place: int, count: int) -> bytes:
        """Return so many numbers, or fewer."""
        ...

    def write(self, place: int, data: bytes) -> None:
        """Store numbers."""


class Place(Protocol):
    """Where the numbers are."""

    def enter(self, now: float) -> Doubles:
        """Lock and return the numbers that are in use now.

        Raises:
            ConfigurationError: they cannot be used.
            LockBusyError: another process has the lock, and does not go on.
        """
        ...

    def close(self) -> None:
        """Let go of them."""

    def after_fork(self) -> None:
        """Let go, in a forked child, of what is the parent's."""


class SlotTable:
    """The store (`SlotStore`)."""

    def __init__(self, rule: Rule, place: Place) -> None:
        self._rule = rule
        self._place = place
        self._doubles: Doubles | None = None
        # A cooldown that the others do not know of yet.
        self._untold_gate = NEVER
        # Until when our slots are charged in the file.
        self._charged: dict[Slot, float] = {}
        self._rename()

    def _rename(self) -> None:
        # What we are called, and where our member record lies.
        self._name = random.getrandbits(52) + 1.0
        self._record: int | None = None

    def attach(self, wake: Callable[[], None]) -> None:
        """There are no notices of changes: waiters look again in time."""

    def take(self, wanted: int, now: float) -> Taken:
        """Take the slots that are this process's turn."""
        try:
            doubles = self._enter(now)
        except LockBusyError:
            return Taken(wake=now + _RETRY)
        try:
            data = doubles.load(now)
            if wanted == 1 and self._simple(data, now):
                # What cannot be true does no harm here: no comparison with it holds.
                moments = data[SLOTS::SLOT]
                first = min(moments)
                if first <= now:
                    return Taken((self._charge(doubles, data, moments.index(first), now),), lease=now + LEASE)
            doubles.check(data, now)
            self._publish_gate(doubles, data, now)
            return self._take_slots(doubles, data, wanted, now)
        finally:
            doubles.unlock()

    def release_at(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Free a slot then; another one instead if this one was taken again and it is the last word."""
        serial, index = divmod(slot, self._rule.limit)
        place = SLOTS + SLOT * index
        doubles, charged = self._doubles, self._charged.pop(slot, NEVER)
        try:
            if doubles is not None and charged > now + _SAFE and free_at > now:
                # No other process touches it before that moment. Should the file have been made again since, all its
                # slots are charged to a span after that, which is not later than this answer's.
                doubles.write(place, _DOUBLE.pack(free_at))
            else:
                self._release_locked(place, serial, free_at, now, final)
        except (ConfigurationError, LockBusyError) as error:
            log.warning("a slot stays charged for longer, as the slots cannot be changed: %s", error)
        if not final:
            self._charged[slot] = free_at

    def refund(self, slot: Slot, now: float) -> None:
        """Free a slot at once."""
        self._charged.pop(slot, None)
        serial, index = divmod(slot, self._rule.limit)
        try:
            self._release_locked(SLOTS + SLOT * index, serial, now, now, final=False)
        except (ConfigurationError, LockBusyError) as error:
            log.warning("a slot stays charged for longer, as the slots cannot be changed: %s", error)

    def refused(self, until: float, now: float) -> bool:
        """Close the gate for all."""
        self._untold_gate = until
        try:
            doubles = self._enter(now)
            try:
                data = doubles.load(now)
                doubles.check(data, now)
                return self._publish_gate(doubles, data, now)
            finally:
                doubles.unlock()
        except LockBusyError:
            return False  # published with the next look; here it holds at once
        except ConfigurationError as error:
            log.warning("no other process knows of the cooldown: %s", error)
            return False

    def forget(self) -> None:
        """Take ourselves off the members."""
        doubles, record = self._doubles, self._record
        if doubles is not None and record is not None:
            with suppress(ConfigurationError):  # our record ends by itself
                if doubles.read(record + NAME, 1) == _DOUBLE.pack(self._name):
                    doubles.write(record + DEMAND, _DOUBLE.pack(0.0))

    def after_fork(self) -> None:
        """Open the file again: the lock of the parent's would be ours as well."""
        self._place.after_fork()
        self._doubles = None
        self._charged.clear()
        self._rename()

    def state(self, now: float) -> BudgetState:
        """Return what the table says."""
        try:
            doubles = self._enter(now)
        except LockBusyError:
            return BudgetState(limit=self._rule.limit, moments=[now + self._rule.span] * self._rule.limit)
        try:
            data = doubles.load(now)
            doubles.check(data, now)
        finally:
            doubles.unlock()
        pacing = _pacing(data)
        # Whatever is in flight comes free a span from now at the earliest.
        latest = now + self._rule.span
        return BudgetState(
            limit=self._rule.limit,
            moments=sorted(min(moment, latest) for moment in data[SLOTS::SLOT] if moment > now),
            gate=max(data[GATE], self._untold_gate),
            spread=is_spread(self._rule, pacing, now),
            pace_at=pacing.ready_at,
        )

    async def aclose(self) -> None:
        """Let go of the file."""
        self._place.close()
        self._doubles = None

    # Under the lock

    def _enter(self, now: float) -> Doubles:
        doubles = self._place.enter(now)
        if doubles is not self._doubles:
            self._doubles, self._record = doubles, None
            self._charged.clear()
        return doubles

    def _simple(self, data: "array[float]", now: float) -> bool:
        """Return whether nothing but the window decides: no gate, no other process that waits, no spreading."""
        mode = self._rule.pacing
        return (
            data[GATE] <= now
            and self._untold_gate <= now
            and data[CONTENDED] <= now
            and mode != "smooth"
            and (data[SPREAD_UNTIL] <= now or mode == "burst")
        )

    def _charge(self, doubles: Doubles, data: "array[float]", index: int, now: float) -> Slot:
        """Take a slot until the end of its lease."""
        place = SLOTS + SLOT * index
        serial, charged = data[place + 2] + 1.0, now + LEASE + self._rule.span
        if not 0.0 < serial < 2.0**52:
            serial = data[FIRST_SERIAL] + 1.0 if 0.0 <= data[FIRST_SERIAL] < 2.0**51 else 1.0
        doubles.write(place, _TRIPLE.pack(charged, self._name, serial))
        if data[TOUCHED] < now - _TOUCH:
            data[TOUCHED] = now
            doubles.write(TOUCHED, _DOUBLE.pack(now))
        slot = int(serial) * self._rule.limit + index
        self._charged[slot] = charged
        if len(self._charged) > 4 * self._rule.limit:
            self._charged = {mine: until for mine, until in self._charged.items() if until > now}
        return slot

    def _take_slots(self, doubles: Doubles, data: "array[float]", wanted: int, now: float) -> Taken:
        rule, gate, pacing = self._rule, data[GATE], _pacing(data)
        moments = data[SLOTS::SLOT]
        order = sorted(range(rule.limit), key=moments.__getitem__)
        latest = now + rule.span
        known = spread_out(rule, pacing, (min(moments[index], latest) for index in order), gate, now)
        members = self._members(doubles, data, now) if data[CONTENDED] > now else []
        rivals = [member for member in members if member.name != self._name]
        me = self._myself(members, data, rivals, wanted, now)
        mine, wake = share_out(known, now, me, rivals, rule.grace)
        if wanted > mine:
            wake = min(wake, latest) + random.random() * _JITTER
        self._register_demand(doubles, data, me, mine, rivals, wake, now)
        slots = [self._charge(doubles, data, index, now) for index in order[:mine]]
        data[READY_AT] = after_grants(rule, pacing, mine, now).ready_at
        doubles.write(GATE, data[GATE:SLOTS].tobytes())
        return Taken(slots, wake, now + LEASE, gate)

    def _publish_gate(self, doubles: Doubles, data: "array[float]", now: float) -> bool:
        """Note our 429, and what it means for the pace; return whether requests are spread from now on."""
        until, self._untold_gate = self._untold_gate, NEVER
        if until <= now:
            return False
        rule, pacing = self._rule, _pacing(data)
        before = is_spread(rule, pacing, now)
        pacing = after_refusal(rule, pacing, data[GATE], until, now)
        data[GATE] = max(data[GATE], until)
        data[SPREAD_UNTIL], data[READY_AT] = pacing.spread_until, pacing.ready_at
        doubles.write(GATE, data[GATE:SLOTS].tobytes())
        return is_spread(rule, pacing, now) and not before

    def _release_locked(self, place: int, serial: int, free_at: float, now: float, final: bool) -> None:
        doubles = self._enter(now)
        try:
            data = doubles.load(now)
            doubles.check(data, now)
            if data[place + 2] == serial:
                doubles.write(place, _DOUBLE.pack(free_at))
            elif final:
                # It went to another process meanwhile, or the file was made again: charge the one that is free first.
                moments = data[SLOTS::SLOT]
                first = min(moments)
                if first < free_at:
                    doubles.write(SLOTS + SLOT * moments.index(first), _DOUBLE.pack(free_at))
        finally:
            doubles.unlock()

    # Members

    def _members(self, doubles: Doubles, data: "array[float]", now: float) -> list[Member]:
        """List the processes that wait."""
        fields = array("d", _whole(doubles.read(doubles.members, int(data[RECORDS]) * RECORD)))
        return [
            Member(fields[place + COUNT], fields[place + NAME], int(fields[place + DEMAND]), fields[place + DUE])
            for place in range(0, len(fields) - RECORD + 1, RECORD)
            if now < fields[place + DUE] + self._rule.grace < now + _FURTHEST_LOOK
            and 1 <= fields[place + DEMAND] <= _MOST_WANTED
            and abs(fields[place + COUNT]) <= _MOST_WANTED
        ]

    def _myself(
        self, members: list[Member], data: "array[float]", rivals: list[Member], wanted: int, now: float
    ) -> Member:
        for member in members:
            if member.name == self._name:
                return member._replace(demand=wanted)
        if not rivals:
            return Member(0.0, self._name, wanted)
        owners, moments = data[SLOTS + 1 :: SLOT], data[SLOTS::SLOT]
        recent = Counter(owner for owner, moment in zip(owners, moments, strict=True) if moment > now)
        return Member(starting_count(recent, self._name, rivals, self._rule.limit), self._name, wanted)

    def _register_demand(
        self,
        doubles: Doubles,
        data: "array[float]",
        me: Member,
        mine: int,
        rivals: list[Member],
        due: float,
        now: float,
    ) -> None:
        """Note how many of us still wait, and when we look next."""
        left = me.demand - mine
        if left or self._record is not None:
            place = self._my_record(doubles, data, now, bool(left))
            if place is not None:
                doubles.write(place, _RECORD.pack(self._name, due if left else now, left, me.had + mine))
        if left:
            data[CONTENDED] = max(data[CONTENDED], due + self._rule.grace)
        elif not rivals:
            data[CONTENDED] = NEVER

    def _my_record(self, doubles: Doubles, data: "array[float]", now: float, make: bool) -> int | None:
        """Return the place of our record, a new one if need be; None when all are in use."""
        records = int(data[RECORDS])
        fields = array("d", _whole(doubles.read(doubles.members, records * RECORD)))
        mine = vacant = None
        for place in range(0, len(fields) - RECORD + 1, RECORD):
            if fields[place + NAME] == self._name:
                mine = place
                break
            if vacant is None and not now < fields[place + DUE] + self._rule.grace:
                vacant = place
        if mine is None and make:
            if vacant is None and records < MEMBERS:
                vacant = records * RECORD
                data[RECORDS] = records + 1.0
            mine = vacant
        self._record = None if mine is None else doubles.members + mine
        return self._record


def _pacing(data: "array[float]") -> Pacing:
    serials = data[SLOTS + 2 :: SLOT]
    return Pacing(data[SPREAD_UNTIL], data[READY_AT], int(sum(serials) - len(serials) * data[FIRST_SERIAL]))


def _whole(content: bytes) -> bytes:
    """Cut off what is no whole number."""
    return content[: len(content) // 8 * 8]
