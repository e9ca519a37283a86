"""Logging of the package: rooms under one logger, no secret in any record, and COMFYCONTROL_LOG to see it at once."""

import logging
from collections.abc import Mapping

from comfycontrol_async._http._redact import redact
from comfycontrol_async._settings import LOG_VARIABLE
from comfycontrol_async.errors import ConfigurationError

ROOT = "comfycontrol_async"
# A filter counts for the records of its own logger only, so every room's logger has it.
ROOMS = ("batch", "cli", "events", "graph", "http", "limits", "runs", "testing", "watch")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PLAIN = logging.Formatter()


class _Redacting(logging.Filter):
    """Takes secrets out of a record: its message and arguments, its exception, and our own facts."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record where it shows a secret; never hold it back."""
        text = record.getMessage()
        clean = redact(text)
        if clean != text:
            record.msg, record.args = clean, None
        if record.exc_info:
            trace = record.exc_text or _PLAIN.formatException(record.exc_info)
            clean = redact(trace)
            if clean != trace:
                # The exception itself would show it to handlers that format by themselves.
                record.exc_info, record.exc_text = None, clean
        if isinstance(path := getattr(record, "path", None), str):
            record.path = redact(path)
        return True


_REDACTING = _Redacting()
# A library says nothing unless its user listens: without this Python prints warnings to stderr.
logging.getLogger(ROOT).addHandler(logging.NullHandler())


class _Handler(logging.StreamHandler):  # type: ignore[type-arg] # generic in typeshed only
    """The handler that COMFYCONTROL_LOG asks for, of a class of its own to be found again."""


def configure(environment: Mapping[str, str]) -> None:
    """Redact what the package logs, and show it on stderr when COMFYCONTROL_LOG says so; any number of times.

    Raises:
        ConfigurationError: COMFYCONTROL_LOG is neither debug nor info.
    """
    root = logging.getLogger(ROOT)
    for logger in (root, *(logging.getLogger(f"{ROOT}.{room}") for room in ROOMS)):
        logger.addFilter(_REDACTING)  # once, however often it is added
    wanted = environment.get(LOG_VARIABLE, "").strip().lower()
    if not wanted:
        return
    if wanted not in _LEVELS:
        raise ConfigurationError(f"{LOG_VARIABLE} must be 'debug' or 'info', not {wanted[:20]!r}")
    root.setLevel(_LEVELS[wanted])
    if not any(isinstance(handler, _Handler) for handler in root.handlers):
        handler = _Handler()
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
