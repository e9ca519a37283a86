"""How resources make requests: the calls they share, in terms of a `send` function."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from comfycontrol_async._http._convert import page_structurer, structurer
from comfycontrol_async._http._paginate import Pager
from comfycontrol_async._http._request import Answer, RawResponse, Repeat, Request, Response
from comfycontrol_async._http._stream import Stream
from comfycontrol_async._settings import check_kind
from comfycontrol_async.errors import InvalidArgumentError, ResponseFormatError
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.limits import Stage
from comfycontrol_async.models import Page, Template, WorkflowSummary
from comfycontrol_async.resources._checks import check_per_page

T = TypeVar("T")

# Methods that RFC 9110, 9.2.2 calls idempotent: the same again gives the same.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

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


def get(path: str, cls: type[T], *, stage: Stage = Stage.OTHER) -> Request[T]:
    """Make a GET whose answer is a `cls`."""
    return Request(method="GET", path=path, structure=structurer(cls), stage=stage)


def get_one(path: str, cls: type[T], id: str, *, stage: Stage = Stage.OTHER) -> Request[T]:
    """Make a GET whose answer is the `cls` of this id, and of no other."""
    return Request(method="GET", path=path, structure=about(id, structurer(cls)), stage=stage)


def about(id: str, structure: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return a structure function that believes a single object only when it has this id.

    A cache or a proxy on the way may mix answers up, and an answer may belong to an earlier request.
    """

    def believed(value: Any) -> T:
        found = structure(value)
        got = getattr(found, "id", id)
        if got.casefold() != id.casefold():
            raise ResponseFormatError(f"the answer is about {got[:60]!r}, not about {id!r}", json_path="$.id")
        return found

    return believed


def with_json(
    method: str, path: str, value: Mapping[str, Any], cls: type[T], *, id: str | None = None, **options: Any
) -> Request[T]:
    """Make a request with a JSON body, whose answer is a `cls`: that of this id where one is given."""
    structure = structurer(cls) if id is None else about(id, structurer(cls))
    return Request(method=method, path=path, structure=structure, body=encode_json(value), **options)


def command(path: str) -> Request[None]:
    """Make a POST without a body that may be repeated and answers with nothing: interrupt, cancel."""
    return Request(method="POST", path=path, structure=lambda _: None, answer=Answer.NOTHING, stage=Stage.CANCEL)


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


def raw_request(
    method: str, path: str, params: Mapping[str, str | int | float | bool] | None, value: Any, whole: bool
) -> Request[Any]:
    """Make a request for an endpoint that this package does not know.

    Its answer is the parsed JSON or None, or with `whole` a `RawResponse`.

    Raises:
        InvalidArgumentError: the method, the path or the body cannot be sent.
    """
    check_kind("a method", method, str, InvalidArgumentError, example="'GET'")
    check_kind("a path", path, str, InvalidArgumentError, example="'/v1/user'")
    place, mark, _ = path.partition("?")
    if mark:  # errors name the path, and a query may hold a secret
        raise InvalidArgumentError(f"give what follows the ? of {place[:60]!r} as params")
    if not path.startswith("/") or any(c in path for c in "\r\n#") or not _is_text(path):
        raise InvalidArgumentError(f"a path is like '/v1/user', on the API's own origin, not {path[:60]!a}")
    verb = method.upper()
    if not verb.isascii() or not verb.isalpha():
        raise InvalidArgumentError(f"a method is a word like 'GET', not {method!r}")
    return Request(
        method=verb,
        path=path,
        structure=_raw_response if whole else lambda answer: answer,
        query=_query(params or {}),
        body=None if value is None else encode_json(value),
        repeat=Repeat.SAFE if verb in _IDEMPOTENT else Repeat.NEVER,
        answer=Answer.RAW if whole else Answer.MAYBE,
    )


def _raw_response(answer: Response) -> RawResponse:
    headers = answer.headers
    return RawResponse(status=answer.status, headers=headers, request_id=headers.get("cf-ray"), body=bytes(answer.body))


def _query(params: Any) -> dict[str, str]:
    query = {}
    if not isinstance(params, Mapping):
        raise InvalidArgumentError(f"params must be a mapping of names to values, not {type(params).__name__}")
    for key, value in params.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not isinstance(key, str) or not _is_text(key + text):
            raise InvalidArgumentError(f"params must map texts to texts or numbers; that of {key!a} cannot be sent")
        query[key] = text
    return query


def _is_text(text: str) -> bool:
    """Return False if it holds half a surrogate pair, which no encoding can send."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def encode_json(value: Any) -> bytes:
    """Encode a JSON body.

    Raises:
        InvalidArgumentError: it is no JSON. The cause is left out: it may hold the whole text, secrets included.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError("the body is no JSON: it holds half a surrogate pair, which is no text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the body is no JSON: {error}") from None
