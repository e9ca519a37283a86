"""The converter: what the API documents becomes models, and what it does not is a fault with its place."""

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from comfycontrol_async._http._convert import page_structurer, structurer
from comfycontrol_async.errors import ResponseFormatError
from comfycontrol_async.models import (
    DeviceStats,
    FailureCause,
    InvalidItem,
    ManagedRunner,
    Output,
    Page,
    Runner,
    RunnerStats,
    RunnerStatus,
    RunnerType,
    SystemStats,
    Template,
    TemplateSummary,
    User,
    UserProvider,
    UserTier,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)
from support import documented as docs

SECRET = "hunter2-hunter2"


def at(text: str) -> datetime:
    """Read a moment on the day of the documentation's examples."""
    return datetime.fromisoformat(f"2024-01-15T{text}+00:00")


# The documentation's own examples


def test_runner() -> None:
    """A runner's fields are all there, its headers too."""
    assert structurer(Runner)(docs.RUNNER) == Runner(
        id=docs.RUNNER_ID,
        user_id=docs.USER_ID,
        name="Production GPU Runner",
        status=RunnerStatus.ACTIVE,
        endpoint="https://my-comfy.example.com",
        tags=["production", "gpu-a100"],
        headers={"Authorization": "Bearer secret_token"},
        created_at=at("10:30:00"),
        updated_at=at("10:30:00"),
    )


def test_managed_runner() -> None:
    """A managed runner tells its tier, and hides its address."""
    assert structurer(ManagedRunner)(docs.MANAGED_RUNNER) == ManagedRunner(
        id=docs.WORKFLOW_ID,
        name="Managed Pro Runner 1",
        status=RunnerStatus.ACTIVE,
        runner_type=RunnerType.PRO,
        tags=["managed", "gpu-a100", "high-performance"],
        created_at=datetime(2024, 1, 10, 8, tzinfo=UTC),
        updated_at=at("10:30:00"),
    )


def test_stats() -> None:
    """Sizes are whole numbers of bytes, however large."""
    assert structurer(RunnerStats)(docs.STATS) == RunnerStats(
        system=SystemStats(
            os="posix",
            ram_free=239_499_096_064,
            ram_total=253_344_550_912,
            comfyui_version="0.3.77",
            python_version="3.12.12 (main, Oct 15 2025, 09:00:00)",
        ),
        devices=[DeviceStats(name="cuda:0", type="cuda", vram_total=85_899_345_920, vram_free=84_000_000_000)],
        dev_mode=False,
        extensions=["ComfyUI-Manager"],
    )


def test_stats_without_what_is_optional() -> None:
    """A machine that says little of itself is no fault."""
    read = structurer(RunnerStats)
    assert read({"system": {}, "devices": [{}], "dev_mode": True, "extensions": []}) == RunnerStats(
        system=SystemStats(), devices=[DeviceStats()], dev_mode=True
    )
    assert read({"system": {"os": None, "ram_free": None}}) == RunnerStats(system=SystemStats())


def test_history() -> None:
    """A bare array becomes a list of summaries, in its order."""
    completed, failed, running = structurer(list[WorkflowSummary])(docs.HISTORY)
    assert completed == WorkflowSummary(
        id=docs.WORKFLOW_ID,
        name="Text to Image Generation",
        status=WorkflowStatus.COMPLETED,
        tags=["text2img", "production"],
        created_at=at("14:30:00"),
        updated_at=at("14:32:15"),
        started_at=at("14:30:05"),
        completed_at=at("14:32:15"),
    )
    assert (failed.status, failed.completed_at) == (WorkflowStatus.FAILED, at("13:16:30"))
    assert (running.status, running.completed_at) == (WorkflowStatus.RUNNING, None)


def test_workflow() -> None:
    """A full workflow is a summary with more; its graph and pairs are as the service stored them."""
    workflow = structurer(Workflow)(docs.WORKFLOW)
    assert isinstance(workflow, WorkflowSummary)
    assert workflow == Workflow(
        id=docs.WORKFLOW_ID,
        name="Text to Image Generation",
        status=WorkflowStatus.COMPLETED,
        tags=["production", "text2img"],
        created_at=at("14:30:00"),
        updated_at=at("14:32:15"),
        started_at=at("14:30:05"),
        completed_at=at("14:32:15"),
        user_id=docs.USER_ID,
        user_runner_id=docs.RUNNER_ID,
        managed_runner_id=None,
        workflow_json={"nodes": [], "links": [], "config": {}},
        workflow_params=[
            ["$text(prompt)", "A beautiful sunset over mountains"],
            ["#choice(sampler)", "euler_ancestral"],
        ],
        prompt_id="8f3a9c2b-1234-5678-9abc-def012345678",
        queue_number=1,
    )


