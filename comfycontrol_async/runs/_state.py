"""State: all that is known of one workflow, folded from listed summaries, full objects and events of its stream."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs

from comfycontrol_async.models import (
    FailureCause,
    Output,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)

# A time of the year 1 is the service's way to say that there is none.
_NO_YEAR = 1


@attrs.frozen(kw_only=True)
class State:
    """What is known of a workflow.

    `workflow` holds the fields of the listing and, once a full object came, those too. `outputs` are None until an
    answer brought them. `node_type` comes with an event only, `workflow.error_node` with a full object only.
    """

    workflow: Workflow
    outputs: Sequence[Output] | None = None
    prompt: dict[str, Any] | None = None
    node_type: str | None = None

    @property
    def status(self) -> WorkflowStatus:
        """The last status."""
        return self.workflow.status

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.workflow.status.terminal

    @property
    def created_at(self) -> datetime | None:
        """When it was made, by the service's clock; None when the service does not know."""
        created_at = self.workflow.created_at
        return None if created_at.year == _NO_YEAR else created_at

    @property
    def cause(self) -> FailureCause | None:
        """Why it failed, None as long as no answer said anything of it."""
        workflow = self.workflow
        node_id, node_type = _failed_node(workflow, self.node_type)
        cause = FailureCause(
            node_id=node_id,
            node_type=node_type,
            exception_type=workflow.exception_type or None,
            exception_message=workflow.exception_message or None,
        )
        return None if cause == FailureCause() else cause

    def update(self, elapsed: float | None = None) -> WorkflowUpdate:
        """Return it in the words of the event stream."""
        workflow = self.workflow
        return WorkflowUpdate(
            status=workflow.status,
            queue_number=workflow.queue_number,
            prompt=self.prompt,
            outputs=list(self.outputs or ()),
            cause=self.cause,
            started_at=workflow.started_at,
            completed_at=workflow.completed_at,
            created_at=self.created_at,
            elapsed=elapsed,
        )


def merge(known: State | None, news: WorkflowSummary) -> State:
    """Fold a summary or a full object into what is known.

    A final status stays: a page that was read before it, or that comes from a slow copy, says nothing against it.
    """
    if known is None:
        return State(workflow=news if isinstance(news, Workflow) else Workflow(**_summary_fields(news)))
    old = known.workflow
    stale = not news.status.terminal and (known.ended or news.updated_at < old.updated_at)
    if isinstance(news, Workflow):
        workflow = attrs.evolve(news, status=old.status, queue_number=old.queue_number) if stale else news
    elif stale:
        return known
    else:
        queue_number = old.queue_number if news.status == old.status else None
        workflow = attrs.evolve(old, **_summary_fields(news), queue_number=queue_number)
    # What one answer left out, another has told.
    kept = {name: getattr(workflow, name) or getattr(old, name) for name in _LASTING}
    return attrs.evolve(known, workflow=attrs.evolve(workflow, **kept))


def merge_event(known: State, event: WorkflowUpdate) -> State:
    """Fold an event of the workflow's stream into what is known."""
    if known.ended and not event.status.terminal:
        return known
    old, cause = known.workflow, event.cause or FailureCause()
    workflow = attrs.evolve(
        old,
        status=event.status,
        queue_number=event.queue_number,
        started_at=event.started_at or old.started_at,
        completed_at=event.completed_at or old.completed_at,
        exception_type=cause.exception_type or old.exception_type,
        exception_message=cause.exception_message or old.exception_message,
    )
    return State(
        workflow=workflow,
        outputs=tuple(event.outputs) or known.outputs,
        prompt=event.prompt or known.prompt,
        node_type=cause.node_type or known.node_type,
    )


_LASTING = ("started_at", "completed_at", "error_node", "exception_type", "exception_message")
_SUMMARY = tuple(field.name for field in attrs.fields(WorkflowSummary))


def _summary_fields(summary: WorkflowSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in _SUMMARY}


def _failed_node(workflow: Workflow, node_type: str | None) -> tuple[str | None, str | None]:
    """Return the id and the type of the node that failed, each None when it is not known.

    The documentation does not say what `error_node` holds. Where the graph is known, it is looked up there: the id of a
    node gives its type too, and a text that is no id but a type of the graph is a type.
    """
    text = workflow.error_node or None
    types = {
        id: str(node.get("class_type", "")) for id, node in workflow.workflow_json.items() if isinstance(node, dict)
    }
    if text is None:
        return None, node_type or None
    if text in types or text not in types.values():
        return text, node_type or types.get(text) or None
    return None, node_type or text
