"""The lock of a file that several processes map; nobody waits for it for long."""

import os
import sys
from threading import Event

from comfycontrol_async._clock import SYSTEM_CLOCK

# Seconds between two tries.
_PAUSE = 0.0001

if sys.platform == "win32":
    import msvcrt

    # A byte that lies outside every file: Windows lets nobody touch what is locked, not even in a mapping.
    _FAR = 1 << 40

    def try_lock(fd: int) -> bool:
        """Lock the file; tell whether that succeeded."""
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

else:
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock

    _TRY = LOCK_EX | LOCK_NB

    def try_lock(fd: int) -> bool:
        """Lock the file; tell whether that succeeded."""
        try:
            flock(fd, _TRY)
        except BlockingIOError:
            return False
        return True

    def unlock(fd: int) -> None:
        """Unlock the file."""
        flock(fd, LOCK_UN)


def lock_soon(fd: int, patience: float) -> bool:
    """Lock the file within `patience` seconds; tell whether that succeeded. The thread stands still meanwhile."""
    if try_lock(fd):
        return True
    until = SYSTEM_CLOCK.monotonic() + patience
    nothing = Event()
    while SYSTEM_CLOCK.monotonic() < until:
        nothing.wait(_PAUSE)
        if try_lock(fd):
            return True
    return False
