"""Tally: counts how far a batch has come, and reports it."""

import asyncio
import inspect
import logging
from collections.abc import Callable

from comfycontrol_async._clock import Clock
from comfycontrol_async._loop import own_cancel
from comfycontrol_async.batch._results import MapProgress
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.limits import RateLimitSnapshot

# Seconds after which progress is reported though no row has moved: time goes by, and requests may wait for the limit.
_TICK = 1.0

log = logging.getLogger("comfycontrol_async.batch")

OnProgress = Callable[[MapProgress], object]


class Tally:
    """The counts of one batch.

    Args:
        on_progress: called after each change and once a second, never twice at a time; may be a coroutine function.
        requests: how many requests the client has sent so far.
        limits: the state of its limiter.
        end_with: called with an error that the callback raised: it is its author's, and ends the batch.
    """

    def __init__(
        self,
        on_progress: OnProgress | None,
        clock: Clock,
        requests: Callable[[], int],
        limits: Callable[[], RateLimitSnapshot],
        end_with: Callable[[Exception], None],
    ) -> None:
        self._end_with = end_with
        self._on_progress = on_progress
        self._clock = clock
        self._requests = requests
        self._limits = limits
        self._began = clock.monotonic()
        self._requests_before = requests()
        self._turn = asyncio.Lock()
        self.read = self.submitted = self.running = self.done = self.failed = 0
        # Rows that the journal had done, and all rows there are, if that is known.
        self.skipped = 0
        self.total: int | None = None

    def progress(self) -> MapProgress:
        """Return how far the batch has come."""
        rate = rate_of(self.done - self.skipped, self._clock.monotonic() - self._began)
        return MapProgress(
            read=self.read,
            submitted=self.submitted,
            running=self.running,
            done=self.done,
            failed=self.failed,
            requests=self._requests() - self._requests_before,
            rate=rate,
            eta=eta_of(self.total, self.done, rate),
            waiting_for_limit=wait_of(self._limits()),
        )

    async def report(self) -> None:
        """Call back with how far it has come.

        Raises:
            InvalidArgumentError: what it awaited was cancelled.
        """
        if self._on_progress is None:
            return
        async with self._turn:
            try:
                result = self._call(self._on_progress)
                if inspect.isawaitable(result):
                    await result
            except asyncio.CancelledError as error:
                if own_cancel():
                    raise
                raise InvalidArgumentError("on_progress was cancelled by something that it waited for") from error
            except (StopIteration, StopAsyncIteration) as error:  # they would mean an end, where they are raised again
                self._end_with(_stray(error))
            except Exception as error:
                self._end_with(error)

    def _call(self, on_progress: OnProgress) -> object:
        try:
            return on_progress(self.progress())
        except GeneratorExit as error:  # not the end of this coroutine: nothing was awaited
            raise _stray(error) from error

    async def tick(self) -> None:
        """Report once a second, for ever."""
        while self._on_progress is not None:
            await self._clock.sleep(_TICK)
            try:
                await self.report()
            except InvalidArgumentError as error:
                log.warning("%s", error)


def _stray(error: BaseException) -> InvalidArgumentError:
    wrapped = InvalidArgumentError(f"on_progress raised {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped


def rate_of(finished: int, seconds: float) -> float:
    """Return rows per second."""
    return finished / seconds if finished > 0 and seconds > 0 else 0.0


def eta_of(total: int | None, done: int, rate: float) -> float | None:
    """Return the seconds until all rows are done, None when that cannot be told."""
    if total is None or (rate <= 0.0 and done < total):
        return None
    return max(0, total - done) / rate if rate > 0.0 else 0.0


def wait_of(limits: RateLimitSnapshot) -> float:
    """Return the seconds until the limit lets the next request out, if any request waits for it."""
    return max(limits.next_free_in, limits.cooldown) if any(limits.waiting.values()) else 0.0
