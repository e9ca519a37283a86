"""News: what a server that keeps our slots has not been told yet, and the timer that sees to it."""

import math
from collections.abc import Callable

from comfycontrol_async._clock import Clock, Timer


class News:
    """Moments at which slots are free, by number, and whether a cooldown began; `tell` is called when it is time."""

    __slots__ = ("_at", "_clock", "_tell", "_timer", "cooldown", "moments")

    def __init__(self, clock: Clock, tell: Callable[[], None]) -> None:
        self._clock = clock
        self._tell = tell
        self.moments: dict[int, float] = {}
        self.cooldown = False
        self.stop()

    def __bool__(self) -> bool:
        return bool(self.moments or self.cooldown)

    def stop(self) -> None:
        """Forget the timer, since its event loop is gone."""
        self._timer: Timer | None = None
        self._at = math.inf

    def tell_at(self, at: float, now: float) -> None:
        """See to it that `tell` is called at `at`, if not before."""
        if self._at <= at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = self._clock.call_later(at - now, self._on_timer)

    def take(self) -> tuple[dict[int, float], bool]:
        """Return all of it, as told."""
        if self._timer is not None:
            self._timer.cancel()
        self.stop()
        told, self.moments = self.moments, {}
        cooldown, self.cooldown = self.cooldown, False
        return told, cooldown

    def put_back(self, told: dict[int, float], cooldown: bool, now: float) -> None:
        """Take note that the server did not hear this, as far as it still matters."""
        self.moments = {number: at for number, at in (told | self.moments).items() if at > now}
        self.cooldown |= cooldown

    def _on_timer(self) -> None:
        self.stop()
        self._tell()
