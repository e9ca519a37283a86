"""Answers to JSON, or to the right error: status + headers + bytes in, a value or one of our errors out."""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from comfycontrol_async._http._request import Response
from comfycontrol_async._http._retry import Fate, parse_date, parse_digits, parse_retry_after
from comfycontrol_async._settings import is_number
from comfycontrol_async.errors import APIError, ResponseFormatError, _error_class

_loads: Callable[[bytes], Any]
try:  # the extra `speedups`
    from orjson import loads as _loads
except ImportError:
    _loads = json.loads

_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def parse_json(body: bytes, content_type: str = "") -> Any:
    """Parse a JSON body.

    Raises:
        ResponseFormatError: it is empty, HTML, cut short or otherwise no JSON.
    """
    if not body.strip():
        raise ResponseFormatError("the body is empty where JSON is due")
    try:
        return _loads(body)
    except (ValueError, RecursionError) as error:
        if "html" in content_type or body.lstrip()[:1] == b"<":
            raise ResponseFormatError(f"HTML where JSON is due: {html_text(body)}") from error
        raise ResponseFormatError(f"the body is no JSON or was cut short: {error}") from error


def fate_of(status: int) -> Fate:
    """Tell what an error status says of the request's fate."""
    if status == 429:
        return Fate.REFUSED
    return Fate.UNKNOWN if status >= 500 else Fate.FINAL


def error_of(response: Response, method: str, path: str, now: datetime) -> APIError:
    """Make the error of an answer that is no success.

    The body may be the API's envelope, an HTML page of the edge, or a problem document (RFC 9457) with Cloudflare's
    `ray_id` and `retry_after`. `now` stands in for the Date of an answer that has none.
    """
    status, headers = response.status, response.headers
    document = _document(response.body)
    request_id = headers.get("cf-ray") or _text(document, "ray_id")
    dated = parse_date(headers.get("Date", ""))
    asked = parse_retry_after(headers.get("Retry-After"), dated or now)
    if asked is None and status in (429, 503):
        asked = _seconds(document.get("retry_after"))
    return _error_class(status)(
        status, _message(status, headers, response.body, document), method, path, request_id, asked
    )


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        value = _loads(body)
    except (ValueError, RecursionError):
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


def _message(status: int, headers: Mapping[str, str], body: bytes, document: Mapping[str, Any]) -> str:
    if 300 <= status < 400:
        return "the server redirects, which no API call follows; is the base URL right?"
    for key in ("message", "detail", "title", "error"):
        if text := _text(document, key):
            return text
    if "html" in headers.get("Content-Type", "") or body.lstrip()[:1] == b"<":
        return html_text(body)
    return body[:500].decode(errors="replace").strip()


def html_text(body: bytes) -> str:
    """Return what an HTML error page says: its title, or the text of its beginning."""
    if found := _TITLE.search(body):
        return " ".join(found[1].decode(errors="replace").split())
    return " ".join(_TAGS.sub(" ", body[:4000].decode(errors="replace")).split())
