"""aiohttp's errors to ours: sentences that help, and no secret in any text or cause."""

import copy
import pickle
import socket
import ssl
import traceback

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from comfycontrol_async import ConnectionFailedError, ResponseLostError, TransportError
from comfycontrol_async._http._faults import classify
from comfycontrol_async._http._redact import redactor
from comfycontrol_async._http._retry import Fate

TOKEN = "cfc_0123456789abcdefSECRET"
SIGNED = f"https://storage.test/a.png?X-Signature={TOKEN}"
INFO = aiohttp.RequestInfo(
    URL(SIGNED), "GET", CIMultiDictProxy(CIMultiDict({"Authorization": f"Bearer {TOKEN}"})), URL(SIGNED)
)
PROXIED = ConnectionKey("api.test", 443, True, True, URL("http://user:SECRET@proxy.test:3128"), None, None)


def tls(reason: str) -> Exception:
    """Make the error of a handshake that failed for this reason."""
    error = ssl.SSLError(1, f"[SSL: {reason}] something (_ssl.c:1000)")
    error.reason = reason
    return aiohttp.ClientConnectorSSLError(PROXIED, error)


def chained() -> Exception:
    """Make an error whose cause shows a secret."""
    error = aiohttp.ClientOSError(104, "Connection reset by peer")
    error.__cause__ = OSError(f"sent {TOKEN}")
    return error


SECRETS: dict[str, Exception] = {
    "request-info": aiohttp.ClientResponseError(INFO, (), status=400, message=f"Bad status line {TOKEN}"),
    "redirects": aiohttp.TooManyRedirects(INFO, ()),
    "proxy-refuses": aiohttp.ClientHttpProxyError(INFO, (), status=407, message="Proxy Authentication Required"),
    "url": aiohttp.InvalidURL(SIGNED),
    "text": aiohttp.ClientOSError(1, f"could not write to {SIGNED}"),
    "proxy-password": aiohttp.ClientProxyConnectionError(PROXIED, OSError(111, "refused")),
    "name": aiohttp.ClientConnectorDNSError(PROXIED, socket.gaierror(-2, "Name or service not known")),
    "tls": tls("WRONG_VERSION_NUMBER"),
    "certificate": aiohttp.ClientConnectorCertificateError(PROXIED, ssl.SSLCertVerificationError(f"for {SIGNED}")),
    "half-an-answer": aiohttp.ServerDisconnectedError(f"RawResponseMessage(headers={{'Location': '{SIGNED}'}})"),
    "cause": chained(),
}


@pytest.mark.parametrize("may_have_left", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", SECRETS)
def test_no_secret(name: str, may_have_left: bool) -> None:
    """Text, repr, pickle, copy, causes and traceback of our error are free of tokens, queries and passwords."""
    error = classify(SECRETS[name], may_have_left, "GET", "/a.png", redactor(TOKEN)).error
    assert isinstance(error, TransportError)
    shown = [str(error), repr(error), repr(copy.copy(error)), repr(pickle.loads(pickle.dumps(error)).__dict__)]
    behind: BaseException | None = error
    while behind is not None:
        shown += [str(behind), repr(behind), repr(behind.args), repr(getattr(behind, "request_info", ""))]
        behind = behind.__cause__ or behind.__context__
    try:
        raise error
    except TransportError:
        shown.append(traceback.format_exc())
    assert not any("SECRET" in text or "X-Signature" in text for text in shown)
    assert error.__cause__ is not None
    assert "\n" not in str(error)


def test_harmless_causes_stay() -> None:
    """A cause that shows nothing is attached as it is."""
    cause = aiohttp.ClientOSError(104, "Connection reset by peer")
    assert classify(cause, True, "GET", "/v1/user").error.__cause__ is cause


@pytest.mark.parametrize(
    ("error", "text", "fate"),
    [
        *(
            pytest.param(
                tls(reason), "does not speak TLS: does the base URL .* begin with http://", Fate.FINAL, id=reason
            )
            for reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
        ),
        pytest.param(tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), "HANDSHAKE_FAILURE", Fate.NEVER_LEFT, id="another"),
        pytest.param(
            aiohttp.ClientResponseError(INFO, (), status=400, message=r"Bad status line b'\x15\x03\x01'"),
            "speaks TLS: does the base URL begin with https://",
            Fate.UNKNOWN,
            id="tls-alert",
        ),
        pytest.param(
            aiohttp.ClientResponseError(INFO, (), status=400, message="Bad status line 'SSH-2.0'"),
            "no valid HTTP answer: Bad status line 'SSH-2.0'",
            Fate.UNKNOWN,
            id="no-http",
        ),
    ],
)
def test_sentences(error: Exception, text: str, fate: Fate) -> None:
    """What is probably wrong is said, and what another attempt would not change is final."""
    failure = classify(error, True, "GET", "/v1/user")
    assert failure.fate is fate
    with pytest.raises((ConnectionFailedError, ResponseLostError), match=text):
        raise failure.error
