"""Call: what is known of one call and its attempts, for the log, the callbacks and the retry decision."""

import logging
from typing import Any

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._faults import Failure
from comfycontrol_async._http._hooks import Hooks
from comfycontrol_async._http._request import Response
from comfycontrol_async._http._retry import Fate
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import APIError
from comfycontrol_async.events import CallFinished, CallStarted, RequestFinished, RetryScheduled

log = logging.getLogger("comfycontrol_async.http")


class Call:
    """One call on its way: counts attempts, measures, and reports each fact once."""

    # Attempts; those that count for the retry policy, which refused ones do not; and when the first was sent.
    tries = 0
    counted = 0
    first_sent = 0.0
    # Defaults of the class: a call that succeeds at once, as most do, changes few of them.
    _under_way = False
    _wait = 0.0
    _waits = 0.0
    _seconds = 0.0
    _status: int | None = None
    _error: BaseException | None = None
    _request_id: str | None = None

    def __init__(self, method: str, path: str, hooks: Hooks, clock: Clock) -> None:
        self.method = method
        self.path = path
        self._hooks = hooks
        self._clock = clock
        self._begun = self._sent = clock.monotonic()
        if hooks.callbacks and hooks.wants(CallStarted):
            hooks.emit(CallStarted(method=method, path=path))

    def granted(self, asked_at: float) -> None:
        """Record that the rate limit let it through, which was asked at a moment of the clock."""
        self._sent = self._clock.monotonic()
        self._under_way = True
        self._wait = self._sent - asked_at
        self._waits += self._wait
        self.tries += 1
        if self.tries == 1:
            self.first_sent = self._sent
        if self._hooks.callbacks:
            self._hooks.granted()

    def answered(self, answer: Response | Stream | Failure) -> None:
        """Record what an attempt ended in."""
        if isinstance(answer, Failure):
            if answer.fate is not Fate.REFUSED:
                self.counted += 1
            if isinstance(answer.error, APIError):
                self._over(answer.error.status, answer.error, answer.error.request_id)
            else:
                self._over(None, answer.error, None)
        else:
            self._over(answer.status, None, answer.headers.get("cf-ray"))

    def again(self, delay: float, refused: bool) -> None:
        """Record that it is tried again; of a 429 the limiter says itself how long nothing is sent."""
        if not refused:
            facts = {"method": self.method, "path": self.path, "attempt": self.tries, "delay": delay}
            log.info("%s; again in %.2f s", self._error, delay, extra=facts)
        if self._hooks.wants(RetryScheduled):
            self._hooks.emit(RetryScheduled(**self._facts(), error=self._error, delay=delay))

    def finished(self, error: BaseException | None) -> None:
        """Record that the call is over, and with it the attempt that was cancelled or failed for good, if any."""
        if self._under_way and error is not None:
            self._over(None, error, None)
        if self._hooks.callbacks and self._hooks.wants(CallFinished):
            self._hooks.emit(
                CallFinished(
                    method=self.method,
                    path=self.path,
                    status=self._status,
                    error=error,
                    attempts=self.tries,
                    seconds=self._clock.monotonic() - self._begun,
                    limiter_wait=self._waits,
                    request_id=self._request_id,
                )
            )

    def _over(self, status: int | None, error: BaseException | None, request_id: str | None) -> None:
        self._under_way = False
        self._status, self._error, self._request_id = status, error, request_id
        listening = self._hooks.callbacks and self._hooks.wants(RequestFinished)
        logged = log.isEnabledFor(logging.DEBUG)
        if not (listening or logged):
            return
        self._seconds = self._clock.monotonic() - self._sent
        if logged:
            log.debug(
                "%s %s: %s in %.3f s (attempt %d, waited %.3f s for the rate limit, request id %s)",
                self.method,
                self.path,
                type(error).__name__ if status is None else status,
                self._seconds,
                self.tries,
                self._wait,
                request_id,
                extra=self._facts(),
            )
        if listening:
            self._hooks.emit(RequestFinished(**self._facts(), error=error))

    def _facts(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "path": self.path,
            "status": self._status,
            "seconds": self._seconds,
            "limiter_wait": self._wait,
            "attempt": self.tries,
            "request_id": self._request_id,
        }
