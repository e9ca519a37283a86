"""How a command runs: its event loop, its log, its exit code, and how its errors reach the terminal.

Exit codes: 0 done, 1 failed, 2 wrong usage (typer's own), 130 interrupted.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import typer

from comfycontrol_async import ComfyControl, ComfyControlError, ConfigurationError, DownloadError, RetryPolicy
from comfycontrol_async.cli._show import error_console, print_error, print_note, sanitize

INTERRUPTED = 130

TOKEN_VARIABLE = "COMFYCONTROL_API_TOKEN"
BASE_URL_VARIABLE = "COMFYCONTROL_BASE_URL"


def execute(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command to its end and leave with the exit code that it returns."""
    try:
        code = asyncio.run(work)
    except KeyboardInterrupt:
        print_note("interrupted")
        code = INTERRUPTED
    except ComfyControlError as error:
        print_error(error)
        code = 1
    raise typer.Exit(code)


def connect(retry: RetryPolicy | None = None) -> ComfyControl:
    """Make the client that the environment describes.

    Raises:
        ConfigurationError: there is no token, or a setting is invalid.
    """
    if not os.environ.get(TOKEN_VARIABLE, "").strip():
        raise ConfigurationError(
            f"no API token: set the environment variable {TOKEN_VARIABLE}; "
            "tokens are made in the account settings of the ComfyControl dashboard"
        )
    return ComfyControl(retry=retry)


def check_directory(directory: Path) -> None:
    """Find out whether files can be made in a directory that may not be there yet; leaves no trace.

    Raises:
        DownloadError: no file can be made there.
    """
    nearest = next(path for path in (directory, *directory.parents, Path()) if os.path.lexists(path))
    if not nearest.is_dir():
        reason = f"{str(nearest)!r} is not a directory"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        reason = f"{str(nearest)!r} is not writable"
    else:
        return
    raise DownloadError(f"cannot write to {str(directory)!r}: {reason}", path=str(directory))


def log_to_stderr(*, verbose: bool) -> Callable[[], None]:
    """Show the package's log on stderr: its warnings, or with `verbose` everything; return what ends that."""
    logger = logging.getLogger("comfycontrol_async")
    level = logger.level
    handler: logging.Handler
    if verbose:
        from rich.logging import RichHandler

        handler = RichHandler(console=error_console(), show_path=False, log_time_format="[%X]")
        logger.setLevel(logging.DEBUG)
    else:
        handler = _Warnings(logging.WARNING)
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    return end


class _Warnings(logging.Handler):
    """Prints records as `warning: ...`, above whatever is being redrawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_note(f"{record.levelname.lower()}: {sanitize(record.getMessage())}")
