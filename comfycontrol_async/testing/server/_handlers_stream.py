"""The stream of updates of one workflow, as server-sent events."""

import json
from collections.abc import AsyncGenerator

from comfycontrol_async.testing.server._call import Call
from comfycontrol_async.testing.server._records import CutError, Stream
from comfycontrol_async.testing.server._serializers import update
from comfycontrol_async.testing.server._state import State
from comfycontrol_async.testing.server._workflows import WorkflowRecord

_ENDS = ("completed", "failed", "cancelled")  # `invalid` is not in the documentation's list of what ends a stream


async def subscribe_workflow(call: Call) -> Stream:
    """GET /v1/workflow/{id}/subscribe."""
    return Stream(_events(call.state, call.state.workflow(call.id)), "text/event-stream")


async def _events(state: State, record: WorkflowRecord) -> AsyncGenerator[bytes, None]:
    """Yield an update at once and then at every tick, until the end or the last update allowed."""
    began = state.time.now()
    for tick in range(1, state.options.sse_updates + 1):
        event = update(record, state.time.now(), state.signer)
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
        if event["status"] in _ENDS or tick == state.options.sse_updates:
            return
        wait = began + tick * state.options.sse_interval - state.time.now()
        if not await state.time.nap(max(0.0, wait)):
            raise CutError
