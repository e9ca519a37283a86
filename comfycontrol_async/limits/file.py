"""FileLimiter: one budget for every process of a machine, in a small file that they all map."""

import logging
import math
import os
import random
from pathlib import Path

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async.errors import ComfyControlError, ConfigurationError
from comfycontrol_async.limits._file_lock import try_lock, unlock
from comfycontrol_async.limits._grant import Grant
from comfycontrol_async.limits._joint import LEASE, JointLimiter
from comfycontrol_async.limits._machine import default_path
from comfycontrol_async.limits._pacing import QUIET, PacingMode
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.limits._slot_file import (
    CONTENDED,
    COUNT,
    DEMAND,
    GATE,
    GRANTED,
    LEASED,
    NAME,
    PACE_AT,
    RECORD,
    RECORDS,
    SLOTS,
    SMOOTH_UNTIL,
    TOUCHED,
    LockBusyError,
    SlotFile,
)
from comfycontrol_async.limits._turns import Member, share_out, starting_count
from comfycontrol_async.limits._view import View

log: logging.Logger = logging.getLogger("comfycontrol_async.limits")

# Seconds between two looks at whether the path still leads to our file.
_LOOK = 1.0
# Seconds until the next try when a process that was stopped has the lock.
_RETRY = 0.05
# Seconds for which a process that sleeps is believed to wait, longer than it said that it would sleep.
_OVERSLEEP = 0.5
# Seconds by which processes that wake for the same moment are spread.
_JITTER = 0.001


