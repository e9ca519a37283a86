"""The schedule of one workflow."""

import attrs
import pytest

from comfycontrol_async.testing.server._life import plan_life, plan_waiting

LIFE = plan_life(10.0, (1.0, 2.0, 3.0), 4.0, "completed")


@pytest.mark.parametrize(
    ("now", "status", "updated", "started", "completed", "place"),
    [
        (10.0, "accepted", 10.0, None, None, None),
        (11.0, "uploaded", 11.0, None, None, None),
        (13.0, "queued", 13.0, None, None, 3),
        (14.5, "queued", 13.0, None, None, 2),
        (15.9, "queued", 13.0, None, None, 1),
        (16.0, "running", 16.0, 16.0, None, 1),
        (19.9, "running", 16.0, 16.0, None, 1),
        (20.0, "completed", 20.0, 16.0, 20.0, 1),
    ],
)
def test_schedule(
    now: float, status: str, updated: float, started: float | None, completed: float | None, place: int | None
) -> None:
    """A workflow moves through its states at the planned moments, counting down in the queue."""
    assert LIFE.status(now) == status
    assert LIFE.updated_at(now) == updated
    assert LIFE.started_at(now) == started
    assert LIFE.completed_at(now) == completed
    assert LIFE.queue_number(now) == place


def test_invalid_ends_before_the_upload() -> None:
    """An invalid workflow never reaches a runner and has no completion time."""
    life = plan_life(0.0, (1.0, 1.0, 1.0), 1.0, "invalid")
    assert [life.status(now) for now in (0.5, 1.0, 99.0)] == ["accepted", "invalid", "invalid"]
    assert life.completed_at(99.0) is None
    assert life.queue_number(99.0) is None


def test_ending_early() -> None:
    """An early end counts from its moment; an end after the natural one changes nothing."""
    assert LIFE.end(14.0, "cancelled").status(14.0) == "cancelled"
    assert LIFE.end(14.0, "cancelled").started_at(15.0) is None
    assert LIFE.end(12.0, "failed").started_at(15.0) == 12.0
    assert LIFE.end(12.0, "failed").queue_number(15.0) is None
    assert LIFE.end(20.0, "cancelled") is LIFE


def test_waiting_forever() -> None:
    """Without a runner a workflow stays accepted until it is ended."""
    life = plan_waiting(5.0)
    assert life.status(1e9) == "accepted"
    assert life.updated_at(1e9) == 5.0
    assert life.queue_number(1e9) is None
    assert life.end(7.0, "completed").started_at(8.0) == 7.0


def test_states_of_no_length() -> None:
    """Delays of nothing skip the states."""
    life = plan_life(0.0, (0.0, 0.0, 0.0), 1.0, "failed")
    assert life.status(0.0) == "running"
    assert life.queue_number(0.0) == 1
    assert attrs.evolve(life, ended=0.0).status(0.0) == "failed"
