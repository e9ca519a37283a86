"""What a command shows: results on stdout; errors, notes and progress on stderr."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from comfycontrol_async import ComfyControlError, GraphError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")

_FRAME = 0.1


@functools.cache
def error_console() -> "Console":
    """Return the console of stderr; one for all, so that lines appear above what is being redrawn."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def sanitize(text: str) -> str:
    """Put a stranger's text on one line and take the control characters out, which could command the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def print_note(text: str) -> None:
    """Print a line for people on stderr."""
    error_console().print(text)


def print_error(error: ComfyControlError) -> None:
    """Print an error on stderr: one line, or one for each issue of a graph."""
    issues = error.issues if isinstance(error, GraphError) else ()
    for severity, text in [(issue.severity, str(issue)) for issue in issues] or [("error", str(error))]:
        label = typer.style(f"{severity}:", fg="red" if severity == "error" else "yellow", bold=True)
        typer.echo(f"{label} {sanitize(text)}", err=True)


def is_live(console: "Console") -> bool:
    """Tell whether lines can be redrawn; a file cannot, even when the environment forces colours."""
    return console.is_interactive and console.file.isatty()


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