@pytest.mark.parametrize("value", [None, 20, True, {"name": "input.png"}], ids=repr)
def test_stored_parameters_of_any_kind(value: object) -> None:
    """What is stored for a file is not documented, so that no value of a pair loses the workflow."""
    stored = structurer(Workflow)({**docs.WORKFLOW, "workflow_params": [["$file(image)", value]]})
    assert stored.workflow_params == [["$file(image)", value]]


def test_outputs() -> None:
    """Outputs keep their signed URLs to the letter."""
    assert structurer(list[Output])(docs.OUTPUTS) == [
        Output(id=output["id"], workflow_id=docs.WORKFLOW_ID, src=output["src"]) for output in docs.OUTPUTS
    ]


def test_updates() -> None:
    """The stream's three documented events are read whole."""
    queued, running, completed = map(structurer(WorkflowUpdate), docs.UPDATES)
    assert queued == WorkflowUpdate(status=WorkflowStatus.QUEUED, queue_number=3)
    assert running.prompt == {"prompt_id": "abc123"}
    assert running.started_at == at("14:30:05")
    assert completed.outputs == structurer(list[Output])(docs.OUTPUTS[:1])
    assert (completed.queue_number, completed.completed_at) == (None, at("14:32:15"))


def test_update_with_a_cause() -> None:
    """A failure's cause is told in the stream's own keys."""
    cause = {"node_type": "KSampler", "exception_type": "RuntimeError", "exception_message": "out of memory"}
    update = structurer(WorkflowUpdate)({"status": "failed", "cause": cause})
    assert update.cause == FailureCause(
        node_type="KSampler", exception_type="RuntimeError", exception_message="out of memory"
    )


def test_templates() -> None:
    """A template has a body, its summary in a listing has none."""
    summary = structurer(TemplateSummary)(docs.TEMPLATE_SUMMARY)
    template = structurer(Template)(docs.TEMPLATE)
    assert summary.id == template.id == docs.TEMPLATE_ID
    assert template.body == {"nodes": [], "links": [], "config": {}}
    assert template.description == "Basic text-to-image generation with SDXL"


@pytest.mark.parametrize(
    ("extra", "provider"),
    [
        pytest.param({}, None, id="missing-as-in-the-example"),
        pytest.param({"provider": None}, None, id="null"),
        pytest.param({"provider": "github"}, UserProvider.GITHUB, id="known"),
        pytest.param({"provider": "gitlab"}, UserProvider("gitlab"), id="unknown"),
    ],
)
def test_user(extra: dict[str, Any], provider: UserProvider | None) -> None:
    """The provider is called required, but the page's own example has none."""
    user = structurer(User)(docs.USER | extra)
    assert user.provider == provider
    assert (user.name, user.email, user.tier, user.deleted) == ("John Doe", "john@example.com", UserTier.PRO, False)


# Tolerance


@pytest.mark.parametrize("field", ["tags", "headers"])
def test_null_for_a_list_or_object_is_an_empty_one(field: str) -> None:
    """`null` where a list or an object is due holds nothing."""
    assert getattr(structurer(Runner)({**docs.RUNNER, field: None}), field) == type(docs.RUNNER[field])()


@pytest.mark.parametrize("field", ["tags", "headers"])
def test_a_list_or_object_may_be_left_out(field: str) -> None:
    """A list or an object that is left out holds nothing."""
    value = {key: item for key, item in docs.RUNNER.items() if key != field}
    assert getattr(structurer(Runner)(value), field) == type(docs.RUNNER[field])()


def test_null_for_a_bare_array_is_an_empty_list() -> None:
    """A history of `null` is an empty one."""
    assert structurer(list[WorkflowSummary])(None) == []


