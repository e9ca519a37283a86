"""Attempt: one request on the wire, counted once, whose permit is settled at the moment that is due.

Refunded when the request certainly never left, arrived when the response headers are here, lost otherwise.
"""

import aiohttp

from comfycontrol_async._http._faults import Resent
from comfycontrol_async._http._retry import Fate
from comfycontrol_async.limits import Permit


class Attempt:
    """What happens to one request on the wire: aiohttp's per-request middleware."""

    __slots__ = ("permit", "sent", "started")

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.sent = False
        self.started = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Let the request out once.

        aiohttp sends an idempotent request again by itself when a kept-alive connection turns out dead: a request
        that has no permit, and with a body that was read already. Our own loop sends it again, with a permit.
        """
        if self.started:
            raise Resent
        self.started = True
        if isinstance(request, CountedRequest):
            request.attempt = self
        return await handler(request)

    def settle(self, fate: Fate) -> None:
        """Settle the permit of a request that got no response headers."""
        if fate is Fate.NEVER_LEFT or fate is Fate.FINAL:
            self.permit.refund()
        else:
            self.permit.lost()


class CountedRequest(aiohttp.ClientRequest):
    """A request of our own sessions, which reports to its attempt when it is written.

    aiohttp's trace `on_request_headers_sent` reports the same, but then awaits a signal at every step of every request.
    """

    attempt: Attempt | None = None

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Record that the connection is there and the request headers are about to be written."""
        if self.attempt is not None:
            self.attempt.sent = True
            self.attempt.permit.sent()
        return await super().send(conn)
