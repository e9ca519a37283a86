"""Requests as handlers get them: bodies read, and checked against what the API demands of their fields."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs
from aiohttp import BodyPartReader, MultipartReader, web

from comfycontrol_async.testing.server._ports import MALFORMED
from comfycontrol_async.testing.server._records import ApiError, PartInfo, RequestRecord
from comfycontrol_async.testing.server._state import Executor, State

_TAG_LIMIT = 10
_ID = re.compile(r"[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}")


@attrs.frozen
class Upload:
    """A file part."""

    filename: str
    content_type: str
    data: bytes


@attrs.frozen
class Form:
    """The parts of a multipart body by name; of several with one name the last counts."""

    fields: Mapping[str, str]
    files: Mapping[str, Upload]


@attrs.define(eq=False)
class Call:
    """One request on its way through a handler; `id` is the one in the path, if any."""

    state: State
    executor: Executor
    request: web.BaseRequest
    record: RequestRecord
    id: str

    @property
    def now(self) -> float:
        """The server time."""
        return self.state.time.now()

    async def form(self) -> Form:
        """Read the multipart body."""
        return await read_form(self.request, self.record, self.state.options.upload_limit)


async def read_form(request: web.BaseRequest, record: RequestRecord, limit: int) -> Form:
    """Read a multipart body of at most `limit` bytes."""
    if not request.content_type.startswith("multipart/"):
        raise ApiError(400, "request must be multipart/form-data")
    _check_size(request.content_length or 0, limit)
    _invite_body(request)
    fields: dict[str, str] = {}
    files: dict[str, Upload] = {}
    parts: list[PartInfo] = []
    try:
        async for name, part, data in _parts(await request.multipart(), limit):
            filename, content_type = part.filename, part.headers.get("Content-Type", "")
            parts.append(PartInfo(name, filename, content_type, len(data)))
            if filename is None:
                fields[name] = data.decode()
            else:
                files[name] = Upload(filename, content_type, data)
    except (ValueError, web.HTTPException, *MALFORMED) as error:
        raise ApiError(400, "malformed multipart body") from error
    finally:
        size = request.content_length or sum(part.size for part in parts)
        record.settle(parts=tuple(parts), body_size=size)
    return Form(fields, files)


async def _parts(reader: MultipartReader, limit: int) -> AsyncIterator[tuple[str, BodyPartReader, bytes]]:
    size = 0
    while (part := await reader.next()) is not None:
        # Read once: aiohttp parses the header each time that it is asked.
        if not isinstance(part, BodyPartReader) or not (name := part.name):
            raise ApiError(400, "every part of the form needs a name")
        data = bytearray()
        while chunk := await part.read_chunk(1 << 16):
            size += len(chunk)
            _check_size(size, limit)
            data += chunk
        yield name, part, bytes(data)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ApiError(400, f"request body exceeds {limit} bytes")


async def read_object(request: web.BaseRequest, record: RequestRecord) -> dict[str, Any]:
    """Read a JSON object."""
    _invite_body(request)
    try:
        data = await request.read()
    except web.HTTPException as error:
        raise ApiError(400, "request body is too large") from error
    except MALFORMED as error:
        raise ApiError(400, "malformed request body") from error
    record.settle(body_size=len(data))
    return parse_object(data, "request body")


def _invite_body(request: web.BaseRequest) -> None:
    # curl asks before it sends a big upload, and would wait a second for this.
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `data`."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ApiError(400, f"{what} is not valid JSON") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"{what} must be a JSON object")
    return value


def check_id(text: str) -> str:
    """Return an id of the form of a UUID; its digits are not looked at, as the service's own are no valid ones."""
    if not _ID.fullmatch(text):
        raise ApiError(400, "invalid UUID format")
    return text


def check_text(value: Any, what: str, longest: int) -> str:
    """Return a text of 1 to `longest` characters."""
    if value is None or value == "":
        raise ApiError(400, f"{what} cannot be empty")
    if not isinstance(value, str):
        raise ApiError(400, f"{what} must be a string")
    if len(value) > longest:
        raise ApiError(400, f"{what} cannot be longer than {longest} characters")
    return value


def check_endpoint(value: Any) -> str:
    """Return an http(s) URL."""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise ApiError(400, "invalid endpoint URL format")
    return str(value)


def check_tags(value: Any) -> list[str]:
    """Return at most ten tags."""
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise ApiError(400, "tags must be an array of strings")
    if len(value) > _TAG_LIMIT:
        raise ApiError(400, f"no more than {_TAG_LIMIT} tags are allowed")
    return value


def check_headers(value: Any) -> dict[str, str]:
    """Return an object of strings."""
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ApiError(400, "headers must be an object of strings")
    return value


def check_choice(value: Any, what: str, options: tuple[str, ...]) -> str:
    """Return one of `options`."""
    if value not in options:
        raise ApiError(400, f"invalid {what}")
    return str(value)


def check_page(query: Mapping[str, str]) -> tuple[int, int]:
    """Return the page number and its size."""
    return _bounded(query, "page", 1, 1 << 53), _bounded(query, "per_page", 10, 100)


def _bounded(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0
    if not 1 <= value <= most:
        raise ApiError(400, f"invalid {name}")
    return value