def test_unknown_keys_are_passed_over() -> None:
    """What a newer service adds does no harm, at any depth."""
    value = {**docs.STATS, "new": 1, "system": {**docs.STATS["system"], "new": {"deep": True}}}
    assert structurer(RunnerStats)(value) == structurer(RunnerStats)(docs.STATS)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2024-01-15T10:30:00Z", at("10:30:00"), id="utc"),
        pytest.param("2024-01-15T10:30:00", at("10:30:00"), id="naive-is-utc"),
        pytest.param("2024-01-15T12:30:00+02:00", at("10:30:00"), id="offset"),
        pytest.param("2024-01-15T10:30:00+00:00", at("10:30:00"), id="offset-zero"),
        pytest.param("2024-01-15T10:30:00.123456789Z", at("10:30:00.123456"), id="nanoseconds"),
        pytest.param("2024-01-15 10:30:00Z", at("10:30:00"), id="blank"),
    ],
)
def test_timestamps(text: str, moment: datetime) -> None:
    """Timestamps are aware UTC datetimes, whichever way they are written."""
    read = structurer(WorkflowSummary)({**docs.ACCEPTED, "created_at": text, "started_at": text})
    assert (read.created_at, read.started_at) == (moment, moment)
    assert read.created_at.tzinfo is UTC
    assert read.created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00", "0001-01-01T05:30:00+14:00"])
def test_time_that_was_never_set(text: str) -> None:
    """The zero time of Go is no time; where there must be one it stands as it is, rather than lose the object."""
    read = structurer(WorkflowSummary)({**docs.ACCEPTED, "started_at": text, "completed_at": text})
    assert (read.started_at, read.completed_at) == (None, None)
    zero = structurer(WorkflowSummary)({**docs.ACCEPTED, "updated_at": "0001-01-01T00:00:00Z"})
    assert zero.updated_at == datetime(1, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=repr)
def test_numbers_that_are_none(number: float) -> None:
    """NaN and Infinity are neither text nor whole numbers: one such field does not lose the page."""
    for field in ("name", "status"):
        page = page_structurer(WorkflowSummary, "workflows", 1, 100)(
            {"workflows": [docs.ACCEPTED, {**docs.ACCEPTED, field: number}], "total": 2}
        )
        assert (len(page.items), len(page.invalid_items)) == (1, 1)
    with pytest.raises(ResponseFormatError):
        structurer(Workflow)({**docs.WORKFLOW, "queue_number": number})


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63 - 1, 2**64 - 1, 10**30], ids=str)
def test_whole_numbers_are_exact(number: int) -> None:
    """No whole number loses a digit, neither in fields nor inside graphs."""
    value = {**docs.WORKFLOW, "queue_number": number, "workflow_json": {"1": {"inputs": {"seed": number}}}}
    workflow = structurer(Workflow)(value)
    assert workflow.queue_number == number
    assert workflow.workflow_json["1"]["inputs"]["seed"] == number


@pytest.mark.parametrize(
    ("given", "read"),
    [pytest.param(7, "7", id="whole"), pytest.param(1.5, "1.5", id="fraction")],
)
def test_number_for_text(given: object, read: str) -> None:
    """A number where text is due is that number's text: ids and versions come so from some services."""
    assert structurer(SystemStats)({"comfyui_version": given}).comfyui_version == read


def test_whole_fraction_for_a_number() -> None:
    """A whole number written as a fraction is that number."""
    number = structurer(DeviceStats)({"vram_total": 85899345920.0}).vram_total
    assert (number, type(number)) == (85899345920, int)


# Faults


