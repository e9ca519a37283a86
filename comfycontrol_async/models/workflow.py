"""Workflows: executions of a graph, what they report, and what they made."""

from datetime import datetime
from typing import Any

import attrs

from comfycontrol_async.models._enums import WorkflowStatus
from comfycontrol_async.models._pydantic import PydanticModel


@attrs.frozen(kw_only=True)
class WorkflowSummary(PydanticModel):
    """A workflow as listings and creating calls give it (API documentation: endpoints/workflows/list)."""

    id: str
    name: str
    status: WorkflowStatus
    tags: list[str] = attrs.field(factory=list)
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None


@attrs.frozen(kw_only=True)
class Workflow(WorkflowSummary):
    """A workflow in full (API documentation: endpoints/workflows/get).

    `workflow_params` are the pairs the service stored, such as `["$text(prompt)", "a cat"]`; what stands there for a
    file is not documented. `queue_number` and `prompt_id` are None before queueing; the last three fields are filled
    only when it failed.
    """

    user_id: str | None = None
    user_runner_id: str | None = None
    managed_runner_id: str | None = None
    workflow_json: dict[str, Any] = attrs.field(factory=dict, repr=False)
    workflow_params: list[list[Any]] = attrs.field(factory=list)
    prompt_id: str | None = None
    queue_number: int | None = None
    error_node: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None


@attrs.frozen(kw_only=True)
class Output(PydanticModel):
    """A file that a workflow made.

    `src` is a signed URL on the storage host that works for about five minutes for anyone who has it, so it is not
    shown in `repr`.
    """

    id: str
    workflow_id: str
    src: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class FailureCause(PydanticModel):
    """Why a workflow failed.

    The event stream tells the type of the node, the full object which node it was; each is None when it is not known.
    """

    node_id: str | None = None
    node_type: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None


@attrs.frozen(kw_only=True)
class WorkflowUpdate(PydanticModel):
    """One event of a workflow's stream (API documentation: endpoints/workflows/subscribe).

    `outputs` are filled when it completed, `cause` when it failed; `prompt` is ComfyUI's own and varies. The stream
    does not tell `created_at` and `elapsed`, the seconds from its creation to this update or to its end: a
    `WorkflowRun` fills them in.
    """

    status: WorkflowStatus
    queue_number: int | None = None
    prompt: dict[str, Any] | None = None
    outputs: list[Output] = attrs.field(factory=list)
    cause: FailureCause | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    created_at: datetime | None = None
    # No part of what makes one update differ from another: it always does.
    elapsed: float | None = attrs.field(default=None, eq=False)

    @property
    def queued_for(self) -> float | None:
        """Seconds from its creation until it began to run; None before, or when the service did not say."""
        if self.created_at is None or self.started_at is None:
            return None
        return (self.started_at - self.created_at).total_seconds()
