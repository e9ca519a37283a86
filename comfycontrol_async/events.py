"""What callbacks of `comfy.on(EventClass, callback)` receive: plain values; nothing is made when nothing listens.

A *call* is what one method of the client asks of the API; it takes one attempt or more. A callback runs in the task of
the call, at once, so it must not block; a coroutine function runs as a task. At most 1,000 of these may be pending:
more are dropped, logged once. `aclose` waits 1 s for them. A callback that fails is logged and harms nothing. Siblings,
made by `with_options`, share the callbacks.
"""

import attrs

from comfycontrol_async.limits import Priority


@attrs.frozen(kw_only=True)
class CallStarted:
    """A call begins; it may wait for the rate limit before anything is sent. `path` is without its query."""

    method: str
    path: str


@attrs.frozen(kw_only=True)
class RequestFinished:
    """One attempt of a call is over.

    Attributes:
        status: the HTTP status; None when no answer came.
        error: what the attempt ended in; None for a success.
        attempt: 1 for the first; refused ones (429) count here.
        seconds: from sending to the end of the answer, or to a stream's headers.
        limiter_wait: seconds of waiting for the rate limit before this attempt.
        request_id: Cloudflare's ray id, to quote to support.
    """

    method: str
    path: str
    status: int | None
    error: BaseException | None
    attempt: int
    seconds: float
    limiter_wait: float
    request_id: str | None


@attrs.frozen(kw_only=True)
class RetryScheduled(RequestFinished):
    """The call is tried again `delay` seconds from now; 0.0 after a 429, for which the rate limiter waits."""

    delay: float


@attrs.frozen(kw_only=True)
class CallFinished:
    """A call is over: `attempts` requests were sent; `seconds` and `limiter_wait` are of all of them together.

    `error` is what it raises, None for a success.
    """

    method: str
    path: str
    status: int | None
    error: BaseException | None
    attempts: int
    seconds: float
    limiter_wait: float
    request_id: str | None


@attrs.frozen(kw_only=True)
class BudgetWait:
    """A request begins to wait for the rate limit; `seconds` is the limiter's estimate, 1.0 or more."""

    seconds: float
    priority: Priority


@attrs.frozen(kw_only=True)
class CooldownStarted:
    """A request of this client met a closed gate, after a 429: nothing is sent for about `seconds`."""

    seconds: float


@attrs.frozen
class CooldownEnded:
    """The gate is open again: a request of this client was let through."""


@attrs.frozen(kw_only=True)
class WorkflowChanged:
    """A workflow that this client follows was seen in another status; `previous` is None at the first sight."""

    id: str
    name: str
    status: str
    previous: str | None


Event = (
    CallStarted
    | RequestFinished
    | RetryScheduled
    | CallFinished
    | BudgetWait
    | CooldownStarted
    | CooldownEnded
    | WorkflowChanged
)