@pytest.mark.parametrize(
    ("cls", "value", "path", "message"),
    [
        pytest.param(User, None, "$", "expected an object, found null", id="null-for-a-model"),
        pytest.param(User, [docs.USER], "$", "expected an object, found a list", id="list-for-a-model"),
        pytest.param(User, "text", "$", "expected an object, found text", id="text-for-a-model"),
        pytest.param(list[Output], {"outputs": []}, "$", "expected a list, found an object", id="object-for-a-list"),
        pytest.param(list[Output], "abc", "$", "expected a list, found text", id="text-for-a-list"),
        pytest.param(list[Output], [docs.OUTPUTS[0], 5], "$[1]", "expected an object, found a number", id="item"),
        pytest.param(
            list[Output],
            [{**docs.OUTPUTS[0], "src": None}],
            "$[0].src",
            "expected text, found null",
            id="in-item",
        ),
        pytest.param(Runner, {**docs.RUNNER, "tags": "abc"}, "$.tags", "expected a list, found text", id="tags"),
        pytest.param(Runner, {**docs.RUNNER, "tags": ["a", None]}, "$.tags[1]", "expected text, found null", id="tag"),
        pytest.param(
            Runner,
            {**docs.RUNNER, "headers": ["a"]},
            "$.headers",
            "expected an object, found a list",
            id="headers",
        ),
        pytest.param(
            Runner,
            {**docs.RUNNER, "headers": {"a": "b", "X-Key": [SECRET]}},
            "$.headers.X-Key",
            "expected text, found a list",
            id="header",
        ),
        pytest.param(User, {**docs.USER, "name": None}, "$.name", "expected text, found null", id="null-text"),
        pytest.param(User, {**docs.USER, "name": {}}, "$.name", "expected text, found an object", id="object-text"),
        pytest.param(User, {**docs.USER, "name": True}, "$.name", "expected text, found a boolean", id="bool-text"),
        pytest.param(User, {**docs.USER, "tier": 5}, "$.tier", "expected text, found a number", id="number-enum"),
        pytest.param(User, {**docs.USER, "tier": None}, "$.tier", "expected text, found null", id="null-enum"),
        pytest.param(User, {**docs.USER, "tier": ["pro"]}, "$.tier", "expected text, found a list", id="list-enum"),
        pytest.param(
            User, {**docs.USER, "deleted": "no"}, "$.deleted", "expected true or false, found text", id="bool"
        ),
        pytest.param(
            User,
            {**docs.USER, "created_at": "yesterday"},
            "$.created_at",
            "expected an ISO 8601 timestamp, found text",
            id="no-timestamp",
        ),
        pytest.param(
            User,
            {**docs.USER, "created_at": 1705314600},
            "$.created_at",
            "expected an ISO 8601 timestamp, found a number",
            id="unix-time",
        ),
        pytest.param(User, {**docs.USER, "created_at": None}, "$.created_at", "found null", id="null-for-a-timestamp"),
        pytest.param(
            User,
            {**docs.USER, "created_at": "0001-01-01T00:00:00+14:00"},
            "$.created_at",
            "out of range",
            id="before-all-time",
        ),
        pytest.param(
            WorkflowSummary,
            {**docs.ACCEPTED, "started_at": "soon"},
            "$.started_at",
            "expected an ISO 8601 timestamp, found text",
            id="optional-timestamp",
        ),
        pytest.param(
            RunnerStats,
            {**docs.STATS, "devices": [{"vram_total": 1}, {"vram_total": "1 GB"}]},
            "$.devices[1].vram_total",
            "expected a whole number, found text",
            id="nested",
        ),
        pytest.param(
            RunnerStats,
            {**docs.STATS, "system": {"ram_total": 1.5}},
            "$.system.ram_total",
            "expected a whole number, found a number",
            id="fraction-for-a-number",
        ),
        pytest.param(
            RunnerStats,
            {**docs.STATS, "system": {"ram_total": True}},
            "$.system.ram_total",
            "found a boolean",
            id="b",
        ),
        pytest.param(RunnerStats, {"devices": []}, "$.system", "missing", id="missing-object"),
        pytest.param(
            WorkflowUpdate,
            {"status": "completed", "outputs": [{**docs.OUTPUTS[0], "id": None}]},
            "$.outputs[0].id",
            "expected text, found null",
            id="in-a-list-in-an-object",
        ),
        pytest.param(
            WorkflowUpdate,
            {"status": "failed", "cause": "oom"},
            "$.cause",
            "expected an object, found text",
            id="cause",
        ),
    ],
)
def test_faults(cls: type[Any], value: Any, path: str, message: str) -> None:
    """What is not as documented is told with the JSON path of the first fault, and no value is quoted."""
    with pytest.raises(ResponseFormatError) as caught:
        structurer(cls)(value)
    assert caught.value.json_path == path
    assert message in caught.value.message
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("field", [key for key in docs.RUNNER if key not in ("tags", "headers")])
def test_missing(field: str) -> None:
    """What a model needs and does not get is told by its path."""
    value = {key: item for key, item in docs.RUNNER.items() if key != field}
    with pytest.raises(ResponseFormatError, match=rf"^unexpected answer at \$\.{field}: missing$"):
        structurer(Runner)(value)


def test_first_of_several_faults() -> None:
    """Of several faults the first in the model's order is told."""
    with pytest.raises(ResponseFormatError) as caught:
        structurer(User)({**docs.USER, "deleted": 1, "name": None})
    assert caught.value.json_path == "$.name"


