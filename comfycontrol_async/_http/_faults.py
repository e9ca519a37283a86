"""aiohttp's errors to ours: what an error on the wire says of the request's fate."""

import ssl

import aiohttp
import attrs

from comfycontrol_async._http._retry import Fate
from comfycontrol_async.errors import (
    APIError,
    ConnectionFailedError,
    RequestTimeoutError,
    ResponseLostError,
    TransportError,
)


class Resent(Exception):  # noqa: N818 # a signal between two functions of ours, never seen by a user
    """aiohttp was about to send a request a second time by itself."""


@attrs.frozen
class Failure:
    """An attempt that brought no success: what is known of its fate, and the error to raise for it."""

    fate: Fate
    error: TransportError | APIError


TRANSPORT_FAULTS = (aiohttp.ClientError, TimeoutError, OSError, Resent)
_NOT_CONNECTED = (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)


def classify(error: Exception, may_have_left: bool, method: str, path: str) -> Failure:
    """Return the fate and our error for an error of aiohttp."""
    failure = _classify(error, may_have_left, {"method": method, "path": path})
    failure.error.__cause__ = None if isinstance(error, Resent) else error
    return failure


def _classify(error: Exception, may_have_left: bool, where: dict[str, str]) -> Failure:
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        return Failure(Fate.FINAL, ConnectionFailedError(f"the server's certificate is not trusted: {error}", **where))
    if isinstance(error, aiohttp.InvalidURL):
        return Failure(Fate.FINAL, ConnectionFailedError("the URL is not one that can be called", **where))
    if isinstance(error, _NOT_CONNECTED) or not may_have_left:
        text = "no connection in time" if isinstance(error, TimeoutError) else _text(error)
        return Failure(Fate.NEVER_LEFT, ConnectionFailedError(text, **where))
    if isinstance(error, TimeoutError):
        return Failure(Fate.UNKNOWN, RequestTimeoutError("no answer in time", **where))
    if isinstance(error, Resent):
        return Failure(Fate.UNKNOWN, ResponseLostError("the kept-alive connection had been closed", **where))
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(Fate.UNKNOWN, ResponseLostError("the answer was cut short", **where))
    return Failure(Fate.UNKNOWN, ResponseLostError(_text(error), **where))


def _text(error: Exception) -> str:
    """Return what an aiohttp error says, without a query that might be signed."""
    return str(error).partition("?")[0] or type(error).__name__
