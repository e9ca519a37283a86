"""aiohttp's errors to ours: what an error on the wire says of the request's fate."""

import ssl

import aiohttp
import attrs

from comfycontrol_async._http._redact import Redact, redact
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
# What OpenSSL calls an answer that is not TLS, by version.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
# How an alert of TLS begins, as aiohttp quotes it.
_TLS_ALERT = "\\x15\\x03"


def classify(error: Exception, may_have_left: bool, method: str, path: str, clean: Redact = redact) -> Failure:
    """Return the fate and our error for an error of aiohttp; `clean` takes secrets out of its text."""
    failure = _classify(error, may_have_left, {"method": method, "path": path}, clean)
    failure.error.__cause__ = None if isinstance(error, Resent) else _presentable(error, clean)
    return failure


def _classify(error: Exception, may_have_left: bool, where: dict[str, str], clean: Redact) -> Failure:
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, ssl.CertificateError)):
        text = clean(f"the server's certificate is not trusted: {error}")
        return Failure(Fate.FINAL, ConnectionFailedError(text, **where))
    if isinstance(error, aiohttp.InvalidURL):
        return Failure(Fate.FINAL, ConnectionFailedError("the URL is not one that can be called", **where))
    if getattr(getattr(error, "os_error", None), "reason", None) in _NOT_TLS:
        text = "what answers at this port does not speak TLS: does the base URL (or the proxy's) begin with http://?"
        return Failure(Fate.FINAL, ConnectionFailedError(text, **where))
    text = clean(_text(error))
    if isinstance(error, _NOT_CONNECTED) or not may_have_left:
        said = "no connection in time" if isinstance(error, TimeoutError) else text
        return Failure(Fate.NEVER_LEFT, ConnectionFailedError(said, **where))
    if isinstance(error, TimeoutError):
        return Failure(Fate.UNKNOWN, RequestTimeoutError("no answer in time", **where))
    if isinstance(error, Resent):
        return Failure(Fate.UNKNOWN, ResponseLostError("the connection was closed before an answer came", **where))
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure(Fate.UNKNOWN, ResponseLostError("the answer was cut short", **where))
    return Failure(Fate.UNKNOWN, ResponseLostError(text, **where))


def _text(error: Exception) -> str:
    """Return what an aiohttp error says, without a query that might be signed."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "Server disconnected"  # its message may be half an answer
    if isinstance(error, aiohttp.ClientResponseError):
        if _TLS_ALERT in error.message:
            return "what answers at this port speaks TLS: does the base URL begin with https://?"
        return f"no valid HTTP answer: {error.message}".partition("?")[0]
    return str(error).partition("?")[0] or type(error).__name__


def _presentable(error: Exception, clean: Redact) -> Exception:
    """Return the error, or a plain one with its text where it, or what is behind it, shows a secret.

    aiohttp's errors hold request headers, URLs with their queries, and proxies with their passwords.
    """
    holds_request = isinstance(error, (aiohttp.ClientResponseError, aiohttp.InvalidURL))
    behind: BaseException | None = error
    while behind is not None and not holds_request:
        shown = f"{behind!r} {behind}"
        holds_request = clean(shown) != shown or "RawResponseMessage" in shown
        behind = behind.__cause__ or behind.__context__
    return ConnectionError(f"{type(error).__name__}: {clean(_text(error))}") if holds_request else error
