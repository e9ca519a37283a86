"""The default limiter: one budget for each machine, API origin and proxy, or what COMFYCONTROL_LIMITER says.

The limiters outlive their clients and loops, so that a second `asyncio.run` knows what the first has spent. Each live
event loop has a limiter of its own; they share the file, or the memory, and so the budget.
"""

import asyncio
import logging
import os
import re
import sys
from array import array
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async._settings import LIMITER_VARIABLE
from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError
from comfycontrol_async.limits._machine import cache_directory, default_path, without_credentials
from comfycontrol_async.limits._pacing import NEVER
from comfycontrol_async.limits._protocol import Limiter
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.limits._scheduler import Scheduler
from comfycontrol_async.limits._slot_file import HEAD, MEMBERS, RECORD, SLOT, SLOTS, blank
from comfycontrol_async.limits._table import SlotTable
from comfycontrol_async.limits.file import FileLimiter

log: logging.Logger = logging.getLogger("comfycontrol_async.limits")

_REDIS_SCHEMES = ("redis", "rediss", "unix")


class Choice(NamedTuple):
    """Where a budget is kept ("default", "local", "file" of ours, "path", "redis"), whose it is, and the rule."""

    kind: str
    place: str
    key: str
    limit: int
    period: float


class MemoryPlace:
    """The numbers of a table in the memory of this process, which its event loops share (`_table.Place`)."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._lock = Lock()
        self._forked = False
        self.members = SLOTS + SLOT * rule.limit
        self._data = array("d", bytes(HEAD)) + blank(rule, 0.0, NEVER)
        self._data.extend([0.0] * (MEMBERS * RECORD))

    def enter(self, now: float) -> "MemoryPlace":
        """Lock the numbers; no holder of the lock ever waits."""
        self._lock.acquire()
        if self._forked:
            self._forked = False
            self._data[8 : self.members] = blank(self._rule, now, now + self._rule.span)
        return self

    def close(self) -> None:
        """The other loops go on with it."""

    def after_fork(self) -> None:
        """Take the window as spent, in the child: the parent shares the address."""
        self._lock = Lock()
        self._forked = True

    def unlock(self) -> None:
        """Let the other loops in."""
        self._lock.release()

    def load(self, now: float) -> "array[float]":
        """Return a copy of everything up to the members."""
        return self._data[: self.members]

    def check(self, data: "array[float]", now: float) -> None:
        """What lies in our own memory is true."""

    def read(self, place: int, count: int) -> bytes:
        """Return so many numbers."""
        return self._data[place : place + count].tobytes()

    def write(self, place: int, data: bytes) -> None:
        """Store numbers."""
        self._data[place : place + len(data) // 8] = array("d", data)


class ProcessLimiter(Scheduler):
    """At most `limit` requests in any `period` seconds, for all event loops of a process."""

    def __init__(self, rule: Rule, place: MemoryPlace) -> None:
        super().__init__(rule, SYSTEM_CLOCK, SlotTable(rule, place))


_limiters: dict[Choice, list[Any]] = {}
_places: dict[Choice, MemoryPlace] = {}
_lock = Lock()


def default_limiter(origin: str, proxy: str | None = None) -> Limiter:
    """Return the limiter of a server for the running loop, or one that no live loop has when none is running.

    Raises:
        ConfigurationError: COMFYCONTROL_LIMITER asks for a limiter that cannot be had.
    """
    choice = read_choice(os.environ.get(LIMITER_VARIABLE, ""), origin, proxy)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    with _lock:
        limiters = _limiters.setdefault(choice, [])
        for limiter in limiters:
            if limiter.serves(loop):
                return limiter  # type: ignore[no-any-return] # only limiters of ours are kept there
        limiters.append(_make(choice))
        return limiters[-1]  # type: ignore[no-any-return] # as above


def read_choice(text: str, origin: str, proxy: str | None) -> Choice:
    """Read COMFYCONTROL_LIMITER: `local`, `file[:path]` or a Redis URL, each with `?limit=&period=`; or no text.

    Raises:
        ConfigurationError: it is none of these. The text itself may hold a password, and is not shown.
    """
    head, _, query = text.strip().partition("?")
    options, others = {}, []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in ("limit", "period", "key"):
            options[name] = value
        else:
            others.append((name, value))
    rule = _read_rule(options)
    key = "|".join(filter(None, (origin, without_credentials(proxy))))
    kind, _, place = head.partition(":")
    if kind in _REDIS_SCHEMES and place.startswith("//"):
        url = f"{head}?{urlencode(others)}" if others else head
        return Choice("redis", url, options.get("key", key), *rule)
    if others or "key" in options or kind not in ("", "local", "file") or (place and kind != "file"):
        raise ConfigurationError(
            f"{LIMITER_VARIABLE} must be local, file, file:PATH or a redis:// URL, each with ?limit=40&period=10 if "
            "need be (a redis:// URL with &key= too)"
        )
    if kind == "file" and place:
        return Choice("path", str(Path(place).expanduser()), "", *rule)
    if kind == "local":
        return Choice("local", "", key, *rule)
    return Choice(kind or "default", str(default_path(*rule, origin, proxy)) if _has_home() else "", key, *rule)


def _read_rule(options: dict[str, str]) -> tuple[int, float]:
    for name, value in options.items():
        if name != "key" and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
            raise ConfigurationError(f"{name} in {LIMITER_VARIABLE} must be a number, not {value[:20]!r}")
    try:
        rule = Rule(float(options.get("limit", 40)), float(options.get("period", 10.0)))  # type: ignore[arg-type] # checked
    except InvalidArgumentError as error:
        raise ConfigurationError(f"{LIMITER_VARIABLE}: {error}") from error
    return rule.limit, rule.period


def _has_home() -> bool:
    try:
        cache_directory()
    except ConfigurationError:
        return False
    return True


def _make(choice: Choice) -> Any:
    kind, place, key, limit, period = choice
    if kind == "redis":
        from comfycontrol_async.limits.redis import RedisLimiter  # an extra, imported when it is used

        return RedisLimiter(place, key=key, limit=limit, period=period)
    rule = Rule(limit, period)
    if kind == "path" or kind == "file":
        return FileLimiter(place or None, limit=limit, period=period)
    if kind == "default":
        try:
            return _file_limiter(place, rule)
        except ConfigurationError as error:
            if choice not in _places:
                log.info("the rate limit is shared within this process only: %s", error)
    return ProcessLimiter(rule, _places.setdefault(choice, MemoryPlace(rule)))


def _file_limiter(place: str, rule: Rule) -> FileLimiter:
    """Return a limiter whose file has been opened once.

    Raises:
        ConfigurationError: no file can be used.
    """
    if sys.platform == "win32":
        raise ConfigurationError("the lock of the limiter's file has not been tested on Windows")
    limiter = FileLimiter(place or None, limit=rule.limit, period=rule.period)
    limiter.snapshot()
    return limiter
