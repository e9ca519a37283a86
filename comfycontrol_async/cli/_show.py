"""What a command prints: results on stdout; errors, notes and progress on stderr.

A terminal gets a screen that is redrawn. Anything else (a pipe, a file, `TERM=dumb`) gets a line each time that
something has changed. Text never fails to print: what the encoding of a stream does not have is escaped.
"""

import asyncio
import functools
import io
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from comfycontrol_async import ComfyControlError, GraphError
from comfycontrol_async.cli._exit_codes import advice_for

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress_bar import ProgressBar

T = TypeVar("T")

# Seconds between two frames of a screen.
_FRAME = 0.1


class OutputError(ComfyControlError):
    """Nothing can be written to stdout any more: the pipe was closed, or the disk is full."""


def print_result(text: str = "") -> None:
    """Print a line on stdout.

    Raises:
        OutputError: stdout is closed or full.
    """
    if sys.stdout is None:  # Python found it closed when it began (`>&-`)
        raise OutputError("cannot write to stdout: it is closed")
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        raise _stdout_failed(error) from error


def report_stdout(error: OSError) -> None:
    """Say in one line that what another library printed did not reach stdout."""
    print_error(_stdout_failed(error))


def _stdout_failed(error: Exception) -> OutputError:
    _drop_stdout()
    return OutputError(f"cannot write to stdout: {getattr(error, 'strerror', None) or error}")


def _drop_stdout() -> None:
    """Point stdout at nothing: Python flushes it once more at exit, and would complain again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file of the system
        sys.stdout = io.StringIO()


def print_json(value: object, *, indent: int | None = 2) -> None:
    """Print one JSON document on stdout; models and paths are written by their fields and text."""
    print_result(json.dumps(value, default=_plain, indent=indent, ensure_ascii=True))


def print_event(event: str, **facts: object) -> None:
    """Print one line of a stream of JSON events (`--ndjson`)."""
    print_json({"event": event, **facts}, indent=None)


def is_terminal() -> bool:
    """Tell whether people read stdout; one that is closed is no terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    fields = getattr(type(value), "__attrs_attrs__", None)
    if fields is not None:
        return {field.name: getattr(value, field.name) for field in fields}
    return str(value)


@functools.cache
def error_console() -> "Console":
    """Return the console of stderr; one for all, so that lines appear above what is being redrawn."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def sanitize(text: str) -> str:
    """Put a stranger's text on one line and take the control characters out, which could command the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def print_note(text: str) -> None:
    """Print a line for people on stderr; a stderr that is closed is no reason to stop."""
    try:
        error_console().print(text)
    except OSError:
        return


def print_error(error: ComfyControlError) -> None:
    """Print an error on stderr, with what to do about it: one line, or one for each issue of a graph."""
    issues = error.issues if isinstance(error, GraphError) else ()
    whole = "; ".join(filter(None, (str(error), advice_for(error))))
    for severity, text in [(issue.severity, str(issue)) for issue in issues] or [("error", whole)]:
        print_labelled(severity, text)


def print_labelled(label: str, text: str) -> None:
    """Print `label: text` on stderr, coloured by the label."""
    colour = {"error": "red", "warning": "yellow"}.get(label)
    try:
        typer.echo(f"{typer.style(f'{label}:', fg=colour, bold=True)} {sanitize(text)}", err=True)
    except OSError:
        return


# Layout


def fit(pieces: Iterable[str], width: int, *, between: str = ", ") -> list[str]:
    """Lay pieces of text into lines of at most `width` columns; no piece is broken or left out."""
    from rich.cells import cell_len

    lines: list[str] = []
    for piece in filter(None, pieces):
        joined = f"{lines[-1]}{between}{piece}" if lines else piece
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(piece)
    return lines


def table(rows: list[dict[str, str]], width: int) -> list[str]:
    """Lay records out as a table, or where that is wider than `width`, one field a line.

    Args:
        rows: column names mapped to text, the same columns in every row.
        width: columns of the terminal; 0 when there is none, for columns without a limit.
    """
    from rich.cells import cell_len

    if not rows:
        return []
    names = list(rows[0])
    widths = {name: max(cell_len(text) for text in (name, *(row[name] for row in rows))) for name in names}

    def line(texts: dict[str, str]) -> str:
        return "  ".join(texts[name] + " " * (widths[name] - cell_len(texts[name])) for name in names).rstrip()

    if not width or sum(widths.values()) + 2 * (len(names) - 1) <= width:
        return [line({name: name.upper() for name in names}), *map(line, rows)]
    label = max(map(len, names)) + 2
    stacked = [line for row in rows for line in ("", *(f"{name:<{label}}{text}" for name, text in row.items()))]
    return stacked[1:]


def print_table(rows: list[dict[str, str]], *, empty: str) -> None:
    """Print records on stdout, or `empty` on stderr where there are none."""
    width = error_console().width if is_terminal() else 0
    clean = [{name: sanitize(text) for name, text in row.items()} for row in rows]
    for line in table(clean, width):
        print_result(line)
    if not rows:
        print_note(empty)


def print_fields(fields: dict[str, str]) -> None:
    """Print one record on stdout, a field a line."""
    label = max(map(len, fields), default=0) + 2
    for name, text in fields.items():
        print_result(f"{name:<{label}}{sanitize(text)}".rstrip())


def show_time(moment: datetime | None) -> str:
    """Write a moment as people read it, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment is not None else "-"


def show_seconds(seconds: float) -> str:
    """Write a duration: `7 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# Progress


def is_live(console: "Console") -> bool:
    """Tell whether lines can be redrawn; a file cannot, even when the environment forces colours."""
    return console.is_interactive and not console.is_dumb_terminal and console.file.isatty()


async def follow(
    work: Coroutine[Any, Any, T],
    draw: Callable[[], "RenderableType"],
    tell: Callable[[], str],
    *,
    tell_every: float,
    transient: bool = False,
) -> T:
    """Await `work` and show on stderr how it gets on.

    Args:
        work: cancelled when the wait for it is.
        draw: what a terminal shows, ten times a second in place.
        tell: the line for anything else, asked for every `tell_every` seconds and printed when it has changed.
        transient: whether the terminal forgets what was drawn.
    """
    from rich.live import Live

    console = error_console()
    live = Live(console=console, auto_refresh=False, transient=transient) if is_live(console) else None
    task = asyncio.ensure_future(work)
    told = ""
    try:
        with live or nullcontext():
            while True:
                if live is not None:
                    live.update(draw(), refresh=True)
                elif told != (told := tell()):
                    print_note(told)
                if task.done():
                    return await task
                await asyncio.wait({task}, timeout=_FRAME if live is not None else tell_every)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def bar_over(bar: "ProgressBar", lines: Iterable[str]) -> "RenderableType":
    """Draw a bar above lines of text; a bar alone does not end its line."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid()
    grid.add_row(bar)
    for line in lines:
        grid.add_row(Text(line))
    return grid


def path_text(paths: Iterable[Path]) -> list[str]:
    """Return paths as text."""
    return [str(path) for path in paths]
