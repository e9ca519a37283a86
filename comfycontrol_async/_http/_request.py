"""Request and Response: what goes into the pipeline and what comes out of the transport, as plain values."""

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Generic, TypeVar

import attrs

from comfycontrol_async._http._multipart import Form
from comfycontrol_async.limits import Stage

T = TypeVar("T")


class Repeat(Enum):
    """What may be done when it is not known whether a request took effect."""

    SAFE = "safe"  # GET, PUT, cancel, interrupt: the same again gives the same
    NEVER = "never"  # create, rerun: again would make another one


class Answer(Enum):
    """What the body of a success holds."""

    JSON = "json"
    NOTHING = "nothing"  # whatever it is, it says nothing: interrupt, cancel
    MAYBE = "maybe"  # JSON, or nothing at all
    RAW = "raw"  # given as it came


@attrs.frozen(kw_only=True)
class Request(Generic[T]):
    """One call of the API: what to send, how it may be repeated, and how its JSON becomes a `T`."""

    method: str
    path: str
    structure: Callable[[Any], T]
    query: Mapping[str, str | int] | None = None
    # A JSON body, encoded; or a form, built again for every attempt.
    body: bytes | None = None
    form: Form | None = None
    repeat: Repeat = Repeat.SAFE
    answer: Answer = Answer.JSON
    # Whether the answer takes as long as it takes: an event stream.
    stream: bool = False
    # What it does to the work behind it: decides who goes first at the limiter.
    stage: Stage = Stage.OTHER


@attrs.frozen(kw_only=True)
class RawResponse:
    """An answer as it came, from `comfy.request(..., raw=True)`; names of headers match in any case.

    `request_id` is Cloudflare's ray id, to quote to support.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(repr=False)
    request_id: str | None
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Response:
    """An answer of the server, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray
