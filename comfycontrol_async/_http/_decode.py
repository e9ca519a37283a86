"""Answers to JSON, or to the right error: status + headers + bytes in, a value or one of our errors out."""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from comfycontrol_async._http._html import html_text
from comfycontrol_async._http._redact import Redact, redact
from comfycontrol_async._http._request import Response
from comfycontrol_async._http._retry import parse_date, parse_digits, parse_retry_after
from comfycontrol_async._settings import is_number
from comfycontrol_async.errors import APIError, ResponseFormatError, _error_class

_loads: Callable[[bytes | bytearray], Any]
try:  # the extra `speedups`
    from orjson import loads as _loads
except ImportError:
    _loads = json.loads

_BOM = b"\xef\xbb\xbf"
# Every digit becomes 0 and everything else a blank: a run of digits is then found by a plain search.
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
# From 19 digits on a number may be beyond 64 bits, where orjson gives a rounded float.
_LONG_NUMBER = b"0" * 19
_LONGEST_MESSAGE = 2000
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def parse_json(body: bytes | bytearray, content_type: str = "") -> Any:
    """Parse a JSON body; with and without orjson the value is the same.

    Tolerated, so that one odd value does not lose a page: a byte order mark, NaN and Infinity, half a surrogate pair
    (read as U+FFFD), integers of any size.

    Raises:
        ResponseFormatError: it is empty, HTML, cut short or otherwise no JSON.
    """
    if not body or body.isspace():
        raise ResponseFormatError("the body is empty where JSON is due")
    if _loads is not json.loads and _LONG_NUMBER not in body.translate(_DIGITS):
        try:
            return _loads(body)
        except (ValueError, RecursionError):
            pass  # Python's parser decides
    try:
        return _parse(body)
    except (ValueError, RecursionError) as error:
        cause = ValueError(str(error))  # the parser's own error holds the whole body
        if "html" in content_type or body[:500].lstrip()[:1] == b"<":
            words = html_text(body)
            raise ResponseFormatError(f"HTML where JSON is due{f': {words}' if words else ''}") from cause
        raise ResponseFormatError(f"the body is no JSON or was cut short: {error}") from cause


def _parse(body: bytes | bytearray) -> Any:
    text = body.removeprefix(_BOM).decode()
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # a number of more digits than Python reads at once
        value = json.loads(text, parse_int=_whole_number)
    return _mended(value) if "\\ud" in text or "\\uD" in text else value


def _whole_number(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return math.inf if digits[0] != "-" else -math.inf


def _mended(value: Any) -> Any:
    """Return the value with U+FFFD for every half of a surrogate pair, which no encoding can write."""
    if isinstance(value, str):
        return _HALF_PAIR.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def error_of(response: Response, method: str, path: str, now: datetime, clean: Redact = redact) -> APIError:
    """Make the error of an answer that is no success.

    The body may be the API's envelope, an HTML page of the edge, or a problem document (RFC 9457) with Cloudflare's
    `ray_id` and `retry_after`. `now` stands in for the Date of an answer that has none;
    `clean` takes secrets out of what the server echoes.
    """
    status, headers = response.status, response.headers
    document = _document(response.body)
    request_id = headers.get("cf-ray") or _text(document, "ray_id")
    dated = parse_date(headers.get("Date", ""))
    asked = parse_retry_after(headers.get("Retry-After"), dated or now)
    if asked is None and status in (429, 503):
        asked = _seconds(document.get("retry_after"))
    message = clean(_message(status, headers, response.body, document)[:_LONGEST_MESSAGE])
    named = None if request_id is None else clean(request_id[:_LONGEST_MESSAGE])
    return _error_class(status)(status, message, method, path, named, asked)


def _document(body: bytes | bytearray) -> Mapping[str, Any]:
    try:
        value = parse_json(body)
    except ResponseFormatError:
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(value: object) -> float | None:
    """Return a number of seconds that a document gives, as a number or as digits."""
    if isinstance(value, str):
        return parse_digits(value)
    finite = is_number(value) and isinstance(value, (int, float)) and value < math.inf
    return max(0.0, float(value)) if finite else None  # type: ignore[arg-type] # a number, as was asked


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None


def _message(status: int, headers: Mapping[str, str], body: bytes | bytearray, document: Mapping[str, Any]) -> str:
    if 300 <= status < 400:
        return "the server redirects, which no API call follows; is the base URL right?"
    for key in ("message", "detail", "title", "error"):
        if text := _text(document, key):
            return text
    if "html" in headers.get("Content-Type", "") or body[:500].lstrip()[:1] == b"<":
        return html_text(body)
    return body[:500].decode(errors="replace").strip()
