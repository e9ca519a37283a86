"""Endpoints of workflows."""

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from comfycontrol_async.testing.server._call import Call
from comfycontrol_async.testing.server._graph import bad_file_names, find_placeholders, graph_fault
from comfycontrol_async.testing.server._life import OUTCOMES, Failure, Life, plan_life, plan_waiting
from comfycontrol_async.testing.server._records import Answer, ApiError, CutError, Stream, json_answer
from comfycontrol_async.testing.server._serializers import full, outputs, summary, update
from comfycontrol_async.testing.server._state import State
from comfycontrol_async.testing.server._validation import (
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
    failure_of,
    make_id,
    pair_up,
    safe_name,
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
    return _start(call, name, tags, graph, _values(form), _store(call, form))


async def get_workflow(call: Call) -> Answer:
    """GET /v1/workflow/{id}."""
    return json_answer(full(call.state.workflow(call.id), call.now, call.state.user["id"]))


async def cancel_workflow(call: Call) -> Answer:
    """POST /v1/workflow/{id}/cancel: only what is queued or running."""
    record = call.state.workflow(call.id)
    now = call.now
    status = record.life.status(now)
    if status not in ("queued", "running"):
        raise ApiError(400, f"workflow cannot be cancelled while it is {status}")
    record.life = record.life.end(now + call.state.options.cancel_delay, "cancelled")
    return Answer(200)


async def rerun_workflow(call: Call) -> Answer:
    """POST /v1/workflow/{id}/rerun: what is given replaces the stored values."""
    old = call.state.workflow(call.id)
    form = await call.form()
    values = {**old.values, **_values(form)}
    return _start(call, old.name, old.tags, old.graph, values, {**old.files, **_store(call, form)})


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
    """Yield an update at once and then at every tick, until the end or the last update allowed."""
    began = state.time.now()
    for tick in range(1, state.options.sse_updates + 1):
        event = update(record, state.time.now(), state.signer)
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
        if event["status"] in _ENDS or tick == state.options.sse_updates:
            return
        wait = began + tick * state.options.sse_interval - state.time.now()
        if not await state.time.sleep(max(0.0, wait)):
            raise CutError


def _values(form: Form) -> dict[str, str]:
    return {name: value for name, value in form.fields.items() if name.startswith(("$", "#"))}


def _store(call: Call, form: Form) -> dict[str, StoredFile]:
    return {
        name[1:]: _stored(name[1:], upload, make_id(call.state.rng)[:8])
        for name, upload in form.files.items()
        if name.startswith("$")
    }


def _stored(name: str, upload: Upload, mark: str) -> StoredFile:
    stored_as = f"{safe_name(name)}_{mark}_{safe_name(upload.filename)}"
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
    index = state.workflows.next_index()
    runner_id, managed_runner_id = state.choose_runner(tags)
    ending = _ending(state.outcome(index), graph)
    failure = ending if isinstance(ending, Failure) else None
    record = WorkflowRecord(
        id=make_id(state.rng),
        index=index,
        name=name,
        tags=tags,
        graph=graph,
        values=values,
        files=files,
        params=pair_up(graph, values, files),
        created=now,
        runner_id=runner_id,
        managed_runner_id=managed_runner_id,
        prompt_id=make_id(state.rng),
        life=_plan(call, index, ending, now, has_runner=bool(runner_id or managed_runner_id)),
        time=state.time,
        seed=state.rng.getrandbits(64),
        failure=failure,
    )
    state.workflows.add(record)
    return json_answer(summary(record, now), 201)


def _ending(outcome: str | Failure, graph: dict[str, Any]) -> str | Failure:
    """Return how a workflow ends: as it was asked for, unless its graph cannot run."""
    if not isinstance(outcome, Failure) and outcome not in OUTCOMES:
        raise ValueError(f"outcome must return a Failure or one of {', '.join(OUTCOMES)}, not {outcome!r}")
    if graph_fault(graph) is not None:
        return "invalid"
    bad_names = bad_file_names(graph)
    if not bad_names and outcome != "failed":
        return outcome
    if bad_names:
        return failure_of(graph, "ValueError", f"file name {bad_names[0]!r} is not allowed")
    return failure_of(graph)


def _plan(call: Call, index: int, ending: str | Failure, now: float, *, has_runner: bool) -> Life:
    outcome = "failed" if isinstance(ending, Failure) else ending
    if not has_runner and outcome != "invalid":
        return plan_waiting(now)
    return plan_life(now, call.state.options.delays, call.state.options.run_time(index), outcome)
