"""One state of a workflow, folded from summaries, full objects and events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from comfycontrol_async.models import FailureCause, Output, Workflow, WorkflowStatus, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.runs._state import State, merge, merge_event

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
GRAPH = {"2": {"class_type": "SaveImage"}, "5": {"class_type": "KSampler"}}


def at(seconds: float) -> datetime:
    """Return a time after the start."""
    return START + timedelta(seconds=seconds)


def summary(status: str = "running", updated: float = 0.0, **fields: Any) -> WorkflowSummary:
    """Make what a listing shows."""
    known: dict[str, Any] = {"id": "an id", "name": "w", "created_at": START, "updated_at": at(updated)}
    return WorkflowSummary(status=WorkflowStatus(status), **(known | fields))


def full(status: str = "running", updated: float = 0.0, **fields: Any) -> Workflow:
    """Make a full object."""
    return Workflow(**attrs.asdict(summary(status, updated), recurse=False) | fields)


def event(status: str = "running", **fields: Any) -> WorkflowUpdate:
    """Make an event of the stream."""
    return WorkflowUpdate(status=WorkflowStatus(status), **fields)


class TestStatus:
    """Which status counts."""

    @pytest.mark.parametrize("last", ["completed", "failed", "cancelled", "invalid"])
    @pytest.mark.parametrize("stale", [summary("running", 9.0), full("queued", 9.0), event("running")])
    def test_final(self, last: str, stale: Any) -> None:
        """A final status stays, whatever a slow copy shows after it."""
        state = merge(None, summary(last, 5.0))
        fold = merge_event if isinstance(stale, WorkflowUpdate) else merge
        assert fold(state, stale).status == last

    @pytest.mark.parametrize("make", [summary, full], ids=["summary", "full"])
    def test_older_page(self, make: Any) -> None:
        """A page that was written before what is known changes nothing; one of the same moment does."""
        state = merge(None, summary("running", 5.0))
        assert merge(state, make("queued", 4.0)).status == "running"
        assert merge(state, make("archived", 5.0)).status == "archived"
        assert merge(state, make("completed", 4.0)).status == "completed"

    def test_place_in_the_queue(self) -> None:
        """A listing does not tell it: it is kept as long as the status is the same."""
        state = merge_event(merge(None, summary("queued")), event("queued", queue_number=3))
        assert merge(state, summary("queued", 1.0)).workflow.queue_number == 3
        assert merge(state, summary("running", 1.0)).workflow.queue_number is None
        assert merge(state, full("queued", 1.0, queue_number=2)).workflow.queue_number == 2


class TestFields:
    """What one answer leaves out, another has told."""

    def test_full_object_lasts(self) -> None:
        """The fields that only a full object has survive what comes after it."""
        known = merge(None, full(workflow_json=GRAPH, user_runner_id="runner", prompt_id="p"))
        for state in (merge(known, summary("running", 2.0)), merge_event(known, event("running"))):
            assert (state.workflow.workflow_json, state.workflow.user_runner_id) == (GRAPH, "runner")

    def test_event_lasts(self) -> None:
        """Times, outputs and ComfyUI's words of an event survive a listing that does not know them."""
        output = Output(id="o", workflow_id="an id", src="https://storage.test/1.png?signature=x")
        told = event("completed", started_at=at(1), completed_at=at(9), outputs=[output], prompt={"prompt_id": "p"})
        state = merge(merge_event(merge(None, summary()), told), full("completed", 9.0))
        update = state.update(elapsed=9.0)
        assert (update.started_at, update.completed_at, update.elapsed) == (at(1), at(9), 9.0)
        assert (update.outputs, update.prompt, update.created_at) == ([output], {"prompt_id": "p"}, START)

    def test_no_outputs_told(self) -> None:
        """An event without outputs says nothing of them: they are asked for."""
        assert merge_event(merge(None, summary()), event("completed")).outputs is None

    def test_year_one(self) -> None:
        """A creation in the year 1 is the service's way to say that it does not know."""
        state = merge(None, summary(created_at=datetime.min.replace(tzinfo=UTC)))
        assert state.created_at is state.update().created_at is None


class TestCause:
    """The node that failed: its id and its type are two things."""

    @pytest.mark.parametrize(
        ("error_node", "node_type", "graph", "cause"),
        [
            pytest.param(None, "KSampler", {}, (None, "KSampler"), id="event"),
            pytest.param("5", None, {}, ("5", None), id="id-alone"),
            pytest.param("5", None, GRAPH, ("5", "KSampler"), id="id-in-the-graph"),
            pytest.param("5", "Other", GRAPH, ("5", "Other"), id="both"),
            pytest.param("KSampler", None, GRAPH, (None, "KSampler"), id="type-in-the-place-of-the-id"),
            pytest.param("7", None, GRAPH, ("7", None), id="id-of-no-node"),
            pytest.param("", "", GRAPH, (None, None), id="empty"),
            pytest.param("5", None, {"5": None}, ("5", None), id="odd-graph"),
        ],
    )
    def test_node(
        self, error_node: str | None, node_type: str | None, graph: Any, cause: tuple[str | None, ...]
    ) -> None:
        """Each is None when it is not known, and neither stands in the place of the other."""
        known = full("failed", error_node=error_node, exception_type="OOM", workflow_json=graph)
        state = State(workflow=known, node_type=node_type)
        found = state.cause
        assert found is not None
        assert (found.node_id, found.node_type, found.exception_type) == (*cause, "OOM")

    def test_from_both(self) -> None:
        """The stream tells the type, the full object the node: both are kept."""
        state = merge_event(merge(None, summary()), event("failed", cause=FailureCause(node_type="KSampler")))
        state = merge(state, full("failed", 1.0, error_node="5", exception_message="no memory"))
        assert state.cause == FailureCause(node_id="5", node_type="KSampler", exception_message="no memory")

    def test_unknown(self) -> None:
        """No word of it is no cause."""
        assert merge(None, summary("failed")).cause is None
        assert merge_event(merge(None, summary()), event("failed", cause=FailureCause())).cause is None
