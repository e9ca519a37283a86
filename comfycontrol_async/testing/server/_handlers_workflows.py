"""Endpoints of workflows."""

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from comfycontrol_async.testing.server._graph import find_placeholders
from comfycontrol_async.testing.server._life import plan_waiting
from comfycontrol_async.testing.server._outputs import safe_name
from comfycontrol_async.testing.server._records import Answer, ApiError, CutError, Stream, json_answer
from comfycontrol_async.testing.server._serializers import full, outputs, summary, update
from comfycontrol_async.testing.server._state import State
from comfycontrol_async.testing.server._validation import (
    Call,
    Form,
    Upload,
    check_choice,
    check_page,
    check_text,
    parse_object,
)
from comfycontrol_async.testing.server._workflows import (
    StoredFile,
    WorkflowRecord,
    make_id,
    pair_up,
)

_LISTED = ("completed", "running", "queued", "failed", "cancelled")
_ENDS = ("completed", "failed", "cancelled")  # `invalid` is not in the documentation's list of what ends a stream


async def list_workflows(call: Call) -> Answer:
    """GET /v1/workflow."""
    query = call.record.query
    status = check_choice(query["status"], "status", _LISTED) if "status" in query else None
    records, total = call.state.workflows.page(status, *check_page(query))
    now = call.now
    return json_answer({"workflows": [summary(record, now) for record in records], "total": total})


async def create_workflow(call: Call) -> Answer:
    """POST /v1/workflow."""
    form = await call.form()
    name = check_text(form.fields.get("name"), "name", 200)
    if "workflow_json" not in form.files:
        raise ApiError(400, "workflow_json must be a file")
    graph = parse_object(form.files["workflow_json"].data, "workflow_json")
    tags = [tag for tag in (part.strip() for part in form.fields.get("tags", "").split(",")) if tag]
    return _start(call, name, tags, graph, _values(form), _store(form))


async def get_workflow(call: Call) -> Answer:
    """GET /v1/workflow/{id}."""
    return json_answer(full(call.state.workflow(call.id), call.now, call.state.user["id"]))


async def cancel_workflow(call: Call) -> Answer:
    """POST /v1/workflow/{id}/cancel: only what is queued or running."""
    record = call.state.workflow(call.id)
    status = record.life.status(call.now)
    if status not in ("queued", "running"):
        raise ApiError(400, f"workflow cannot be cancelled while it is {status}")
    await call.executor.cancel(record)
    return Answer(200)


async def rerun_workflow(call: Call) -> Answer:
    """POST /v1/workflow/{id}/rerun: what is given replaces the stored values."""
    old = call.state.workflow(call.id)
    form = await call.form()
    values = {**old.values, **_values(form)}
    return _start(call, old.name, old.tags, old.graph, values, {**old.files, **_store(form)})


async def workflow_outputs(call: Call) -> Answer:
    """GET /v1/workflow/{id}/outputs: only of what completed."""
    record = call.state.workflow(call.id)
    if record.life.status(call.now) != "completed":
        raise ApiError(404, "requested entity not found")
    return json_answer(outputs(record, call.state.signer))


async def subscribe_workflow(call: Call) -> Stream:
    """GET /v1/workflow/{id}/subscribe."""
    return Stream(_events(call.state, call.state.workflow(call.id)), "text/event-stream")


async def _events(state: State, record: WorkflowRecord) -> AsyncGenerator[bytes, None]:
    """Yield an update at once, then at every tick and change, until the end or the last update allowed."""
    tick = state.time.now()
    for left in reversed(range(state.options.sse_updates)):
        now = state.time.now()
        event = update(record, now, state.signer)
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
        if event["status"] in _ENDS or not left:
            return
        tick += state.options.sse_interval if now >= tick else 0.0
        if not await state.time.sleep(max(0.0, tick - state.time.now()), record.sleeping):
            raise CutError


def _values(form: Form) -> dict[str, str]:
    return {name: value for name, value in form.fields.items() if name.startswith(("$", "#"))}


def _store(form: Form) -> dict[str, StoredFile]:
    return {name[1:]: _stored(upload) for name, upload in form.files.items() if name.startswith("$")}


def _stored(upload: Upload) -> StoredFile:
    # On a real ComfyUI it stays in the input folder: so its name is recognisable, and the same file has the same.
    stored_as = f"comfycontrol_{hashlib.sha256(upload.data).hexdigest()[:12]}_{safe_name(upload.filename)}"
    return StoredFile(upload.filename, stored_as, upload.content_type, upload.data)


def _check_values(graph: Any, values: Mapping[str, str], files: Mapping[str, StoredFile]) -> None:
    for item in find_placeholders(graph):
        given = item.name in files if item.kind == "file" else item.field in values
        if not given:
            raise ApiError(400, f"missing value for {item.token}")
        if item.kind == "choice" and values[item.field] not in item.choices:
            raise ApiError(400, f"{values[item.field]!r} is not an option of {item.token}")


def _start(
    call: Call,
    name: str,
    tags: list[str],
    graph: dict[str, Any],
    values: Mapping[str, str],
    files: Mapping[str, StoredFile],
) -> Answer:
    _check_values(graph, values, files)
    state, now = call.state, call.now
    record = WorkflowRecord(
        id=make_id(state.rng),
        index=state.workflows.next_index(),
        name=name,
        tags=tags,
        graph=graph,
        values=values,
        files=files,
        params=pair_up(graph, values, files),
        created=now,
        prompt_id=make_id(state.rng),
        life=plan_waiting(now),
        time=state.time,
        seed=state.rng.getrandbits(64),
    )
    call.executor.submit(record)
    state.workflows.add(record)
    return json_answer(summary(record, now), 201)
