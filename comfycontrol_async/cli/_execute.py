"""How a command runs: its settings, its event loop, Ctrl-C, its log, and how its errors reach the terminal."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import attrs
import typer

from comfycontrol_async import ComfyControl, ComfyControlError, ConfigurationError, DownloadError, RetryPolicy
from comfycontrol_async.cli._exit_codes import INTERRUPTED, TOKEN_VARIABLE, UNEXPECTED, MissingTokenError, exit_code_of
from comfycontrol_async.cli._params import read_text
from comfycontrol_async.cli._show import error_console, is_live, print_error, print_labelled, print_note, sanitize

BASE_URL_VARIABLE = "COMFYCONTROL_BASE_URL"
LOG_VARIABLE = "COMFYCONTROL_LOG"

# Bytes of a token file: more is another file.
_LARGEST_TOKEN = 64 * 1024
# What COMFYCONTROL_LOG may say; the client refuses anything else.
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}


@attrs.define
class Settings:
    """What the options before the command say."""

    verbose: bool = False
    token_file: Path | None = None


# Of this process, which runs one command: set before it begins.
settings = Settings()


def execute(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a command to its end and leave with its exit code.

    Ctrl-C once cancels the command, which stops cleanly and says what goes on; twice ends the process at once.
    """
    try:
        code = asyncio.run(_interruptible(work))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print_note("interrupted")
        code = INTERRUPTED
    except ComfyControlError as error:
        print_error(error)
        code = exit_code_of(error)
    except Exception as error:
        # A fault of ours: a traceback helps only those who ask for it.
        if settings.verbose:
            raise
        print_labelled("error", f"unexpected {type(error).__name__}: {error}; -v shows where")
        code = UNEXPECTED
    raise typer.Exit(code)


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    task = asyncio.ensure_future(work)
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            # What has to outlive this is on the disk already: journal and files are written as things happen.
            os._exit(INTERRUPTED)
        task.cancel()

    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, RuntimeError, ValueError):
        # Windows, or a thread that is not the main one: asyncio.run cancels at the first Ctrl-C by itself.
        return await task
    try:
        return await task
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def read_token() -> str:
    """Return the API token from --token-file or the environment.

    Raises:
        MissingTokenError: there is none.
        ConfigurationError: the file cannot be read.
    """
    file = settings.token_file
    if file is None:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            return token
        raise MissingTokenError(
            f"no API token: set the environment variable {TOKEN_VARIABLE} or pass --token-file FILE; "
            "tokens are made in the account settings of the ComfyControl dashboard"
        )
    try:
        token = read_text(file, _LARGEST_TOKEN).strip()
    except ValueError as error:
        raise ConfigurationError(f"cannot read the token file {str(file)!r}: {error}") from error
    if not token:
        raise MissingTokenError(f"the token file {str(file)!r} is empty")
    return token


def connect(retry: RetryPolicy | None = None) -> ComfyControl:
    """Make the client that the settings describe; it shares the budget of this machine.

    Raises:
        ConfigurationError: there is no token, or a setting is invalid.
    """
    return ComfyControl(read_token(), retry=retry)


def without_token() -> ComfyControl:
    """Make the client that the settings describe, to look at them: a client asks for a token, and nothing is sent.

    Raises:
        ConfigurationError: a setting is invalid; the text never quotes an address, which may hold a password.
    """
    return ComfyControl("cfc_unused")


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
    elif not nearest.is_absolute() and not _has_place():
        reason = "the working directory was removed"
    else:
        return
    raise DownloadError(f"cannot write to {str(directory)!r}: {reason}", path=str(directory))


def _has_place() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def log_to_stderr(*, verbose: bool) -> Callable[[], None]:
    """Show the package's log on stderr: its warnings, or with `verbose` everything; return what ends that.

    COMFYCONTROL_LOG is taken over: the client's own handler would say everything twice, and over what is redrawn.
    """
    logger = logging.getLogger("comfycontrol_async")
    level = logger.level
    handler: logging.Handler
    wanted = _LEVELS.get(os.environ.get(LOG_VARIABLE, "").strip().lower())
    if wanted is not None:
        del os.environ[LOG_VARIABLE]
    if verbose or wanted is not None:
        handler = _terminal_log() if is_live(error_console()) else _Lines(logging.DEBUG)
        logger.setLevel(logging.DEBUG if verbose or wanted is None else wanted)
    else:
        handler = _Warnings(logging.WARNING)
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    return end


def _terminal_log() -> logging.Handler:
    from rich.logging import RichHandler

    return RichHandler(console=error_console(), show_path=False, log_time_format="[%X]")


class _Lines(logging.Handler):
    """Prints records for files and pipes: a line each, however long, and the lines of a traceback."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        for line in self.format(record).splitlines():
            print_note(sanitize(line))


class _Warnings(logging.Handler):
    """Prints records as `warning: ...`, above whatever is being redrawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print_note(f"{record.levelname.lower()}: {sanitize(record.getMessage())}")


def words_of(command: str, *words: object) -> str:
    """Return a command line that can be copied: `comfycontrol get ID`."""
    import shlex

    return shlex.join(["comfycontrol", *command.split(), *map(str, words)])
