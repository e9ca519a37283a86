"""Pipeline: the one request loop, from a `Request` to its value: limiter -> attempt -> classify -> retry."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._http._attempts import Attempts
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._decode import parse_json
from comfycontrol_async._http._faults import Failure
from comfycontrol_async._http._request import Answer, Request, Response
from comfycontrol_async._http._retry import Fate, RetryPolicy, retry_after
from comfycontrol_async._http._stream import Stream
from comfycontrol_async._http._transport import Transport
from comfycontrol_async.errors import APIError, BadRequestError, ResponseFormatError
from comfycontrol_async.limits import Limiter, Permit, Priority, Stage
from comfycontrol_async.limits._protocol import acquire_in_stage

log = logging.getLogger("comfycontrol_async.http")

T = TypeVar("T")
A = TypeVar("A")


@attrs.frozen(kw_only=True)
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

    async def send(self, request: Request[T]) -> T:
        """Send `request` and return its value.

        Raises:
            TransportError, APIError: after all that the retry policy allows.
            ResponseFormatError: the answer is not what the API documents.
            RateLimitWaitError: the rate limit needs longer than `max_wait`.
        """
        fetch = _forgiving(self.transport.fetch) if request.answer is Answer.NOTHING else self.transport.fetch
        answer = await self._repeat(request, fetch)
        try:
            return request.structure(_value(request, answer))
        except ResponseFormatError as error:
            error.method, error.path = request.method, request.path
            self.transport.clean(error)
            raise

    async def open(self, request: Request[Any]) -> Stream:
        """Send a `request` for a stream and return it once its headers are here; the caller closes it.

        Raises:
            TransportError, APIError, RateLimitWaitError: as `send`.
        """
        return await self._repeat(request, self.transport.open)

    async def _repeat(
        self, request: Request[Any], attempt: Callable[[Request[Any], Permit, Timeouts], Awaitable[A | Failure]]
    ) -> A:
        """Make attempts until one succeeds or the retry policy gives up."""
        permit = await self._acquire(request.stage)
        started = self.clock.monotonic()
        attempts = 0
        while True:
            self.attempts.leave(request)
            answer = await attempt(request, permit, self.timeouts)
            if not isinstance(answer, Failure):
                return answer
            error, fate = answer.error, answer.fate
            asked = error.retry_after if isinstance(error, APIError) else None
            if fate is not Fate.REFUSED:
                attempts += 1
            delay = retry_after(
                self.retry,
                fate,
                request.repeat,
                attempt=attempts,
                elapsed=self.clock.monotonic() - started,
                asked=asked,
                chance=self.chance(),
            )
            if fate is Fate.REFUSED:
                self.limiter().cool_down(asked or 0.0)
            if delay is None:
                raise error
            log.info("%s %s: %s; again in %.2f s", request.method, request.path, error, delay)
            if fate is Fate.REFUSED:
                permit = await permit.requeue(max_wait=self.max_wait)
            else:
                await self.clock.sleep(delay)
                permit = await self._acquire(request.stage)

    async def _acquire(self, stage: Stage) -> Permit:
        self.transport.bind()
        # A cancel saves paid work, and the user that asked for it is waiting.
        priority = Priority.INTERACTIVE if stage is Stage.CANCEL else self.priority
        return await acquire_in_stage(self.limiter(), priority, self.max_wait, stage)


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
    if request.answer is Answer.NOTHING or (request.answer is Answer.MAYBE and not answer.body.strip()):
        return None
    return parse_json(answer.body, answer.headers.get("Content-Type", ""))
