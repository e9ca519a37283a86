"""Drift: what the service sends that this version does not know, counted."""

from collections import Counter
from contextvars import ContextVar, Token

from comfycontrol_async._http._redact import redact
from comfycontrol_async._settings import __version__
from comfycontrol_async.errors import APIError, ComfyControlError

# What the API documentation and the edge in front of it answer with (API documentation: errors), and what is transient.
_DOCUMENTED = frozenset({400, 401, 403, 404, 408, 425, 429, 500, 502, 503, 504})
# A service that sends ever new names must not fill the memory.
_MOST_ENTRIES = 200
_LONGEST = 60

_collector: ContextVar["Drift | None"] = ContextVar("comfycontrol_drift", default=None)


class Drift:
    """Counts what is unknown in the answers to one client; its text is made to be pasted into an issue."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def collect(self) -> "Token[Drift | None]":
        """Count here what `note_fields` and `note_value` find, until `stop` gets what this returns."""
        return _collector.set(self)

    def stop(self, token: "Token[Drift | None]") -> None:
        """End what `collect` began."""
        _collector.reset(token)

    def status(self, method: str, path: str, error: ComfyControlError) -> None:
        """Count the status of an answer that is not documented."""
        if isinstance(error, APIError) and error.status not in _DOCUMENTED:
            self.count(f"status {error.status} of {method} {_shape(path)}")

    def count(self, what: str) -> None:
        """Count one sight of it."""
        what = redact("".join(c if c.isprintable() else "?" for c in what[: 3 * _LONGEST]))
        if what in self._counts or len(self._counts) < _MOST_ENTRIES:
            self._counts[what] += 1

    def __str__(self) -> str:
        if not self._counts:
            return ""
        lines = [f"{what}: {count}" for what, count in sorted(self._counts.items())]
        return "\n".join([f"comfycontrol-async {__version__} saw what it does not know:", *lines])


def note_fields(model: str, names: object) -> None:
    """Count fields of an object that its model does not have."""
    drift = _collector.get()
    if drift is not None and isinstance(names, (set, frozenset)):
        for name in names:
            drift.count(f"field {model}.{str(name)[:_LONGEST]}")


def note_value(enum: str, value: str) -> None:
    """Count a word that an enum does not have."""
    drift = _collector.get()
    if drift is not None:
        drift.count(f"{enum} {value[:_LONGEST]!r}")


def _shape(path: str) -> str:
    """Return a path with `{id}` in the place of ids: of what has digits and is long."""
    parts = path[:500].split("/")
    return "/".join("{id}" if len(part) >= 16 and any(c.isdigit() for c in part) else part for part in parts)
