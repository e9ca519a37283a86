"""One GET to a ComfyUI, which is not the service: no token, no limiter, no retry; one clear error for each way to fail.

This is the only place below the transport that uses aiohttp: node definitions belong to the graph, which lies below
it, and the pipeline is made for the service's origin, limit and errors, of which a ComfyUI has none.
"""

import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit, urlunsplit

from comfycontrol_async.errors import (
    ComfyControlError,
    ConnectionFailedError,
    InvalidArgumentError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    _error_class,
)

_PATH = "/object_info"
# Seconds. A ComfyUI with a thousand custom nodes takes ten to answer; while it starts it does not listen at all.
_CONNECT = 5.0
_TOTAL = 30.0
_PIECE = 64 * 1024


async def fetch_json(url: str, headers: Mapping[str, str] | None, largest: int) -> tuple[bytes, str]:
    """Return the body that a ComfyUI answers at `/object_info`, and its address without what may be secret in it.

    Raises:
        InvalidArgumentError, TransportError, APIError, ResponseFormatError: as `NodeDefinitions.fetch` says.
    """
    import aiohttp

    address, shown = _address(url)
    sent = _headers(headers)
    timeout = aiohttp.ClientTimeout(total=_TOTAL, sock_connect=_CONNECT)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(address, headers=sent, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise _refused(answer.status, answer.headers.get("Location", ""), shown)
            body = bytearray()
            async for piece in answer.content.iter_chunked(_PIECE):
                body += piece
                if len(body) > largest:
                    raise _too_large(shown, largest)
            packed = answer.headers.get("Content-Encoding", "identity").lower()
            return _unpack(bytes(body), packed, largest, shown), shown
    except aiohttp.ConnectionTimeoutError as error:
        raise ConnectionFailedError(f"no connection to {shown} within {_CONNECT:g} s; {_CHECK}") from error
    except TimeoutError as error:
        raise RequestTimeoutError(f"{shown} did not answer within {_TOTAL:g} s") from error
    except aiohttp.ClientPayloadError as error:
        raise ResponseLostError(f"the answer of {shown} was cut; try again") from error
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise InvalidArgumentError(f"{shown} is no address that can be asked") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _no_answer(error, address, shown) from error


def _unpack(body: bytes, packed: str, largest: int, shown: str) -> bytes:
    """Unpack what a proxy packed; by ourselves, as aiohttp does it without a bound."""
    if packed == "identity":
        return body
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, whichever it is
    try:
        text = unpacker.decompress(body, largest + 1)
    except zlib.error as error:
        raise ResponseFormatError(f"the answer of {shown} cannot be unpacked: {error}") from error
    if len(text) > largest:
        raise _too_large(shown, largest)
    if not unpacker.eof:
        raise ResponseLostError(f"the answer of {shown} was cut; try again")
    return text


def _too_large(shown: str, largest: int) -> ResponseFormatError:
    return ResponseFormatError(f"{shown} answers more than {largest // 1024**2} MB, which no node definitions are")


_CHECK = "is ComfyUI running there, and does the address have its port?"


def _address(url: str) -> tuple[str, str]:
    """Return the whole address, and the same without user, password and query."""
    if not isinstance(url, str):
        raise InvalidArgumentError(f"url is the address of a ComfyUI as a str, not a {type(url).__name__}")
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # what a resolver refuses in words of its own
    except ValueError as error:
        raise InvalidArgumentError(f"url is no address: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidArgumentError("url must be an address with http:// or https://, such as http://127.0.0.1:8188")
    path = parts.path.rstrip("/")
    path = path if path.endswith(_PATH) else path + _PATH
    name = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{name}{f':{port}' if port else ''}{path}"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), shown


def _headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    if headers is None:
        return {"Accept-Encoding": "gzip"}
    if not isinstance(headers, Mapping):
        raise InvalidArgumentError(f"headers map names to texts, but this is a {type(headers).__name__}")
    for name, value in headers.items():
        # The value may be a secret, so that an error names the header only.
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidArgumentError("headers map texts to texts")
        if not name.isascii() or not name or any(sign in name + value for sign in "\r\n\0"):
            raise InvalidArgumentError(f"the header {name!r} holds what no header can hold, such as a line break")
    return {"Accept-Encoding": "gzip", **headers}


def _refused(status: int, location: str, shown: str) -> ComfyControlError:
    if 300 <= status < 400:
        target = f" to {_origin(location)}" if _origin(location) else ""
        text = f"it redirects{target}: give the address at which ComfyUI itself answers"
    elif status in (401, 403, 407):
        text = "it wants to be logged in to: give the headers that it needs"
    elif status == 404:
        text = "nothing is there; is this a ComfyUI?"
    elif status == 400 and shown.startswith("http:"):
        text = "no node definitions; does it speak https only?"
    else:
        text = "no node definitions"
    return _error_class(status)(status, text, "GET", shown)


def _origin(location: str) -> str:
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""


def _no_answer(error: Exception, address: str, shown: str) -> ComfyControlError:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConnectionFailedError(f"the certificate of {shown} is not trusted by this machine")
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectionFailedError(f"{shown} does not speak https: try http://")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return ConnectionFailedError(f"the host of {shown} is not known; check the address")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionFailedError(f"no connection to {shown}: {error.strerror or 'refused'}; {_CHECK}")
    # What a port that speaks TLS does with a plain request: it answers in TLS, says 400 or hangs up.
    tls = "; does it speak https only?" if address.startswith("http:") else ""
    return ResponseLostError(f"{shown} gave no answer that HTTP knows{tls}")
