"""Decoding: every answer becomes JSON or the right error, whatever its body is."""

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from comfycontrol_async._http import _decode
from comfycontrol_async._http._decode import error_of, parse_json
from comfycontrol_async._http._html import html_text
from comfycontrol_async._http._request import Response
from comfycontrol_async._http._retry import Fate, fate_of
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ResponseFormatError,
    ServerError,
)

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)

# Cloudflare's page of error 1015, shortened.
PAGE_1015 = b"""<!DOCTYPE html>
<html lang="en-US">
<head>
<title>Access denied | api.comfycontrol.app used Cloudflare
to restrict access</title>
<style>body { color: red }</style>
</head>
<body><h1>Error 1015</h1><p>You are being rate limited</p></body>
</html>
"""


@pytest.fixture(params=["orjson", "json"])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test with and without the extra `speedups`."""
    parsers: dict[str, Callable[[bytes], Any]] = {"json": json.loads}
    if request.param == "orjson":
        parsers["orjson"] = pytest.importorskip("orjson").loads
    monkeypatch.setattr(_decode, "_loads", parsers[request.param])
    return str(request.param)


def error(status: int, body: bytes | object = b"", headers: Mapping[str, str] | None = None) -> APIError:
    """Decode an answer that is no success."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_of(Response(status, headers or {}, content), "GET", "/v1/user", NOW)


def test_without_speedups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `speedups` Python's own parser does."""
    spec = importlib.util.find_spec("comfycontrol_async._http._decode")
    assert spec is not None
    assert spec.loader is not None
    monkeypatch.setitem(sys.modules, "orjson", None)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module._loads is json.loads
    assert module.parse_json(b'{"a": 1}') == {"a": 1}


# Success


@pytest.mark.parametrize(
    ("body", "value"),
    [
        pytest.param(b'{"a": [1, null, true, "\xc3\xbc"]}', {"a": [1, None, True, "ü"]}, id="object"),
        pytest.param(b"[]", [], id="array"),
        pytest.param(b"null", None, id="null"),
        pytest.param(b' \r\n{"a": 1}\n', {"a": 1}, id="white-space-around"),
        pytest.param(b'{"seed": 18446744073709551615}', {"seed": 2**64 - 1}, id="64-bit"),
        pytest.param(b'{"seed": -9223372036854775808}', {"seed": -(2**63)}, id="64-bit-negative"),
        pytest.param(b'{"seed": 18446744073709551616}', {"seed": 2**64}, id="65-bit"),
        pytest.param(b'{"seed": -9223372036854775809}', {"seed": -(2**63) - 1}, id="65-bit-negative"),
        pytest.param(b'{"seed": ' + b"9" * 100 + b"}", {"seed": 10**100 - 1}, id="100-digits"),
        pytest.param(b"[1, " + b"9" * 5000 + b", -" + b"9" * 5000 + b"]", [1, math.inf, -math.inf], id="5000-digits"),
        pytest.param(b'{"a": 1e999, "b": -1e999}', {"a": math.inf, "b": -math.inf}, id="beyond-floats"),
        pytest.param(b"[Infinity, -Infinity]", [math.inf, -math.inf], id="infinity"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', {"a": 1}, id="byte-order-mark"),
        pytest.param(b'["cat \\ud83d", "\\uDE00"]', ["cat \ufffd", "\ufffd"], id="half-a-pair"),
        pytest.param(b'{"\\ud83d": {"b": ["\\ud83d"]}}', {"\ufffd": {"b": ["\ufffd"]}}, id="half-a-pair-inside"),
        pytest.param(b'["\\ud83d\\ude00", "\\\\ud83d"]', ["\U0001f600", "\\ud83d"], id="whole-pair"),
        pytest.param(b'{"id": "1234567890123456789012345"}', {"id": "1234567890123456789012345"}, id="digits-in-text"),
        pytest.param(b'{"a": 1, "a": 2}', {"a": 2}, id="key-twice"),
    ],
)
def test_json(loads: str, body: bytes, value: object) -> None:
    """JSON is read to the last digit, the same with and without orjson."""
    read = parse_json(body)
    assert read == value
    assert repr(read) == repr(value)  # 1.0 equals 1


def test_nan(loads: str) -> None:
    """NaN, which Python programs write, does not lose the rest."""
    assert repr(parse_json(b'{"a": NaN, "b": [1, NaN]}')) == "{'a': nan, 'b': [1, nan]}"


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        pytest.param(b"", "application/json", "the body is empty where JSON is due", id="empty"),
        pytest.param(b" \r\n", "application/json", "the body is empty where JSON is due", id="blank"),
        pytest.param(b'{"id": "a1b2', "application/json", "no JSON or was cut short", id="truncated"),
        pytest.param(b'{"id": 1} trailing', "application/json", "no JSON or was cut short", id="trailing"),
        pytest.param(b'{"id": "\xff"}', "application/json", "no JSON or was cut short", id="not-utf-8"),
        pytest.param(b'{"a": "\x01"}', "application/json", "no JSON or was cut short", id="control-character"),
        pytest.param('{"a": 1}'.encode("utf-16"), "application/json", "no JSON or was cut short", id="utf-16"),
        pytest.param(b'["\xed\xa0\x80"]', "application/json", "no JSON or was cut short", id="half-a-pair-in-bytes"),
        pytest.param(b"OK", "text/plain", "no JSON or was cut short", id="plain-text"),
        pytest.param(b"[" * 200_000, "application/json", "no JSON or was cut short", id="too-deep"),
        pytest.param(
            PAGE_1015, "text/html", "HTML where JSON is due: Access denied | api.comfycontrol.app used", id="html"
        ),
        pytest.param(b"\n<p>Just a\nmoment</p>", "", "HTML where JSON is due: Just a moment", id="html-by-its-looks"),
        pytest.param(b"Just a moment", "text/html", "HTML where JSON is due: Just a moment", id="html-by-its-type"),
        pytest.param(b"<p></p>", "", "HTML where JSON is due", id="html-without-words"),
    ],
)
def test_no_json(loads: str, body: bytes, content_type: str, message: str) -> None:
    """A body that is no JSON is one clear error, of one line, with its cause."""
    with pytest.raises(ResponseFormatError) as caught:
        parse_json(body, content_type)
    assert caught.value.json_path == "$"
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert not str(caught.value).endswith(":")
    if "empty" not in message:
        assert type(caught.value.__cause__) is ValueError, "the parser's own error holds the whole body"


