"""The demo's progress: what is counted, as a picture for terminals and as a line for anything else."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs

from comfycontrol_async import ComfyControlError, RateLimitSnapshot
from comfycontrol_async.cli._show import fit
from comfycontrol_async.testing import LocalServer

if TYPE_CHECKING:
    from rich.console import RenderableType

# Columns of a bar where there is room, and of what stands around it: the longest label and count, and gaps.
_BAR = 48
_AROUND = 21


@attrs.define(kw_only=True)
class Tally:
    """What the demo has done, and the limiter and the server as last looked at; `seconds` are real ones."""

    total: int
    submitted: int = 0
    running: int = 0
    done: int = 0
    paths: list[Path] = attrs.field(factory=list)
    failures: list[ComfyControlError] = attrs.field(factory=list)
    seconds: float = 0.0
    requests: int = 0
    refused: int = 0
    peak: int = 0
    limit: int = 0
    period: float = 0.0
    used: int = 0
    next_free: float = 0.0
    cooldown: float = 0.0

    def look(self, limiter: RateLimitSnapshot, server: LocalServer, seconds: float) -> Self:
        """Take in how limiter and server are now."""
        self.seconds = seconds
        self.requests, self.refused, self.peak = len(server.requests), server.refused, server.max_in_window
        self.limit, self.period, self.used = limiter.limit, limiter.period, limiter.used
        self.next_free, self.cooldown = limiter.next_free_in, limiter.cooldown
        return self


def tell_tally(tally: Tally) -> str:
    """Say how far the demo is, in one line."""
    return (
        f"{tally.seconds:5.1f} s  submitted {tally.submitted}/{tally.total}  running {tally.running}  "
        f"done {tally.done}  downloaded {len(tally.paths)}  "
        f"budget {tally.used}/{tally.limit} per {tally.period:g} s, {_next_slot(tally)}  "
        f"requests {tally.requests}  429s {tally.refused}"
    )


def draw_tally(tally: Tally, width: int = 80) -> "RenderableType":
    """Draw how far the demo is, in `width` columns: four bars, and as many lines of words as they need."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar_width = max(6, min(_BAR, width - _AROUND))
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(width=bar_width)
    table.add_column(justify="right", no_wrap=True)

    def row(label: str, part: int, whole: int, style: str = "cyan") -> None:
        bar = ProgressBar(total=whole, completed=part, width=bar_width, complete_style=style, finished_style=style)
        table.add_row(label, bar, f"{part}/{whole}")

    row("submitted", tally.submitted, tally.total)
    row("done", tally.done, tally.total)
    row("downloaded", len(tally.paths), tally.total, style="green")
    row("budget", tally.used, tally.limit, style="yellow")
    trouble = tally.refused or tally.failures
    state = [f"{tally.running} running", f"{tally.limit} requests per {tally.period:g} s", _next_slot(tally)]
    cost = [
        f"{tally.requests} requests in {tally.seconds:.0f} s",
        f"{tally.refused} times 429",
        f"{len(tally.failures)} failed",
    ]
    return Group(
        table,
        Text("\n".join(fit(state, width)), style="dim"),
        Text("\n".join(fit(cost, width)), style="bold red" if trouble else "green"),
    )


def _next_slot(tally: Tally) -> str:
    if tally.cooldown:
        return f"cooling down for {tally.cooldown:.1f} s"
    return f"next free slot in {tally.next_free:.1f} s" if tally.next_free else "slots free"
