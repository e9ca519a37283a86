"""How resources make requests: the calls they share, in terms of a `send` function."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from comfycontrol_async._convert import page_structurer, structurer
from comfycontrol_async._paginate import Pager
from comfycontrol_async._request import Answer, Request
from comfycontrol_async._transport import Stream
from comfycontrol_async.graph import Graph
from comfycontrol_async.limits import Priority
from comfycontrol_async.models import Page, Template, WorkflowSummary
from comfycontrol_async.resources._checks import check_per_page

T = TypeVar("T")

Summaries = list[WorkflowSummary]

# What a graph can be given as; a path names a JSON file.
GraphSource = Graph | Template | Mapping[str, Any] | str | Path


class Send(Protocol):
    """Sends a request and returns its value."""

    async def __call__(self, request: Request[T], /) -> T:
        """Send it."""
        ...


class Open(Protocol):
    """Sends a request for a stream and returns the stream; the caller closes it."""

    async def __call__(self, request: Request[Any], /) -> Stream:
        """Send it."""
        ...


def get(path: str, cls: type[T], *, priority: Priority | None = None) -> Request[T]:
    """Make a GET whose answer is a `cls`."""
    return Request(method="GET", path=path, structure=structurer(cls), priority=priority)


def with_json(method: str, path: str, value: Mapping[str, Any], cls: type[T], **options: Any) -> Request[T]:
    """Make a request with a JSON body, whose answer is a `cls`."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    return Request(method=method, path=path, structure=structurer(cls), body=body, **options)


def command(path: str) -> Request[None]:
    """Make a POST without a body that may be repeated and answers with nothing: interrupt, cancel."""
    return Request(method="POST", path=path, structure=lambda _: None, answer=Answer.NOTHING)


def listing(send: Send, path: str, cls: type[T], key: str, per_page: int, status: str | None = None) -> Pager[T]:
    """Make a pager over the listing at `path`, whose items stand under `key`."""
    check_per_page(per_page)

    async def fetch(number: int) -> Page[T]:
        query: dict[str, str | int] = {"page": number, "per_page": per_page}
        if status is not None:
            query["status"] = str(status)
        structure = page_structurer(cls, key, number, per_page)
        return await send(Request(method="GET", path=path, query=query, structure=structure))

    return Pager(fetch)
