"""Watcher: finds out how waiting workflows get on, for the fewest requests.

One event stream costs one request for four minutes and brings the outputs with its last event, so a workflow is
watched by stream while there is room for one, and by polling when there is not or when its stream fails. `invalid` is
final for us, although the stream does not end at it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._config import WatchPolicy
from comfycontrol_async.errors import ResponseFormatError, ServerError, TransportError
from comfycontrol_async.limits import Priority
from comfycontrol_async.models import FailureCause, Workflow, WorkflowUpdate
from comfycontrol_async.resources import WorkflowsResource

# Streams that end without a word are not reopened more often than this in a row; then the workflow is polled.
_MOST_EMPTY_STREAMS = 3
# Polls that fail in a row, each after all retries of its own, before the wait is given up.
_MOST_FAILED_POLLS = 5

_STREAM_FAULTS = (TransportError, ServerError, ResponseFormatError)


class Watcher:
    """Follows workflows for everybody of a client who waits."""

    def __init__(self, workflows: WorkflowsResource, policy: WatchPolicy, clock: Clock = SYSTEM_CLOCK) -> None:
        self._workflows = workflows
        self._policy = policy
        self._clock = clock
        self._streams = 0

    async def follow(self, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give the workflow's state now and then again, until it is final.

        Raises:
            NotFoundError: it does not exist (any more).
            TransportError, APIError, ResponseFormatError: asking failed for good.
        """
        streamed = 0
        while streamed < _MOST_EMPTY_STREAMS and self._streams < self._policy.max_streams:
            updates = 0
            async with aclosing(self._stream(id)) as stream:
                async for update in stream:
                    updates += 1
                    yield update
                    if update.status.terminal:
                        return
            streamed = 0 if updates else streamed + 1
            if not updates:
                await self._clock.sleep(self._policy.min_interval)
        async with aclosing(self._poll(id)) as polled:
            async for update in polled:
                yield update

    async def _stream(self, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
        """Give what one event stream brings; a broken stream just ends."""
        self._streams += 1
        try:
            async with aclosing(self._workflows.subscribe(id, priority=Priority.BULK)) as updates:
                async for update in updates:
                    yield update
        except _STREAM_FAULTS:
            return
        finally:
            self._streams -= 1

    async def _poll(self, id: str) -> AsyncGenerator[WorkflowUpdate, None]:
        interval, failed = self._policy.min_interval, 0
        while True:
            try:
                update = update_of(await self._workflows.get(id, priority=Priority.BULK))
                failed = 0
            except _STREAM_FAULTS:
                failed += 1
                if failed >= _MOST_FAILED_POLLS:
                    raise
            else:
                yield update
                if update.status.terminal:
                    return
            await self._clock.sleep(interval)
            interval = min(self._policy.max_interval, interval * 1.5)


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
