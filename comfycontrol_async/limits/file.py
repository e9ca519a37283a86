"""FileLimiter: one budget for every process of a machine, in a small file."""

import logging
import math
import os
from pathlib import Path

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async.errors import ComfyControlError, ConfigurationError
from comfycontrol_async.limits._machine import default_path, own_directory, remove_unused, secure
from comfycontrol_async.limits._rule import PacingMode, Rule
from comfycontrol_async.limits._scheduler import Scheduler
from comfycontrol_async.limits._slot_file import LockBusyError, SlotFile
from comfycontrol_async.limits._table import SlotTable

log: logging.Logger = logging.getLogger("comfycontrol_async.limits")

# Seconds between two looks at whether the path still leads to our file.
_LOOK = 1.0


class FilePlace:
    """The file that a path leads to, whatever becomes of it while it is in use (`_table.Place`)."""

    def __init__(self, path: Path, rule: Rule) -> None:
        self.path = path
        self._rule = rule
        self._file: SlotFile | None = None
        self._looked_at = -math.inf
        # Since when another process has the lock and does not go on.
        self._busy_since: float | None = None
        self._told = False

    def enter(self, now: float) -> SlotFile:
        """Lock and return the file.

        Raises:
            ConfigurationError: it cannot be used.
            LockBusyError: another process has the lock, and does not go on.
        """
        file = self._file
        if file is None:
            file = self._file = self._open(now)
        elif self._busy_since is not None and now >= self._busy_since + self._rule.period / 2:
            file = self._replace_locked(file, now)
        try:
            if self._busy_since is None:
                file.lock()
            else:
                file.lock(patience=0.0)  # the event loop has waited once for that process
        except LockBusyError:
            if self._busy_since is None:
                self._busy_since = now
                log.warning("%s is locked by a process that does not go on", self.path)
            raise
        self._busy_since = None
        if now > self._looked_at + _LOOK:
            self._looked_at = now
            # Looked at under the lock: a file that is removed as unused is removed under its lock.
            if not file.in_place():
                file = self._follow_path(file, now)
        return file

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def after_fork(self) -> None:
        """Close the file, in a forked child: the lock of the parent's open file would be ours as well."""
        self.close()

    def _open(self, now: float) -> SlotFile:
        self._looked_at = -math.inf
        if self.path.parent == own_directory():
            secure(self.path.parent)
            remove_unused(self.path.parent, SYSTEM_CLOCK.utcnow().timestamp())
        return SlotFile(self.path, self._rule, now)

    def _follow_path(self, file: SlotFile, now: float) -> SlotFile:
        """Return, locked, the file that the path leads to now; the old one, which is locked, if that cannot be used."""
        try:
            new = SlotFile(self.path, self._rule, now)
            new.lock()
        except (ComfyControlError, LockBusyError) as error:
            if not self._told:
                self._told = True
                log.warning("%s was removed or replaced, the old file is used: %s", self.path, error)
            return file
        log.warning("%s was removed or replaced: the window counts as spent", self.path)
        self._told = False
        new.charge(now + self._rule.span, now)
        file.unlock()
        file.close()
        self._file = new
        return new

    def _replace_locked(self, file: SlotFile, now: float) -> SlotFile:
        """Put a new file in the place of one that is locked for good, with the window charged since then."""
        busy_since, self._busy_since = self._busy_since or now, None
        if file.in_place():
            log.warning("%s stays locked: it is made anew, and the window counts as spent", self.path)
            spare = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            try:
                new = SlotFile(spare, self._rule, now)
                new.lock()
                new.charge(busy_since + self._rule.span, now)
                new.unlock()
                new.close()
                spare.replace(self.path)
            except OSError as error:
                raise ConfigurationError(f"{str(self.path)!r} stays locked by another process: {error}") from error
        new = self._open(now)
        file.close()
        self._file = new
        return new


class FileLimiter(Scheduler):
    """At most `limit` requests in any `period` seconds at the server, for all processes that use the same file.

    Args:
        path: the file; default: the one of the public API in the user's cache directory. It is made when it is not
            there, readable for this user only. It must lie on this machine, not on a network drive.
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit). All processes
            must say the same.
        pacing: how grants are spread, as LocalLimiter, for all processes together.
        clock: where time comes from; for all processes the same.

    Order, priorities, `max_wait`, event loops and cancellation are within the process; the processes that wait take
    turns (`limits._turns`). Two event loops of one process count as two processes, each with a FileLimiter of its own.
    A process that dies gives its slots back within 3.25 s + `period`. After `fork` the child goes on with the same
    file. A file that is damaged while it is in use is made again, with the window charged.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
        ConfigurationError: no path was given, and the user has no home directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        limit: int = 40,
        period: float = 10.0,
        pacing: PacingMode = "auto",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        rule = Rule(limit, period, pacing)
        self._path = default_path(rule.limit, rule.period) if path is None else Path(path)
        super().__init__(rule, clock, SlotTable(rule, FilePlace(self._path, rule)))

    @property
    def path(self) -> Path:
        """The file, whether it is there yet or not."""
        return self._path
