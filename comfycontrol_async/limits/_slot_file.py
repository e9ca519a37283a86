"""SlotFile: the slots that the processes of one machine share, in a memory-mapped file.

    constants   magic, version, limit, period, boot, clock, checksum: written once
    shared      the cooldown's end, until when requests are spread and when the next may go, grants so far, until when
                somebody waits, the last change, how many member records are in use
    slots       for each the moment at which it is free; one in flight is charged to the end of its lease
    owners      for each slot the name of the process that took it last
    members     for each process that waited: name, lease, how many wait, how many slots it has had (`_turns`)

All but the constants are doubles that lie on 8 bytes: a store is whole or not there, so a process that is killed in the
middle leaves a file that is right. Moments are those of `time.monotonic`, which all processes of a machine share.

Taking slots needs the lock. Whoever holds a slot may set its moment without: until its lease is over nobody else
touches it. A slot is told from one that was given to somebody else meanwhile by the moment that is noted in it.

What cannot be trusted (a file cut off, a checksum or moments that make no sense) is written anew with every slot taken;
a file that is not ours, or of another version, limit or period, is left alone.
"""

import math
import mmap
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits._file_lock import lock_soon, unlock
from comfycontrol_async.limits._machine import boot_id, clock_id
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.limits._window import HOLD_CAP, LOST_TAIL

MAGIC = b"CCSLOTS\n"
VERSION = 1
# magic, version, limit, period, boot, clock; then a checksum of these.
_CONSTANTS = struct.Struct("=8sIId16sI")
_CHECKSUM = struct.Struct("=I")
_HEAD = 64

# Places, in doubles from the beginning.
GATE, SMOOTH_UNTIL, PACE_AT, GRANTED, CONTENDED, TOUCHED, RECORDS = range(8, 15)
SLOTS = 16

MEMBERS = 128
NAME, LEASED, DEMAND, COUNT = range(4)
RECORD = 4

# A lock is held for microseconds; one that is not free for so many seconds belongs to a process that was stopped.
_PATIENCE = 0.05
# Seconds by which no moment of ours lies further in the future than this + a period.
_FURTHEST = HOLD_CAP + LOST_TAIL + 1.0


class LockBusyError(Exception):
    """Another process has the lock, and does not go on."""


