"""SlotFile: the slots that the processes of one machine share, in a small file that is not to be trusted.

    constants   magic, version, limit, period, boot, clock, checksum: written once
    shared      the cooldown's end, until when requests are spread and when the next may go, until when a process waits,
                the last use, how many member records are in use, the serial with which each slot began
    slots       for each the moment at which it is free (one in flight is charged to the end of its lease), the name of
                the process that took it last, and the serial of that grant: one more each time
    members     for each process that waited: name, when it looks next, how many wait, how many slots it has had

All but the constants are doubles. Moments are those of `time.monotonic`, which all processes of a machine share. The
file is read and written, not mapped: one that is cut off while it is mapped kills the process (SIGBUS).

Taking slots needs the lock. A slot that was taken may be charged without it: until its moment no other process touches
it. What the file says is checked at every look. What cannot be true is clamped: a moment too far ahead costs at most
one span. A file whose constants are damaged is written again with every slot taken; one that is not ours, or of another
version, limit or period, is left alone.
"""

import math
import os
import stat
import struct
from array import array
from pathlib import Path
from zlib import crc32

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits._file_lock import lock_soon, read_at, unlock, write_at
from comfycontrol_async.limits._machine import boot_id, clock_id
from comfycontrol_async.limits._pacing import NEVER, QUIET
from comfycontrol_async.limits._rule import FURTHEST, LONGEST_COOLDOWN, Rule

MAGIC = b"CCSLOTS\n"
VERSION = 2
# magic, version, limit, period, boot, clock; then a checksum of these.
_CONSTANTS = struct.Struct("=8sIId16sI")
_CHECKSUM = struct.Struct("=I")
HEAD = 64

# Places, in doubles from the beginning.
GATE, SPREAD_UNTIL, READY_AT, CONTENDED, TOUCHED, RECORDS, FIRST_SERIAL = range(8, 15)
SLOTS = 16
# A slot: moment, owner, serial.
SLOT = 3

MEMBERS = 128
NAME, DUE, DEMAND, COUNT = range(4)
RECORD = 4

# A lock is held for microseconds; one that is not free for so many seconds belongs to a process that was stopped.
_PATIENCE = 0.05
# Doubles hold whole numbers up to this exactly; a count beyond it is harm.
_MOST = 2.0**52


class LockBusyError(Exception):
    """Another process has the lock, and does not go on."""


