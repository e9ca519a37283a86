"""`comfycontrol limits`: the budget of this machine, as its programs share it; no request is made."""

import asyncio
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from comfycontrol_async import Limiter, Priority, RateLimitSnapshot, RateLimitWaitError
from comfycontrol_async.cli._execute import without_token
from comfycontrol_async.cli._exit_codes import DONE
from comfycontrol_async.cli._show import (
    bar_over,
    error_console,
    fit,
    is_live,
    is_terminal,
    print_fields,
    print_json,
    show_seconds,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds between two looks of the gauge: at what this machine keeps, and at what a Redis server does.
_REFRESH = 0.25
_REFRESH_SHARED = 1.0
# Seconds that a Redis server has to answer.
_ANSWER = 0.5


async def show_limits(*, once: bool, as_json: bool) -> int:
    """Print the state of the budget, or on a terminal show it until Ctrl-C."""
    async with without_token() as comfy:
        limiter = comfy.limiter
        if as_json:
            print_json(facts_of(await look_at(limiter)))
        elif once or not is_terminal() or not is_live(error_console()):
            print_fields(fields_of(await look_at(limiter)))
        else:
            await _watch(limiter)
    return DONE


def is_shared(limiter: Limiter) -> bool:
    """Tell whether the slots are kept by a Redis server; one that is not used is not loaded."""
    module = sys.modules.get("comfycontrol_async.limits.redis")
    return module is not None and isinstance(limiter, module.RedisLimiter)


async def look_at(limiter: Limiter) -> RateLimitSnapshot:
    """Return the state of the budget, as all programs that share it use it.

    A Redis server tells it with the answer to a request for a slot, so one is asked for and given back.
    """
    if is_shared(limiter):
        with suppress(RateLimitWaitError):
            (await limiter.acquire(Priority.BULK, max_wait=_ANSWER)).refund()
    return limiter.snapshot()


def facts_of(now: RateLimitSnapshot) -> dict[str, object]:
    """Return a snapshot by its fields, with the lanes by name: JSON would show the numbers that order them."""
    return {**attrs.asdict(now), "waiting": {lane.name.lower(): number for lane, number in now.waiting.items()}}


def fields_of(now: RateLimitSnapshot) -> dict[str, str]:
    """Say in words what a snapshot holds."""
    waiting = ", ".join(f"{number} {lane.name.lower()}" for lane, number in now.waiting.items() if number)
    return {
        "used": f"{now.used} of {now.limit} in {now.period:g} s",
        "free": f"{now.available}" + (f", next in {now.next_free_in:.1f} s" if now.next_free_in else ""),
        "waiting": waiting or "0",
        "cooldown": show_seconds(now.cooldown) if now.cooldown else "none",
        "pacing": str(now.pacing),
    }


def draw(now: RateLimitSnapshot, width: int) -> "RenderableType":
    """Draw a gauge of the window above the words."""
    from rich.progress_bar import ProgressBar

    style = "red" if now.cooldown else "yellow" if not now.available else "green"
    bar = ProgressBar(
        total=now.limit, completed=now.used, width=min(60, width - 1), complete_style=style, finished_style=style
    )
    words = [f"{label} {text}" for label, text in fields_of(now).items()]
    return bar_over(bar, fit(words, width - 1, between="  "))


async def _watch(limiter: Limiter) -> None:
    from rich.live import Live

    console = error_console()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(draw(await look_at(limiter), console.width), refresh=True)
            await asyncio.sleep(_REFRESH_SHARED if is_shared(limiter) else _REFRESH)
