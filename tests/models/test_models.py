"""Models and open enums: frozen facts, tolerant words, no secrets."""

import copy
import logging
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from comfycontrol_async import Graph, models
from comfycontrol_async._http._convert import page_structurer, structurer
from comfycontrol_async.models import (
    InvalidItem,
    OpenEnum,
    Output,
    Page,
    Runner,
    RunnerStatus,
    RunnerType,
    Template,
    UserProvider,
    UserTier,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
SECRET = "hunter2-hunter2"
ENUMS: list[type[OpenEnum]] = [WorkflowStatus, RunnerStatus, RunnerType, UserTier, UserProvider]
MODELS = [value for value in vars(models).values() if isinstance(value, type) and attrs.has(value)]


def runner(**changes: Any) -> Runner:
    """Make a runner with a secret in its headers."""
    facts: dict[str, Any] = {
        "id": "a",
        "name": "n",
        "status": RunnerStatus.ACTIVE,
        "endpoint": "https://comfy.example.com",
        "user_id": "u",
        "headers": {"Authorization": f"Bearer {SECRET}"},
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Runner(**facts | changes)


# Open enums


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
class TestOpenEnum:
    """What holds for every open enum."""

    def test_known_values_are_members(self, enum: type[OpenEnum]) -> None:
        """A documented word gives the one member there is, which is its text."""
        for member in enum:
            assert enum(member.value) is member
            assert member.known
            assert member == member.value == str(member) == f"{member}"
            assert hash(member) == hash(member.value)

    def test_unknown_value_keeps_its_text(self, enum: type[OpenEnum]) -> None:
        """A word that is new to us is a value of its own, equal to its text and to itself made again."""
        value = enum("archived")
        assert isinstance(value, enum)
        assert value == "archived" == str(value) == f"{value}" == value.value == value.name
        assert value == enum("archived")
        assert value not in list(enum)
        assert hash(value) == hash("archived") == hash(enum("archived"))
        table: dict[str, int] = {value: 1}
        assert table["archived"] == 1
        assert not value.known
        assert "archived" in repr(value)
        assert "archived" not in enum.__members__

    @pytest.mark.parametrize("text", ["archived", "ACTIVE", "", "two words", "ünï"], ids=repr)
    def test_unknown_value_survives(self, enum: type[OpenEnum], text: str) -> None:
        """Copies and pickles of an unknown value are equal to it and of its class."""
        value = enum(text)
        for twin in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
            assert twin == value
            assert type(twin) is enum
            assert twin.value == text

    @pytest.mark.parametrize("value", [None, 5, 1.5, b"active", ["active"]], ids=repr)
    def test_other_types_are_refused(self, enum: type[OpenEnum], value: Any) -> None:
        """Only text can be a value."""
        with pytest.raises(ValueError, match="is not a valid"):
            enum(value)


def test_statuses_are_the_documented_ones() -> None:
    """The words are those of the API documentation."""
    assert [str(status) for status in WorkflowStatus] == [
        "accepted",
        "uploaded",
        "queued",
        "running",
        "completed",
        "failed",
        "cancelled",
        "invalid",
    ]
    assert {*map(str, RunnerStatus)} == {"active", "disabled"}
    assert {*map(str, RunnerType)} == {"plus", "pro"}
    assert {*map(str, UserTier)} == {"free", "pro", "plus", "enterprise"}
    assert {*map(str, UserProvider)} == {"github", "google"}


@pytest.mark.parametrize(
    ("status", "terminal"),
    [
        ("accepted", False),
        ("uploaded", False),
        ("queued", False),
        ("running", False),
        ("completed", True),
        ("failed", True),
        ("cancelled", True),
        ("invalid", True),
        ("archived", False),
        ("Completed", False),
    ],
)
def test_terminal(status: str, terminal: bool) -> None:
    """The four endings are final, and an unknown status is not: it may change."""
    assert WorkflowStatus(status).terminal is terminal


def test_enums_of_one_text_are_equal() -> None:
    """They compare by value, also with each other's texts."""
    known: str = WorkflowStatus.COMPLETED
    tier: str = UserTier.PRO
    assert WorkflowStatus("archived") != WorkflowStatus("deleted")
    assert known != "Completed"
    assert tier == RunnerType.PRO


def test_unknown_value_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """An unknown word is told once per class, however often it comes."""
    read = structurer(WorkflowSummary)
    text = "hibernating-at-noon"
    facts = {"id": "a", "name": "n", "status": text, "created_at": NOW.isoformat(), "updated_at": NOW.isoformat()}
    with caplog.at_level(logging.WARNING, logger="comfycontrol_async"):
        assert [read(facts).status for _ in range(3)] == [text] * 3
    assert [record.getMessage() for record in caplog.records] == [
        f"the service knows a WorkflowStatus that this version does not: '{text}'"
    ]


# Models


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_shape(model: Any) -> None:
    """Every model is frozen, slotted and keyword-only."""
    assert model.__setattr__ is not object.__setattr__
    assert "__dict__" not in dir(model)
    assert all(field.kw_only for field in attrs.fields(model))


def test_frozen() -> None:
    """A model cannot be changed, only evolved."""
    before = runner()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        before.name = "other"  # type: ignore[misc]
    after = attrs.evolve(before, name="other")
    assert (before.name, after.name) == ("n", "other")
    assert after == runner(name="other") != before


def test_survives() -> None:
    """Models survive copy and pickle, unknown words included."""
    before = runner(status=RunnerStatus("resting"))
    for twin in (copy.copy(before), copy.deepcopy(before), pickle.loads(pickle.dumps(before))):
        assert twin == before


def test_lists_are_not_shared() -> None:
    """A default list belongs to one model."""
    facts: dict[str, Any] = {"id": "a", "name": "n", "status": WorkflowStatus.QUEUED}
    first, second = (WorkflowSummary(**facts, created_at=NOW, updated_at=NOW) for _ in range(2))
    first.tags.append("x")
    assert second.tags == []


@pytest.mark.parametrize(
    ("created", "started", "seconds"),
    [
        pytest.param(NOW, NOW + timedelta(seconds=12.5), 12.5, id="known"),
        pytest.param(NOW, None, None, id="not-begun"),
        pytest.param(None, NOW, None, id="not-given"),
        pytest.param(NOW, NOW, 0.0, id="at-once"),
    ],
)
def test_queued_for(created: datetime | None, started: datetime | None, seconds: float | None) -> None:
    """How long it was queued is known when both ends are."""
    update = WorkflowUpdate(status=WorkflowStatus.RUNNING, created_at=created, started_at=started)
    assert update.queued_for == seconds


def test_elapsed_makes_no_difference() -> None:
    """An update that only time tells from the one before it is the same."""
    first, second = (WorkflowUpdate(status=WorkflowStatus.RUNNING, elapsed=elapsed) for elapsed in (1.0, 2.0))
    assert first == second
    assert first != WorkflowUpdate(status=WorkflowStatus.QUEUED, elapsed=1.0)


def test_template_graph() -> None:
    """A template's body is a graph, ready for a submit."""
    body = {"9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "$text(prefix)"}}}
    template = Template(id="t", user_id="u", name="n", description="d", body=body, created_at=NOW, updated_at=NOW)
    assert template.graph == Graph(body)
    assert [parameter.name for parameter in template.graph.parameters] == ["prefix"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(runner(), id="runner-headers"),
        pytest.param([runner()], id="in-a-list"),
        pytest.param(Page(items=[runner()], total=1, number=1, per_page=10), id="in-a-page"),
        pytest.param(Output(id="o", workflow_id="w", src=f"https://s.test/a.png?signature={SECRET}"), id="signed-url"),
        pytest.param(InvalidItem(index=0, message="bad", raw={"headers": {"k": SECRET}}), id="invalid-item"),
        pytest.param(
            structurer(Workflow)(
                {
                    "id": "a",
                    "name": "n",
                    "status": "queued",
                    "created_at": NOW.isoformat(),
                    "updated_at": NOW.isoformat(),
                    "workflow_json": {"1": {"class_type": "Http", "inputs": {"token": SECRET}}},
                }
            ),
            id="graph",
        ),
        pytest.param(
            page_structurer(Runner, "runners", 1, 10)(
                {"runners": [{"id": "a", "headers": {"Authorization": SECRET}}], "total": 1}
            ),
            id="page-with-a-faulty-runner",
        ),
    ],
)
def test_no_secret_is_shown(value: object) -> None:
    """Neither `repr` nor `str` shows a header's value, a signature, a graph or the raw JSON of a faulty item."""
    assert SECRET not in repr(value) + str(value)