# Errors


@pytest.mark.parametrize(
    ("status", "cls", "fate"),
    [
        (300, APIError, Fate.FINAL),
        (302, APIError, Fate.FINAL),
        (308, APIError, Fate.FINAL),
        (400, BadRequestError, Fate.FINAL),
        (401, AuthenticationError, Fate.FINAL),
        (402, APIError, Fate.FINAL),
        (403, PermissionDeniedError, Fate.FINAL),
        (404, NotFoundError, Fate.FINAL),
        (405, APIError, Fate.FINAL),
        (408, APIError, Fate.UNKNOWN),
        (409, APIError, Fate.FINAL),
        (413, APIError, Fate.FINAL),
        (415, APIError, Fate.FINAL),
        (422, APIError, Fate.FINAL),
        (425, APIError, Fate.UNKNOWN),
        (429, RateLimitedError, Fate.REFUSED),
        (451, APIError, Fate.FINAL),
        (499, APIError, Fate.FINAL),
        (500, ServerError, Fate.UNKNOWN),
        (501, ServerError, Fate.UNKNOWN),
        (502, ServerError, Fate.UNKNOWN),
        (503, ServerError, Fate.UNKNOWN),
        (504, ServerError, Fate.UNKNOWN),
        (520, ServerError, Fate.UNKNOWN),
        (524, ServerError, Fate.UNKNOWN),
        (599, ServerError, Fate.UNKNOWN),
    ],
)
def test_status(status: int, cls: type[APIError], fate: Fate) -> None:
    """Each status has its class, and says whether the request may have taken effect."""
    made = error(status, {"status": status, "message": "a reason"})
    assert type(made) is cls
    assert (made.status, made.method, made.path) == (status, "GET", "/v1/user")
    assert fate_of(status) is fate


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "name cannot be empty"),
        (400, "invalid endpoint URL format"),
        (401, "Invalid token"),
        (401, "Token has expired"),
        (403, "Runner limit exceeded for your tier"),
        (403, "Managed runners require Pro or Plus tier"),
        (404, "requested entity not found"),
    ],
)
def test_documented_messages(loads: str, status: int, message: str) -> None:
    """The envelope's message is the error's, word for word."""
    made = error(status, {"status": status, "message": message}, {"cf-ray": "8f3a9c2b1d2e3f40-FRA"})
    assert made.message == message
    assert str(made) == f"GET /v1/user: {status} {message} (request id 8f3a9c2b1d2e3f40-FRA)"


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        pytest.param(b"", {}, "", id="empty"),
        pytest.param(b"upstream timed out\n", {"Content-Type": "text/plain"}, "upstream timed out", id="plain-text"),
        pytest.param(b'{"status": 500, "mess', {}, '{"status": 500, "mess', id="truncated"),
        pytest.param(b"[" * 200_000, {}, "[" * 500, id="too-deep"),
        pytest.param(b"\xff\xfe", {}, "\ufffd\ufffd", id="not-utf-8"),
        pytest.param(b'["a", "list"]', {}, '["a", "list"]', id="array"),
        pytest.param({"message": ""}, {}, '{"message": ""}', id="empty-message"),
        pytest.param({"message": None, "error": "broken"}, {}, "broken", id="another-key"),
        pytest.param({"message": {"deep": 1}, "title": "Oops"}, {}, "Oops", id="message-is-no-text"),
        pytest.param({"message": True, "detail": 17}, {}, "17", id="number"),
        pytest.param(
            {"type": "about:blank", "title": "Error 1015", "detail": "You are being rate limited"},
            {},
            "You are being rate limited",
            id="problem-document",
        ),
        pytest.param(
            PAGE_1015,
            {"Content-Type": "text/html; charset=UTF-8"},
            "Access denied | api.comfycontrol.app used Cloudflare to restrict access",
            id="html",
        ),
        pytest.param(b"Bad\ngateway", {"Content-Type": "text/html"}, "Bad gateway", id="html-by-its-type"),
        pytest.param(b"\n<p>Bad\ngateway</p>", {}, "Bad gateway", id="html-by-its-looks"),
        pytest.param(b"x" * 10_000, {}, "x" * 500, id="long"),
    ],
)
def test_messages(loads: str, body: bytes | object, headers: dict[str, str], message: str) -> None:
    """Of any body, what it says to people becomes the message."""
    assert error(500, body, headers).message == message


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_redirects(status: int) -> None:
    """A redirect is not followed: it says what is probably wrong, and nothing of where it leads."""
    made = error(
        status, b"<title>Moved</title>", {"Location": "https://evil.test/?token=1", "Content-Type": "text/html"}
    )
    assert made.message == "the server redirects, which no API call follows; is the base URL right?"


