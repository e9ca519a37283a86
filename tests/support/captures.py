"""Screens of the command line, kept as text: `CAPTURES=write pytest tests/cli/test_captures.py` writes them again."""

import os
from collections.abc import Mapping
from pathlib import Path

from comfycontrol_async import Priority, RateLimitSnapshot

WIDTHS = (40, 60, 80, 120)
# A budget that many wait for.
LIMIT = RateLimitSnapshot(
    limit=40,
    period=10.0,
    used=40,
    available=0,
    waiting={Priority.INTERACTIVE: 12, Priority.NORMAL: 345, Priority.BULK: 0},
    cooldown=7.2,
    pacing="smooth",
    next_free_in=7.2,
)
CAPTURES = Path(__file__).parents[1] / "cli" / "captures"


def compare(name: str, screens: Mapping[int, str]) -> None:
    """Compare a screen, by the columns of the terminal that shows it, with the one that is kept."""
    file = CAPTURES / f"{name}.txt"
    parts = [f"== {width} columns\n{_stripped(text)}" for width, text in screens.items()]
    text = "\n".join(parts)
    if os.environ.get("CAPTURES") == "write":
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text


def _stripped(text: str) -> str:
    """Return the lines without what pads them to the terminal's width, which differs between versions of rich."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())