class SlotFile:
    """An open file. `members` is the place of the first member record."""

    __slots__ = ("_head", "_rule", "fd", "identity", "members", "path")

    def __init__(self, path: Path, rule: Rule, now: float) -> None:
        """Open the file, or make it.

        Raises:
            ConfigurationError: it cannot be opened, is not ours, or is for another limit.
            LockBusyError: another process has the lock, and does not go on.
        """
        self.path: Path = path
        self._rule = rule
        self._head = head_of(rule)
        self.members: int = SLOTS + SLOT * rule.limit
        self.fd: int = -1
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
            self.fd = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
            self.identity: tuple[int, int] = self._identify()
            self.lock()
            try:
                self._check(now)
            finally:
                self.unlock()
        except OSError as error:
            raise unusable(path, error.strerror or str(error)) from error

    def _identify(self) -> tuple[int, int]:
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise unusable(self.path, "it is no regular file")
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            raise unusable(self.path, "it belongs to another user")
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def lock(self, patience: float = _PATIENCE) -> None:
        """Lock the file, and wait for that for a moment if need be; raises LockBusyError after that."""
        if not lock_soon(self.fd, patience):
            raise LockBusyError

    def unlock(self) -> None:
        """Unlock the file."""
        unlock(self.fd)

    def in_place(self) -> bool:
        """Return whether the path still leads to this file: a clean-up of directories may have removed it."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self.identity

    def read(self, place: int, count: int) -> bytes:
        """Read so many doubles, or fewer where the file ends; raises ConfigurationError when that fails."""
        try:
            return read_at(self.fd, 8 * count, 8 * place)
        except OSError as error:
            raise unusable(self.path, error.strerror or str(error)) from error

    def write(self, place: int, data: bytes) -> None:
        """Write doubles; raises ConfigurationError when that fails, as on a disk that is full."""
        try:
            write_at(self.fd, data, 8 * place)
        except OSError as error:
            raise unusable(self.path, error.strerror or str(error)) from error

    def charge(self, free_at: float, now: float) -> None:
        """Take every slot until then, if it is not taken for longer. The lock is held."""
        data = self.load(now)
        self.check(data, now)
        for place in range(SLOTS, len(data), SLOT):
            data[place] = max(data[place], free_at)
        self.write(SLOTS, data[SLOTS:].tobytes())

    def load(self, now: float) -> "array[float]":
        """Read everything up to the members; written again where the constants are damaged. The lock is held.

        Raises:
            ConfigurationError: it is for another limit now.
        """
        content = self.read(0, self.members)
        if len(content) != 8 * self.members or not content.startswith(self._head):
            self._refuse_others(content)
            content = self.rebuild(now, now + self._rule.span)
        return array("d", content)

    def check(self, data: "array[float]", now: float) -> None:
        """Clamp what cannot be true in what was loaded, and in the file. The lock is held."""
        if not plausible(data, self._rule, now):
            clamp(data, self._rule, now)
            self.write(GATE, data[GATE:].tobytes())

    def rebuild(self, now: float, free_at: float) -> bytes:
        """Write the file again with every slot taken until then; return it up to the members. The lock is held."""
        content = self._head.ljust(HEAD, b"\0") + blank(self._rule, now, free_at).tobytes()
        try:
            os.ftruncate(self.fd, 0)
            os.ftruncate(self.fd, self._size)
            # The magic comes last, so that a file that was half written is not taken for a whole one.
            write_at(self.fd, content[len(MAGIC) :], len(MAGIC))
            write_at(self.fd, MAGIC, 0)
        except OSError as error:
            raise unusable(self.path, error.strerror or str(error)) from error
        return content

    # Opening

    @property
    def _size(self) -> int:
        return 8 * (self.members + RECORD * MEMBERS)

    def _check(self, now: float) -> None:
        """Ensure that the file can be used; the lock is held."""
        size = os.fstat(self.fd).st_size
        if size == 0:
            self.rebuild(now, NEVER)
            return
        content = self.read(0, self.members)
        half_made = size == self._size and not any(content[:HEAD])
        if not half_made and content[: len(MAGIC)] != MAGIC[: len(content)]:
            raise ConfigurationError(f"{str(self.path)!r} is not a file of this limiter; give another path")
        self._refuse_others(content)
        if size != self._size or not _intact(content):
            self.rebuild(now, now + self._rule.span)
        elif self._of_another_boot(content, now):
            self.rebuild(now, NEVER)

    def _refuse_others(self, content: bytes) -> None:
        """Refuse a file whose constants are whole and not what we need."""
        if not _intact(content):
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
        if now + 1.0 < touched < now + LONGEST_COOLDOWN * 1000 and any(boot):
            raise ConfigurationError(f"{str(self.path)!r} is used by processes whose clock is ahead: a container's?")
        return bool(touched > now + 1.0 and not any(boot))


def blank(rule: Rule, now: float, free_at: float) -> "array[float]":
    """Return what stands between constants and members in a new file, with every slot taken until `free_at`."""
    serial = _new_serial()
    body = array("d", (NEVER, NEVER, NEVER, NEVER, now, 0.0, serial, 0.0))
    body.extend([free_at, 0.0, serial] * rule.limit)
    return body


def _new_serial() -> float:
    # A random one: slots of grants before the file was made again must not be taken for new ones.
    return float(crc32(os.urandom(8)))


def head_of(rule: Rule) -> bytes:
    """Return the constants of a file for this rule."""
    constants = _CONSTANTS.pack(MAGIC, VERSION, rule.limit, rule.period, boot_id(), clock_id())
    return constants + _CHECKSUM.pack(crc32(constants))


def _intact(content: bytes) -> bool:
    stored = _CHECKSUM.unpack_from(content, _CONSTANTS.size)[0] if len(content) >= HEAD else None
    return bool(content.startswith(MAGIC) and stored == crc32(content[: _CONSTANTS.size]))


def plausible(data: "array[float]", rule: Rule, now: float) -> bool:
    """Return whether every moment and count can be true. One that is not a number is not less than anything."""
    moments, serials = data[SLOTS::SLOT], data[SLOTS + 2 :: SLOT]
    furthest = now + rule.span + FURTHEST
    total = sum(moments) + sum(serials)
    return (
        max(moments) <= furthest
        and total == total  # no NaN among them
        and data[GATE] <= now + LONGEST_COOLDOWN + rule.period
        and data[SPREAD_UNTIL] <= now + QUIET + rule.period
        and data[READY_AT] <= max(now, data[GATE]) + rule.span + rule.period
        and data[CONTENDED] <= furthest + LONGEST_COOLDOWN
        and 0 <= data[FIRST_SERIAL] <= _MOST
        and min(serials) >= 0
        and max(serials) <= _MOST
        and 0 <= data[RECORDS] <= MEMBERS
    )


def clamp(data: "array[float]", rule: Rule, now: float) -> None:
    """Put what cannot be true where it does the least harm: one span from now."""
    furthest, soon = now + rule.span + FURTHEST, now + rule.span
    for place in range(SLOTS, len(data), SLOT):
        if not data[place] <= furthest:
            data[place] = soon
        if not 0 <= data[place + 2] <= _MOST:
            data[place + 2] = _new_serial()
    for place, most, instead in (
        (GATE, now + LONGEST_COOLDOWN + rule.period, soon),
        (SPREAD_UNTIL, now + QUIET + rule.period, now + QUIET),
        (CONTENDED, furthest + LONGEST_COOLDOWN, soon),
        (RECORDS, MEMBERS, 0.0),
        (FIRST_SERIAL, _MOST, 0.0),
    ):
        if not data[place] <= most or (place in (RECORDS, FIRST_SERIAL) and not data[place] >= 0):
            data[place] = instead
    if not data[READY_AT] <= max(now, data[GATE]) + rule.span + rule.period:
        data[READY_AT] = soon
    data[RECORDS], data[FIRST_SERIAL] = map(math.floor, (data[RECORDS], data[FIRST_SERIAL]))


def unusable(path: Path, why: str) -> ConfigurationError:
    """Return the error for a file that cannot be used."""
    return ConfigurationError(f"the file of the limiter, {str(path)!r}, cannot be used: {why}; give another path")
