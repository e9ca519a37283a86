"""Workflows as the API shows them."""

from typing import Any

import attrs

from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._signing import UrlSigner
from comfycontrol_async.testing.server._workflows import WorkflowRecord


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
    place = _place(record, now)
    failure = _failure(record, now) or Failure()
    return {
        **summary(record, now),
        "user_id": user_id,
        "user_runner_id": record.runner_id,
        "managed_runner_id": record.managed_runner_id,
        "workflow_json": record.graph,
        "workflow_params": [list(pair) for pair in record.params],
        "prompt_id": None if place is None else record.prompt_id,
        "queue_number": place,
        "error_node": failure.node_id,
        "exception_type": failure.exception_type,
        "exception_message": failure.exception_message,
    }


def update(record: WorkflowRecord, now: float, signer: UrlSigner) -> dict[str, Any]:
    """Return one event of the stream."""
    life, text = record.life, record.time.text
    started, completed = life.started_at(now), life.completed_at(now)
    failure = _failure(record, now)
    return {
        "status": life.status(now),
        "prompt": None if started is None else {"prompt_id": record.prompt_id},
        "queue_number": None if completed is not None else _place(record, now),
        "outputs": outputs(record, signer) if life.status(now) == "completed" else [],
        "cause": failure and attrs.asdict(failure, filter=attrs.filters.exclude("node_id")),
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


def _place(record: WorkflowRecord, now: float) -> int | None:
    place = record.life.queue_number(now)
    return record.place if place is not None and record.place is not None else place


def _failure(record: WorkflowRecord, now: float) -> Failure | None:
    return record.failure if record.life.status(now) in ("failed", "invalid") else None
