"""A workflow's event stream: opened once, checked, and read as updates."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from comfycontrol_async._http._convert import structurer
from comfycontrol_async._http._decode import parse_json
from comfycontrol_async._http._request import Request
from comfycontrol_async._http._sse import EventParser
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import ResponseFormatError
from comfycontrol_async.limits import Stage
from comfycontrol_async.models import WorkflowStatus, WorkflowUpdate
from comfycontrol_async.resources._calls import Open
from comfycontrol_async.resources._checks import check_id

log = logging.getLogger("comfycontrol_async")

_MEDIA_TYPE = "text/event-stream"
# What an event has besides its status (API documentation: endpoints/workflows/subscribe).
_FIELDS = frozenset({"prompt", "queue_number", "outputs", "cause", "started_at", "completed_at"})

_update = structurer(WorkflowUpdate)


async def open_events(open: Open, id: str) -> Stream:
    """Open the event stream of a workflow; the caller closes it.

    Raises:
        ResponseFormatError: the answer is no event stream, such as the page of a proxy.
    """
    path = f"/v1/workflow/{check_id(id)}/subscribe"
    stream = await open(Request(method="GET", path=path, structure=_update, stream=True, stage=Stage.FINISH))
    media_type = stream.headers.get("Content-Type", _MEDIA_TYPE)
    if media_type.partition(";")[0].strip().lower() != _MEDIA_TYPE:
        stream.close()
        raise ResponseFormatError(f"{media_type[:60]} where {_MEDIA_TYPE} is due", method="GET", path=path)
    return stream


async def read_events(stream: Stream, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
    """Give the updates of an open stream; keep-alives and events of another kind are passed over.

    Raises:
        ResponseLostError, RequestTimeoutError: the connection broke.
        ResponseFormatError: the bytes are no event stream, or an update is not what the API documents.
    """
    parser = EventParser()
    async with aclosing(stream.chunks()) as chunks:
        async for chunk in chunks:
            for data in _feed(parser, chunk):
                event = _event(data)
                if event is None:
                    log.debug("passed over in the stream of %s: %.60r", id, data)
                    continue
                yield _update(_about(event, id))


def _feed(parser: EventParser, chunk: bytes) -> list[str]:
    try:
        return parser.feed(chunk)
    except ValueError as error:
        raise ResponseFormatError(str(error)) from error


def _event(data: str) -> dict[str, Any] | None:
    """Return the JSON of an update, None for what is none: a ping, an end mark, words of a proxy."""
    if not data.lstrip().startswith("{"):
        return None
    try:
        value = parse_json(data.encode())
    except ResponseFormatError:
        return None
    if not isinstance(value, dict) or "status" not in value:
        return None
    status = value["status"]
    known = isinstance(status, str) and WorkflowStatus(status).known
    return value if known or _FIELDS & value.keys() else None


def _about(event: dict[str, Any], id: str) -> dict[str, Any]:
    """Return the event if it is about this workflow, as far as it says which one it is about."""
    outputs = event.get("outputs")
    items = outputs if isinstance(outputs, list) else []
    named = [
        event.get("workflow_id"),
        event.get("id"),
        *(item.get("workflow_id") for item in items if type(item) is dict),
    ]
    if any(isinstance(other, str) and other != id for other in named):
        raise ResponseFormatError("the event is about another workflow")
    return event