class FileLimiter(JointLimiter):
    """At most `limit` requests in any `period` seconds at the server, for all processes that use the same file.

    Args:
        path: the file; default: one for this limit in the user's cache directory. It is made when it is not there,
            readable for this user only. It must lie on this machine, not on a network drive.
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit). All processes
            must say the same.
        pacing: how grants are spread; "auto" as LocalLimiter, for all processes together: after a 429 that the common
            count cannot explain, evenly, for an hour.
        clock: where time comes from; for all processes the same.

    Order, priorities, `max_wait`, event loops and cancellation are LocalLimiter's, within the process; the processes
    that wait take turns (`limits._turns`). A process that dies gives its slots back within 3.25 s + `period`. After
    `fork` the child goes on with the same file. What a refund gives back early is seen by the waiters of other
    processes when they next wake.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
    """

    _notes_at_once = True

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        limit: int = 40,
        period: float = 10.0,
        pacing: PacingMode = "auto",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(Rule(limit, period, pacing), clock)
        self._path = None if path is None else Path(path)
        self._file: SlotFile | None = None
        # Where our record as one who waits lies in the file, and what we are called there.
        self._record: int | None = None
        self._name = random.getrandbits(52) + 1.0
        self._looked_at = -math.inf
        # The slot that comes after the one taken last: as a rule it is the next to be free.
        self._hint = SLOTS
        self._end = SLOTS + self._rule.limit
        self._gate_untold = False

    @property
    def path(self) -> Path:
        """The file, whether it is there yet or not.

        Raises:
            ConfigurationError: none was given, and the user has no home directory.
        """
        if self._path is None:
            try:
                self._path = default_path(self._rule.limit, self._rule.period)
            except RuntimeError as error:
                raise ConfigurationError(f"there is no home directory for the limiter's file: {error}") from error
        return self._path

    # Where the slots are kept

    def _open(self) -> None:
        try:
            self._current_file(self._monotonic())
        except LockBusyError:
            log.warning("%s is locked by a process that does not go on", self.path)

    def _take_now(self) -> Grant | None:
        now = self._monotonic()
        file = self._file
        if file is None or now > self._looked_at + _LOOK or not try_lock(file.fd):
            return None
        # `locked` would take as long as all of this.
        try:
            data = file.data
            if data[GATE] > now or data[CONTENDED] > now or data[SMOOTH_UNTIL] > now or not self._plain():
                return None
            slot = self._hint
            if data[slot] > now:
                moments = file.slots.tolist()
                first = min(moments)
                if first > now:
                    return None
                slot = SLOTS + moments.index(first)
            data[slot] = free_at = now + LEASE + self._span
            data[slot + self._rule.limit] = self._name  # its owner
            data[GRANTED] += 1
            data[TOUCHED] = now
        finally:
            unlock(file.fd)
        self._hint = slot + 1 if slot + 1 < self._end else SLOTS
        return Grant(self, slot, now + LEASE, free_at)

    def _pump(self, now: float) -> None:
        if self._gate.open_if_due(now):
            log.info("the cooldown is over: requests are sent again")
        demand = self._queue.lanes.size
        if not demand:
            self._note_demand(0)
            self._queue.wake_at(math.inf, now)
            return
        try:
            file = self._current_file(now)
            with file.locked():
                self._tell_gate(file, now)
                grants, wake = self._draw(file, demand, now)
        except LockBusyError:
            grants, wake = [], now + _RETRY
        except ComfyControlError as error:
            self._refuse_all(error)
            return
        self._hand_out(grants, now)
        self._queue.wake_at(wake, now)

    def _note(self, grant: Grant, free_at: float, now: float) -> None:
        file = self._file
        if file is None:
            return
        if now < grant.lease:
            file.data[grant.key] = grant.free_at = free_at
        elif not grant.capped:
            self._note_late(file, grant, free_at)
        self._wake_for(free_at, now)

    def _give_back(self, grant: Grant, now: float) -> None:
        if self._file is not None and now < grant.lease:
            self._file.data[grant.key] = now

    def _close_gate(self, now: float) -> None:
        self._gate_untold = True
        try:
            file = self._current_file(now)
            with file.locked():
                self._tell_gate(file, now)
        except LockBusyError:
            pass  # told with the next grant; here it holds at once
        except ConfigurationError:
            log.warning("no other process can be told of the cooldown", exc_info=True)

    def _view(self, now: float) -> View:
        try:
            file = self._current_file(now)
        except LockBusyError:
            return View(limit=self._rule.limit, moments=[now + self._span] * self._rule.limit, gate=self._gate.until)
        return View(
            limit=self._rule.limit,
            moments=sorted(min(moment, now + self._span) for moment in file.slots.tolist()),
            gate=max(file.data[GATE], self._gate.until),
            smooth=self._smooth(file, now),
            pace_at=file.data[PACE_AT],
            rivals=[rival.demand for rival in self._rivals(file, now)],
        )

    def _passes(self, now: float) -> bool:
        return self._gate.passes(now) and (self._file is None or self._file.data[GATE] <= now)

    def _demand_grew(self) -> None:
        self._note_demand(self._queue.lanes.size)

    def _let_go(self) -> None:
        # The lock of the parent's open file would be ours as well.
        if self._file is not None:
            self._file.close()
        self._file = self._record = None
        self._name = random.getrandbits(52) + 1.0

    # The file

    def _current_file(self, now: float) -> SlotFile:
        """Return the file that the path leads to.

        Raises:
            ConfigurationError: it cannot be used.
            LockBusyError: another process has the lock, and does not go on.
        """
        file = self._file
        if file is not None and now <= self._looked_at + _LOOK:
            return file
        gone = file is not None and not file.in_place()
        if file is None or gone:
            new = SlotFile(self.path, self._rule, now)
            if file is not None:
                log.warning("%s was removed or replaced: the window counts as spent", self.path)
                with new.locked():
                    new.charge(now + (LEASE if self._held else 0.0) + self._span)
                self._held.clear()
                file.close()
            self._file, self._record = new, None
            file = new
        self._looked_at = now
        return file

    def _draw(self, file: SlotFile, demand: int, now: float) -> tuple[list[Grant], float]:
        """Take the slots that are ours now, and tell when to look again; the lock is held."""
        data, rule = file.data, self._rule
        if data[GATE] > now:
            self._gate.close(data[GATE])
        moments = file.slots.tolist()
        order = sorted(range(rule.limit), key=moments.__getitem__)
        # Whatever is in flight comes free a span from now at the earliest.
        latest, gate = now + rule.span, data[GATE]
        known = [max(min(moments[index], latest), gate) for index in order]
        smooth = self._smooth(file, now)
        if smooth:
            known = [max(moment, data[PACE_AT] + place * rule.pace) for place, moment in enumerate(known)]
        rivals = self._rivals(file, now)
        me = self._member(file, demand, rivals, now)
        mine, wake = share_out(known, now, me, rivals, rule.grace)
        grants = []
        for index in order[:mine]:
            free_at = data[SLOTS + index] = now + LEASE + rule.span
            data[file.owners + index] = self._name
            grants.append(Grant(self, SLOTS + index, now + LEASE, free_at))
        if smooth and mine:
            data[PACE_AT] = max(data[PACE_AT], now) + mine * rule.pace
        data[GRANTED] += mine
        data[TOUCHED] = now
        if demand > mine:
            wake = min(wake, latest) + random.random() * _JITTER
        self._enrol(file, me, mine, rivals, wake + _OVERSLEEP)
        return grants, wake

    def _plain(self) -> bool:
        return self._rule.pacing != "smooth" and self._gate.until == -math.inf

    def _smooth(self, file: SlotFile, now: float) -> bool:
        mode = self._rule.pacing
        return mode == "smooth" or (mode == "auto" and file.data[SMOOTH_UNTIL] > now)

    def _tell_gate(self, file: SlotFile, now: float) -> None:
        """Note our 429 in the file, and what it means for the pace; the lock is held."""
        if not self._gate_untold:
            return
        self._gate_untold = False
        data, until = file.data, self._gate.until
        if data[GATE] <= now < until and self._rule.pacing == "auto":
            smooth = data[SMOOTH_UNTIL] > now
            if smooth or data[GRANTED] > self._rule.limit:
                data[SMOOTH_UNTIL] = now + QUIET
            if not smooth and data[SMOOTH_UNTIL] > now:
                log.warning("our own count cannot explain that: requests are spread from now on")
        data[GATE] = max(data[GATE], until)
        data[PACE_AT] = max(data[PACE_AT], data[GATE])

    def _note_late(self, file: SlotFile, grant: Grant, free_at: float) -> None:
        """Note what became of a request whose lease had ended, as this process was held up."""
        try:
            with file.locked():
                if file.data[grant.key] == grant.free_at:
                    file.data[grant.key] = free_at
                else:
                    grant.key = file.charge_one(free_at)
                grant.free_at = free_at
        except LockBusyError:
            log.warning("%s is locked by a process that does not go on", file.path)

    def _wake_for(self, free_at: float, now: float) -> None:
        """Wake for a slot of ours that comes free earlier than we would wake."""
        if self._queue.lanes.size and free_at < self._queue.timer_at:
            self._queue.wake_at(free_at, now)

    # Taking turns

    def _rivals(self, file: SlotFile, now: float) -> list[Member]:
        """List the other processes that wait."""
        data = file.data
        if data[CONTENDED] <= now:
            return []
        first = file.members
        fields = data[first : first + int(data[RECORDS]) * RECORD].tolist()
        return [
            Member(fields[place + COUNT], fields[place + NAME], int(fields[place + DEMAND]))
            for place in range(0, len(fields), RECORD)
            if fields[place + LEASED] > now and fields[place + DEMAND] >= 1 and fields[place + NAME] != self._name
        ]

    def _member(self, file: SlotFile, demand: int, rivals: list[Member], now: float) -> Member:
        """Return ourselves as one who waits."""
        data, place = file.data, self._record
        if (
            place is not None
            and data[place + NAME] == self._name
            and data[place + DEMAND] >= 1
            and data[place + LEASED] > now
        ):
            return Member(data[place + COUNT], self._name, demand)
        had = starting_count(file.recent(now), self._name, rivals, self._rule.limit)
        return Member(had, self._name, demand)

    def _enrol(self, file: SlotFile, me: Member, mine: int, rivals: list[Member], lease: float) -> None:
        """Note in the file how many of us still wait; the lock is held."""
        data = file.data
        left = me.demand - mine
        if left and (self._record is None or data[self._record + NAME] != self._name):
            self._record = file.record_for(self._name, data[TOUCHED])
        if (place := self._record) is not None and data[place + NAME] == self._name:
            data[place + COUNT], data[place + DEMAND] = me.had + mine, float(left)
            if left:
                data[place + LEASED] = lease
                data[CONTENDED] = max(data[CONTENDED], lease)
        if not left and not rivals:
            data[CONTENDED] = -math.inf

    def _note_demand(self, demand: int) -> None:
        """Note in our record that more or fewer wait; it is ours alone, so that needs no lock."""
        file, place = self._file, self._record
        if file is not None and place is not None and file.data[place + NAME] == self._name:
            file.data[place + DEMAND] = float(demand)