# Pages


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        pytest.param(Runner, "runners", docs.RUNNERS, id="runners"),
        pytest.param(ManagedRunner, "runners", docs.MANAGED_RUNNERS, id="managed-runners"),
        pytest.param(WorkflowSummary, "workflows", docs.WORKFLOWS, id="workflows"),
        pytest.param(TemplateSummary, "templates", docs.TEMPLATES, id="templates"),
    ],
)
def test_pages(cls: type[Any], key: str, value: dict[str, Any]) -> None:
    """Every documented listing becomes a page of its models."""
    page = page_structurer(cls, key, 2, 10)(value)
    assert page == Page(
        items=[structurer(cls)(item) for item in value[key]], total=value["total"], number=2, per_page=10
    )
    assert len(page.items) == value["total"]


def test_a_faulty_item_does_not_lose_its_page(caplog: pytest.LogCaptureFixture) -> None:
    """What is malformed stands apart, with its place and its raw JSON, and is told in the log."""
    faulty = {**docs.RUNNER, "created_at": SECRET}
    value = {"runners": [faulty, docs.RUNNER, None], "total": 3}
    with caplog.at_level(logging.WARNING, logger="comfycontrol_async"):
        page = page_structurer(Runner, "runners", 1, 10)(value)
    assert page.items == [structurer(Runner)(docs.RUNNER)]
    assert page.total == 3
    assert page.invalid_items == [
        InvalidItem(index=0, message="$.runners[0].created_at: expected an ISO 8601 timestamp, found text", raw=faulty),
        InvalidItem(index=2, message="$.runners[2]: expected an object, found null", raw=None),
    ]
    assert "$.runners[0].created_at" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        pytest.param(None, "$", "expected a list of runners, found null", id="null"),
        pytest.param([docs.RUNNER], "$", "expected a list of runners", id="bare-array"),
        pytest.param({"total": 0}, "$.runners", "expected a list of runners, found null", id="no-key"),
        pytest.param({"runners": "abc", "total": 3}, "$.runners", "expected a list of runners, found text", id="text"),
        pytest.param({"runners": {}, "total": 0}, "$.runners", "found an object", id="object"),
    ],
)
def test_faulty_envelopes(value: Any, path: str, message: str) -> None:
    """A body that is no listing at all is a fault of the whole."""
    with pytest.raises(ResponseFormatError) as caught:
        page_structurer(Runner, "runners", 1, 10)(value)
    assert caught.value.json_path == path
    assert message in caught.value.message


def test_null_for_a_listing_is_an_empty_page() -> None:
    """`null` for the list of a listing is an empty one."""
    assert page_structurer(Runner, "runners", 1, 10)({"runners": None, "total": 0}).items == []


@pytest.mark.parametrize(
    ("total", "number", "count", "expected"),
    [
        pytest.param(127, 1, 3, 127, id="as-told"),
        pytest.param(None, 1, 3, 3, id="unknown-last-page"),
        pytest.param(None, 3, 3, 23, id="unknown-last-page-of-three"),
        pytest.param(None, 2, 10, 21, id="unknown-full-page-may-not-be-the-last"),
        pytest.param("127", 1, 3, 3, id="text"),
        pytest.param(True, 1, 3, 3, id="boolean"),
    ],
)
def test_total(total: object, number: int, count: int, expected: int) -> None:
    """A total that is not told is at least what was seen, and one more behind a full page."""
    value = {"runners": [docs.RUNNER] * count, "total": total}
    assert page_structurer(Runner, "runners", number, 10)(value).total == expected


def test_hooks_are_made_once() -> None:
    """Structuring is set up once per class, not once per call: setting up costs milliseconds."""
    from comfycontrol_async._http import _convert

    read: Callable[[Any], User] = structurer(User)
    read(docs.USER)
    before = _convert._hook.cache_info().misses
    structurer(User)(docs.USER)
    read(docs.USER)
    assert _convert._hook.cache_info().misses == before


def test_offsets_other_than_utc_are_converted() -> None:
    """An aware datetime in another zone is the same moment in UTC."""
    moment = datetime(2024, 1, 15, 5, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert structurer(User)({**docs.USER, "created_at": moment.isoformat()}).created_at == at("10:30:00")
