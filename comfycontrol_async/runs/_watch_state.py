"""What the watcher knows of a workflow, and how other answers are told in the words of the stream."""

import asyncio
from copy import copy
from datetime import datetime

import attrs

from comfycontrol_async.errors import ComfyControlError
from comfycontrol_async.models import FailureCause, Workflow, WorkflowSummary, WorkflowUpdate


@attrs.define(eq=False, kw_only=True)
class Watched:
    """A workflow that somebody waits for; `born` tells whether `created` is known, or only when it was joined."""

    id: str
    created: float
    seen: float
    born: bool
    ordinal: int | None
    outputs: bool
    created_at: datetime | None
    followers: set[asyncio.Event] = attrs.field(factory=set)
    update: WorkflowUpdate | None = None
    error: Exception | None = None
    stream: asyncio.Task[None] | None = None
    # How much further down the listing it was last seen than our own submissions since would have it.
    drift: int = 0
    misses: int = 0
    # Streams that ended early in a row, and since when looking for it fails.
    failed: int = 0
    failing_since: float | None = None

    def tell(self, update: WorkflowUpdate | None, error: Exception | None = None) -> None:
        """Pass news on to everybody who follows it; after a final status there is none."""
        if self.ended:
            return
        self.update, self.error = update or self.update, error
        for follower in self.followers:
            follower.set()

    def learn(self, ordinal: int | None, created_at: datetime | None, outputs: bool) -> None:
        """Add what somebody who joins knows and wants."""
        self.outputs = self.outputs or outputs
        self.created_at = self.created_at or created_at
        if self.ordinal is None:
            self.ordinal = ordinal

    def own_error(self) -> Exception:
        """Return the error for one of many to raise: each raise would add its traceback to a shared one."""
        assert self.error is not None  # asked for only when there is one
        if not isinstance(self.error, ComfyControlError):
            return self.error
        mine = copy(self.error)
        mine.__cause__ = self.error.__cause__
        return mine

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.error is not None or (self.update is not None and self.update.status.terminal)


def update_of_summary(summary: WorkflowSummary, last: WorkflowUpdate | None) -> WorkflowUpdate:
    """Say what a listed workflow says in the words of the stream, with what only others tell kept."""
    same = last is not None and last.status == summary.status
    return WorkflowUpdate(
        status=summary.status,
        queue_number=last.queue_number if last is not None and same else None,
        started_at=summary.started_at,
        completed_at=summary.completed_at,
    )


def update_of(workflow: Workflow) -> WorkflowUpdate:
    """Say what a fetched workflow says in the words of the stream."""
    cause = None
    if workflow.error_node or workflow.exception_type or workflow.exception_message:
        cause = FailureCause(
            node_type=workflow.error_node,
            exception_type=workflow.exception_type,
            exception_message=workflow.exception_message,
        )
    return WorkflowUpdate(
        status=workflow.status,
        queue_number=workflow.queue_number,
        cause=cause,
        started_at=workflow.started_at,
        completed_at=workflow.completed_at,
    )
