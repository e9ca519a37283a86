"""Workflows as the API shows them."""

from typing import Any

from comfycontrol_async.testing.server._graph import output_nodes
from comfycontrol_async.testing.server._signing import UrlSigner
from comfycontrol_async.testing.server._workflows import WorkflowRecord

_EXCEPTION = ("RuntimeError", "the test server was told to let this workflow fail")


def summary(record: WorkflowRecord, now: float) -> dict[str, Any]:
    """Return the short form."""
    life, text = record.life, record.time.text
    return {
        "id": record.id,
        "name": record.name,
        "status": life.status(now),
        "tags": record.tags,
        "created_at": text(record.created),
        "updated_at": text(life.updated_at(now)),
        "started_at": text(life.started_at(now)),
        "completed_at": text(life.completed_at(now)),
    }


def full(record: WorkflowRecord, now: float, user_id: str) -> dict[str, Any]:
    """Return the long form."""
    place = record.life.queue_number(now)
    cause = _cause(record, now) or {}
    return {
        **summary(record, now),
        "user_id": user_id,
        "user_runner_id": record.runner_id,
        "managed_runner_id": record.managed_runner_id,
        "workflow_json": record.graph,
        "workflow_params": [list(pair) for pair in record.params],
        "prompt_id": None if place is None else record.prompt_id,
        "queue_number": place,
        "error_node": cause.get("node"),
        "exception_type": cause.get("exception_type"),
        "exception_message": cause.get("exception_message"),
    }


def update(record: WorkflowRecord, now: float, signer: UrlSigner) -> dict[str, Any]:
    """Return one event of the stream."""
    life, text = record.life, record.time.text
    started, completed = life.started_at(now), life.completed_at(now)
    cause = _cause(record, now)
    return {
        "status": life.status(now),
        "prompt": None if started is None else {"prompt_id": record.prompt_id},
        "queue_number": None if completed is not None else life.queue_number(now),
        "outputs": outputs(record, signer) if life.status(now) == "completed" else [],
        "cause": cause and {key: value for key, value in cause.items() if key != "node"},
        "started_at": text(started),
        "completed_at": text(completed),
    }


def outputs(record: WorkflowRecord, signer: UrlSigner) -> list[dict[str, Any]]:
    """Return the outputs with freshly signed URLs."""
    return [
        {
            "id": output.id,
            "workflow_id": record.id,
            "src": signer.sign(f"/outputs/{record.id}/{output.name}"),
        }
        for output in record.outputs
    ]


def _cause(record: WorkflowRecord, now: float) -> dict[str, str] | None:
    """Return what the failure of a workflow was, as the stream shows it, and the node."""
    if record.life.status(now) != "failed":
        return None
    nodes: list[tuple[str, Any]] = list(output_nodes(record.graph)) or list(record.graph.items()) or [("", {})]
    node_id, node = nodes[0]
    kind, message = ("ValueError", record.fault) if record.fault else _EXCEPTION
    node_type = node.get("class_type", "") if isinstance(node, dict) else ""
    return {"node": node_id, "node_type": node_type, "exception_type": kind, "exception_message": message}