class SlotFile:
    """An open file: `data` are its doubles, `slots` those of the slots; `owners` and `members` are places in it."""

    __slots__ = ("_map", "_rule", "data", "fd", "identity", "members", "owners", "path", "slots")

    def __init__(self, path: Path, rule: Rule, now: float) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: it cannot be opened, is not ours, or is for another limit.
            LockBusyError: another process is at it.
        """
        self.path = path
        self._rule = rule
        self.owners = SLOTS + rule.limit
        self.members = SLOTS + 2 * rule.limit
        self.fd = -1
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            with self.locked():
                self._check(now)
            self._map = mmap.mmap(self.fd, self._size)
            status = os.fstat(self.fd)
        except OSError as error:
            raise _unusable(path, error) from error
        self.identity = status.st_dev, status.st_ino
        self.data = memoryview(self._map).cast("d")
        self.slots = self.data[SLOTS : SLOTS + rule.limit]

    def close(self) -> None:
        """Let go of the file."""
        self.slots.release()
        self.data.release()
        self._map.close()
        self._close_fd()

    def _close_fd(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._close_fd()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes out.

        Raises:
            LockBusyError: another process has the lock, and does not go on.
        """
        self.lock()
        try:
            yield
        finally:
            unlock(self.fd)

    def lock(self) -> None:
        """Lock the file, and wait for that for a moment if need be; raises LockBusyError after that."""
        if not lock_soon(self.fd, _PATIENCE):
            raise LockBusyError

    def in_place(self) -> bool:
        """Tell whether the path still leads to this file: whoever cleans up directories may have removed it."""
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.identity

    def charge(self, free_at: float) -> None:
        """Take every slot until then, if it is not taken for longer; the lock is held."""
        for index in range(SLOTS, SLOTS + self._rule.limit):
            self.data[index] = max(self.data[index], free_at)

    def charge_one(self, free_at: float) -> int:
        """Take the slot that comes free first, for a request that goes without one; the lock is held."""
        moments = self.slots.tolist()
        place = SLOTS + moments.index(min(moments))
        self.data[place] = free_at
        return place

    def recent(self, now: float) -> Counter[float]:
        """Count how many slots each process has taken."""
        owners = self.data[self.owners : self.members].tolist()
        return Counter(owner for owner, moment in zip(owners, self.slots.tolist(), strict=True) if moment > now)

    def record_for(self, name: float, now: float) -> int | None:
        """Return the place of the record of the process `name`, a new one if need be; None when all are in use."""
        data = self.data
        records = int(data[RECORDS])
        vacant = records if records < MEMBERS else None
        for index in range(records):
            place = self.members + index * RECORD
            if data[place + NAME] == name:
                return place
            if data[place + LEASED] < now and (vacant is None or vacant == records):
                vacant = index
        if vacant is None:
            return None
        place = self.members + vacant * RECORD
        data[place + NAME], data[place + LEASED], data[place + DEMAND], data[place + COUNT] = name, now, 0.0, 0.0
        data[RECORDS] = max(records, vacant + 1)
        return place

    # Opening

    @property
    def _size(self) -> int:
        return 8 * (self.members + RECORD * MEMBERS)

    def _check(self, now: float) -> None:
        """See to it that the file can be used; the lock is held."""
        size = os.fstat(self.fd).st_size
        if size == 0:
            return self._write(-math.inf, now)
        os.lseek(self.fd, 0, os.SEEK_SET)
        content = os.read(self.fd, self._size)
        charged = now + LOST_TAIL + self._rule.span
        torn = size == self._size and not any(content[:_HEAD])  # killed while it was made
        if not torn:
            if content[: len(MAGIC)] != MAGIC[: len(content)]:
                raise ConfigurationError(f"{str(self.path)!r} is not a file of this limiter; give another path")
            torn = size != self._size or len(content) != size or not self._constants_hold(content)
            if torn and len(content) >= _HEAD:
                self._refuse_others(content)
        if torn:
            return self._write(charged, now)
        self._refuse_others(content)
        if self._of_another_boot(content, now):
            return self._write(-math.inf, now)
        if not self._plausible(content, now):
            return self._write(charged, now)
        return None

    def _constants_hold(self, content: bytes) -> bool:
        stored = _CHECKSUM.unpack_from(content, _CONSTANTS.size)[0] if len(content) >= _HEAD else None
        return bool(stored == crc32(content[: _CONSTANTS.size]))

    def _refuse_others(self, content: bytes) -> None:
        """Refuse a file whose constants are whole and not what we need."""
        if not self._constants_hold(content):
            return
        _, version, limit, period, _, clock = _CONSTANTS.unpack_from(content)
        where, rule = repr(str(self.path)), self._rule
        if version != VERSION:
            raise ConfigurationError(f"{where} is of version {version}, not {VERSION}; give another path")
        if (limit, period) != (rule.limit, rule.period):
            raise ConfigurationError(
                f"{where} is for {limit} requests per {period:g} s, not {rule.limit} per {rule.period:g} s; "
                "all processes must use the same limit"
            )
        if clock != clock_id():
            raise ConfigurationError(f"{where} is used with another clock, by another version of Python")

    def _of_another_boot(self, content: bytes, now: float) -> bool:
        boot = _CONSTANTS.unpack_from(content)[4]
        if boot != boot_id():
            return True
        touched = struct.unpack_from("=d", content, 8 * TOUCHED)[0]
        if touched > now + 1.0 and any(boot):
            raise ConfigurationError(f"{str(self.path)!r} is used by processes whose clock is ahead: a container's?")
        return bool(touched > now + 1.0)

    def _plausible(self, content: bytes, now: float) -> bool:
        moments = struct.unpack_from(f"={self._rule.limit}d", content, 8 * SLOTS)
        shared = struct.unpack_from("=7d", content, 8 * GATE)
        # One that is not a number is not less than anything.
        return (
            all(moment < now + self._rule.span + _FURTHEST for moment in moments)
            and all(value < math.inf for value in shared)
            and 0 <= shared[RECORDS - GATE] <= MEMBERS
        )

    def _write(self, free_at: float, now: float) -> None:
        """Write the file anew; the magic comes last, so that a half of it is not taken for a whole."""
        rule = self._rule
        constants = _CONSTANTS.pack(MAGIC, VERSION, rule.limit, rule.period, boot_id(), clock_id())
        head = (constants + _CHECKSUM.pack(crc32(constants))).ljust(_HEAD, b"\0")
        shared = [-math.inf, -math.inf, -math.inf, 0.0, -math.inf, now, 0.0, 0.0]
        body = struct.pack(f"={8 + rule.limit}d", *shared, *[free_at] * rule.limit).ljust(self._size - _HEAD, b"\0")
        os.ftruncate(self.fd, self._size)
        for place, part in ((0, bytes(len(MAGIC))), (len(MAGIC), head[len(MAGIC) :] + body), (0, MAGIC)):
            os.lseek(self.fd, place, os.SEEK_SET)
            os.write(self.fd, part)


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the file of the limiter, {str(path)!r}, cannot be used: {error.strerror or error}; give another path"
    )
