"""Lock, read and write of a file that several processes use at once, on each platform; no lock is waited for long."""

import os
import sys
from threading import Event

from comfycontrol_async._clock import SYSTEM_CLOCK

# Seconds between two tries.
_PAUSE = 0.0001

if sys.platform == "win32":
    import msvcrt

    # A byte that lies outside every file: on Windows what is locked cannot be read.
    _FAR = 1 << 40

    def try_lock(fd: int) -> bool:
        """Lock the file; return whether that succeeded."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Unlock the file."""
        os.lseek(fd, _FAR, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

    def read_at(fd: int, count: int, offset: int) -> bytes:
        """Read so many bytes, or fewer where the file ends."""
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, count)

    def write_at(fd: int, data: bytes, offset: int) -> None:
        """Write bytes."""
        os.lseek(fd, offset, os.SEEK_SET)
        os.write(fd, data)

else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

    read_at = os.pread
    write_at = os.pwrite

    _TRY = LOCK_EX | LOCK_NB

    def try_lock(fd: int) -> bool:
        """Lock the file; return whether that succeeded."""
        try:
            flock(fd, _TRY)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Unlock the file."""
        flock(fd, LOCK_UN)


def lock_soon(fd: int, patience: float) -> bool:
    """Lock the file within `patience` seconds; return whether that succeeded. The thread is blocked meanwhile."""
    if try_lock(fd):
        return True
    until = SYSTEM_CLOCK.monotonic() + patience
    nothing = Event()
    while SYSTEM_CLOCK.monotonic() < until:
        nothing.wait(_PAUSE)
        if try_lock(fd):
            return True
    return False
