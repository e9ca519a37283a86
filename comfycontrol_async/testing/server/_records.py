"""The plain values that pass between ports and handlers."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from http.client import responses
from typing import Any, TypeVar

import attrs

JSON = "application/json"
_V = TypeVar("_V")


@attrs.frozen
class Answer:
    """What a handler answers."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Stream:
    """What a handler answers bit by bit."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str


class ApiError(Exception):
    """Ends a handler with one of the API's error answers."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class CutError(Exception):
    """Ends a request with its connection closed and no answer."""


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return `value` as a JSON answer."""
    return Answer(status, json.dumps(value).encode())


def error_answer(status: int, message: str | None = None) -> Answer:
    """Return the API's error envelope."""
    if message is None:
        message = responses.get(status, "error").lower()
    return json_answer({"status": status, "message": message}, status)


@attrs.frozen
class PartInfo:
    """One part of a multipart request; `filename` is None for a text part."""

    name: str
    filename: str | None
    content_type: str
    size: int


@attrs.frozen(eq=False)
class RequestRecord:
    """A request as it arrived, and how it was answered.

    `at` is in server seconds since the start. `status` is None until the answer is decided, and stays so when none
    was given; then `dropped` is True once the connection is closed. `body_size` and `parts` are known once the body was
    read; before, the size is the one declared.
    """

    at: float
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body_size: int = 0
    status: int | None = None
    dropped: bool = False
    parts: tuple[PartInfo, ...] = ()

    def settle(self, **facts: Any) -> None:
        """Fill in what becomes known later; for the server only."""
        for name, value in facts.items():
            object.__setattr__(self, name, value)


@attrs.frozen
class LeakedCredential:
    """A credential that was sent to the storage, which needs none."""

    path: str
    place: str
    value: str = attrs.field(repr=False)


class LiveView(Mapping[str, _V]):
    """Shows a dict as it is at every look, read-only; another thread may change it during a walk."""

    def __init__(self, data: dict[str, _V]) -> None:
        self._data = data

    def __getitem__(self, key: str) -> _V:
        return self._data[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return repr(self._data)