def test_problem_document_of_the_edge(loads: str) -> None:
    """Cloudflare's problem document tells how long to wait, and which request it was."""
    body = {
        "type": "https://developers.cloudflare.com/errors/1015/",
        "title": "Error 1015: You are being rate limited",
        "status": 429,
        "detail": "You are being rate limited",
        "retry_after": 30,
        "ray_id": "9f3a9c2b1d2e3f40",
    }
    made = error(429, body, {"Content-Type": "application/problem+json"})
    assert isinstance(made, RateLimitedError)
    assert (made.retry_after, made.request_id) == (30.0, "9f3a9c2b1d2e3f40")


@pytest.mark.parametrize(
    ("status", "headers", "document", "expected"),
    [
        pytest.param(429, {"Retry-After": "17"}, {"retry_after": 30}, 17.0, id="header-first"),
        pytest.param(429, {"Retry-After": "soon"}, {"retry_after": 30}, 30.0, id="header-is-garbage"),
        pytest.param(429, {}, {"retry_after": "12"}, 12.0, id="text-in-the-body"),
        pytest.param(429, {}, {"retry_after": -5}, 0.0, id="negative"),
        pytest.param(429, {}, {"retry_after": None}, None, id="null"),
        pytest.param(429, {}, {"retry_after": True}, None, id="boolean"),
        pytest.param(429, {}, {}, None, id="nothing"),
        pytest.param(503, {"Retry-After": "Mon, 15 Jan 2024 10:31:00 GMT"}, {}, 60.0, id="date"),
        pytest.param(
            503,
            {"Retry-After": "Mon, 15 Jan 2024 10:31:00 GMT", "Date": "Mon, 15 Jan 2024 10:30:50 GMT"},
            {},
            10.0,
            id="date-counted-from-the-answers-own",
        ),
        pytest.param(429, {"Retry-After": "1e300"}, {}, None, id="exponent"),
        pytest.param(429, {}, {"retry_after": 7.5}, 7.5, id="fraction-in-the-body"),
        pytest.param(429, {}, {"retry_after": "1_0"}, None, id="underscore-in-the-body"),
        pytest.param(503, {}, {"retry_after": 5}, 5.0, id="unavailable"),
        pytest.param(500, {}, {"retry_after": 5}, None, id="another-status"),
        pytest.param(500, {"Retry-After": "5"}, {}, 5.0, id="header-with-any-status"),
    ],
)
def test_retry_after(
    loads: str, status: int, headers: dict[str, str], document: dict[str, Any], expected: float | None
) -> None:
    """The seconds to wait are the header's, or for a limit the body's."""
    assert error(status, document, headers).retry_after == expected


def test_request_id_of_the_header_first() -> None:
    """`cf-ray` is what support asks for."""
    assert error(500, {"ray_id": "body"}, {"cf-ray": "header"}).request_id == "header"
    assert error(500, {"ray_id": "body"}).request_id == "body"
    assert error(500).request_id is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b"<TITLE lang='en'> Bad\n gateway </TITLE>", "Bad gateway", id="title"),
        pytest.param(b"<style>p { a: b }</style><p>Bad</p>  <b>gateway</b>", "Bad gateway", id="no-title"),
        pytest.param(b"<script>if (1 < 2) {}</script >Bad gateway", "Bad gateway", id="script"),
        pytest.param(b"<title></title><p>x</p>", "", id="empty-title"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_html_text(body: bytes, text: str) -> None:
    """Of an HTML page, people read its title or its text, and no code."""
    assert html_text(body) == text
