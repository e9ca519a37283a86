"""Models and enums as field types of real pydantic models."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pydantic
import pytest

from comfycontrol_async import (
    FailureCause,
    ManagedRunner,
    Output,
    Page,
    Runner,
    RunnerStats,
    Template,
    TemplateSummary,
    User,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)
from comfycontrol_async._http._convert import structurer
from support import documented

MODELS: list[tuple[type[Any], Any]] = [
    (User, documented.USER),
    (Runner, documented.RUNNER),
    (ManagedRunner, documented.MANAGED_RUNNER),
    (RunnerStats, documented.STATS),
    (WorkflowSummary, documented.ACCEPTED),
    (Workflow, documented.WORKFLOW),
    (Template, documented.TEMPLATE),
    (TemplateSummary, documented.TEMPLATE),
    (Output, {"id": "1", "workflow_id": "2", "src": "https://a.test/1.png"}),
    (WorkflowUpdate, {"status": "failed", "cause": {"node_type": "KSampler"}}),
    (FailureCause, {"exception_type": "OOM"}),
]

every_model = pytest.mark.parametrize(
    ("cls", "value"), MODELS, ids=lambda it: it.__name__ if isinstance(it, type) else ""
)


@every_model
def test_mapping(cls: type[Any], value: Any) -> None:
    """A mapping with the API's names becomes the model that the client makes of it, fields that are unknown aside."""
    made = pydantic.TypeAdapter(cls).validate_python({**value, "new": 1})
    assert type(made) is cls
    assert made == structurer(cls)(value)


@every_model
def test_instance(cls: type[Any], value: Any) -> None:
    """An instance is taken as it is."""
    made = structurer(cls)(value)
    assert pydantic.TypeAdapter(cls).validate_python(made) is made


@every_model
def test_round_trip(cls: type[Any], value: Any) -> None:
    """What is dumped, as Python or as JSON, gives the same back."""
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(cls)
    made = adapter.validate_python(value)
    assert adapter.validate_python(adapter.dump_python(made)) == made
    assert adapter.validate_json(adapter.dump_json(made)) == made
    assert adapter.json_schema()["type"] == "object"
    assert adapter.json_schema(mode="serialization")["type"] == "object"


class Job(pydantic.BaseModel):
    """A model as a user writes it."""

    workflow: WorkflowSummary
    wanted: WorkflowStatus = WorkflowStatus.COMPLETED
    page: Page[User] | None = None


def test_as_fields() -> None:
    """They stand in a model of pydantic's as any other type, generic ones included."""
    page = {"items": [documented.USER], "total": 1, "number": 1, "per_page": 100}
    job = Job.model_validate({"workflow": documented.ACCEPTED, "wanted": "archived", "page": page})
    assert job.page is not None
    assert job.page.items == [structurer(User)(documented.USER)]
    assert type(job.wanted) is WorkflowStatus
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Job.model_json_schema()["properties"]["workflow"]["properties"]["status"]["type"] == "string"


def test_unknown_words() -> None:
    """A word that this version does not know is kept, as in the client."""
    job = Job.model_validate({"workflow": {**documented.ACCEPTED, "status": "archived"}})
    assert (job.workflow.status, job.workflow.status.known) == ("archived", False)
    assert isinstance(job.workflow.status, WorkflowStatus)
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert '"status":"archived"' in job.model_dump_json()


def test_nulls_and_times() -> None:
    """null for a list is an empty list, times are in UTC, and one of year 1 is none."""
    times = {"created_at": "2024-01-15T10:30:00", "updated_at": "2024-01-15T12:30:00+02:00"}
    read = pydantic.TypeAdapter(WorkflowSummary).validate_python(
        {**documented.ACCEPTED, **times, "tags": None, "started_at": "0001-01-01T00:00:00Z"}
    )
    assert (read.tags, read.started_at) == ([], None)
    assert read.created_at == read.updated_at == datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    assert read.created_at.tzinfo is UTC


@pytest.mark.parametrize("value", [{}, {"id": "1"}, 5, "text", None, [documented.ACCEPTED]], ids=repr)
def test_refused(value: Any) -> None:
    """What is no such object is pydantic's own error."""
    with pytest.raises(pydantic.ValidationError):
        Job.model_validate({"workflow": value})


def test_pydantic_is_never_imported() -> None:
    """The package does not import it."""
    code = "import sys, comfycontrol_async as c; c.ComfyControl, c.User, c.Page; assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
