"""Pipeline: the one request loop, from a `Request` to its value: limiter -> attempt -> classify -> retry."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._http._attempts import Attempts
from comfycontrol_async._http._call import Call
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._decode import parse_json
from comfycontrol_async._http._drift import Drift
from comfycontrol_async._http._faults import Failure
from comfycontrol_async._http._hooks import Hooks
from comfycontrol_async._http._request import Answer, Request, Response
from comfycontrol_async._http._retry import Fate, RetryPolicy, retry_after
from comfycontrol_async._http._stream import Stream
from comfycontrol_async._http._transport import Transport
from comfycontrol_async.errors import APIError, BadRequestError, ResponseFormatError
from comfycontrol_async.limits import Limiter, Permit, Priority, Stage
from comfycontrol_async.limits._protocol import acquire_in_stage

T = TypeVar("T")
A = TypeVar("A", Response, Stream)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Pipeline:
    """Sends requests through the limiter, again where that is safe, and structures what comes back.

    `limiter` is a function, for the default limiter depends on the running loop. `chance` gives random numbers in
    [0, 1) for the jitter.
    """

    transport: Transport
    limiter: Callable[[], Limiter]
    retry: RetryPolicy
    timeouts: Timeouts
    chance: Callable[[], float]
    priority: Priority = Priority.NORMAL
    max_wait: float | None = None
    clock: Clock = SYSTEM_CLOCK
    attempts: Attempts = attrs.field(factory=Attempts)

    hooks: Hooks = attrs.field(factory=Hooks)
    drift: Drift = attrs.field(factory=Drift)

    async def send(self, request: Request[T]) -> T:
        """Send `request` and return its value.

        Raises:
            TransportError, APIError: after all that the retry policy allows.
            ResponseFormatError: the answer is not what the API documents.
            RateLimitWaitError: the rate limit needs longer than `max_wait`.
        """
        fetch = _forgiving(self.transport.fetch) if request.answer is Answer.NOTHING else self.transport.fetch
        answer = await self._repeat(request, fetch)
        token = self.drift.collect()
        try:
            return request.structure(_value(request, answer))
        except ResponseFormatError as error:
            error.method, error.path = request.method, request.path
            self.transport.clean(error)
            raise
        finally:
            self.drift.stop(token)

    async def open(self, request: Request[Any]) -> Stream:
        """Send a `request` for a stream and return it once its headers are here; the caller closes it.

        Raises:
            TransportError, APIError, RateLimitWaitError: as `send`.
        """
        return await self._repeat(request, self.transport.open)

    async def _repeat(
        self, request: Request[Any], send_once: Callable[[Request[Any], Permit, Timeouts], Awaitable[A | Failure]]
    ) -> A:
        """Make attempts until one succeeds or the retry policy gives up, and report the call."""
        call = Call(request.method, request.path, self.hooks, self.clock)
        try:
            permit = await self._acquire(request, call)
            while True:
                self.attempts.leave(request)
                answer = await send_once(request, permit, self.timeouts)
                call.answered(answer)
                if not isinstance(answer, Failure):
                    break
                permit = await self._permit_after(answer, request, permit, call)
        except BaseException as error:
            call.finished(error)
            raise
        call.finished(None)
        return answer

    async def _permit_after(self, failure: Failure, request: Request[Any], permit: Permit, call: Call) -> Permit:
        """Wait until the request may be sent again, and return the permit for that.

        Raises:
            TransportError, APIError: the retry policy gives up.
        """
        self.drift.status(request.method, request.path, failure.error)
        delay = self._delay(request, failure, call)
        if delay is None:
            raise failure.error
        refused = failure.fate is Fate.REFUSED
        call.again(delay, refused)
        if refused:
            return await self._requeue(permit, call)
        await self.clock.sleep(delay)
        return await self._acquire(request, call)

    def _delay(self, request: Request[Any], failure: Failure, call: Call) -> float | None:
        """Return the seconds until the next attempt, None to give up; after a 429 the gate is closed."""
        asked = failure.error.retry_after if isinstance(failure.error, APIError) else None
        if failure.fate is Fate.REFUSED:
            self.limiter().cool_down(asked or 0.0)
            if self.hooks.watches_gate:
                self.hooks.refused(self.limiter().snapshot().cooldown)
        return retry_after(
            self.retry,
            failure.fate,
            request.repeat,
            attempt=call.counted,
            elapsed=self.clock.monotonic() - call.first_sent,
            asked=asked,
            chance=self.chance(),
        )

    async def _acquire(self, request: Request[Any], call: Call) -> Permit:
        self.transport.bind()
        limiter = self.limiter()
        # A cancel saves paid work, and the user that asked for it is waiting.
        priority = Priority.INTERACTIVE if request.stage is Stage.CANCEL else self.priority
        if self.hooks.callbacks:
            self.hooks.waiting(limiter.snapshot, priority)
        asked_at = self.clock.monotonic()
        permit = await acquire_in_stage(limiter, priority, self.max_wait, request.stage)
        call.granted(asked_at)
        return permit

    async def _requeue(self, permit: Permit, call: Call) -> Permit:
        asked_at = self.clock.monotonic()
        permit = await permit.requeue(max_wait=self.max_wait)
        call.granted(asked_at)
        return permit


Fetch = Callable[[Request[Any], Permit, Timeouts], Awaitable[Response | Failure]]


def _forgiving(fetch: Fetch) -> Fetch:
    """Return a `fetch` for one call of a command, for which a 400 after a lost answer means that it was obeyed.

    A cancel that took effect, and whose answer was lost, is refused when it is sent again: there is nothing to cancel.
    """
    lost = False

    async def forgiving(request: Request[Any], permit: Permit, timeouts: Timeouts) -> Response | Failure:
        nonlocal lost
        answer = await fetch(request, permit, timeouts)
        if isinstance(answer, Failure):
            if lost and isinstance(answer.error, BadRequestError):
                return Response(200, {}, b"")
            lost = lost or answer.fate is Fate.UNKNOWN
        return answer

    return forgiving


def _value(request: Request[Any], answer: Response) -> Any:
    if request.answer is Answer.RAW:
        return answer
    empty = not answer.body or answer.body.isspace()
    if request.answer is Answer.NOTHING or (request.answer is Answer.MAYBE and empty):
        return None
    return parse_json(answer.body, answer.headers.get("Content-Type", ""))
