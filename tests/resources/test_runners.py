"""`comfy.runners` and `comfy.managed_runners`: what is sent, what comes back, what is refused without a request."""

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from comfycontrol_async import (
    BadRequestError,
    ComfyControl,
    InvalidArgumentError,
    ManagedRunner,
    NotFoundError,
    PermissionDeniedError,
    ResponseLostError,
    Runner,
    RunnerStats,
    RunnerStatus,
    ServerError,
    WorkflowSummary,
)
from comfycontrol_async._http._convert import structurer
from support import documented
from support.scripted import ScriptedApi

ID = documented.RUNNER_ID
SECRET = "secret_token"


def read(cls: type[Any], value: Any) -> Any:
    """Structure JSON."""
    return structurer(cls)(value)


# Self-hosted runners


@pytest.mark.parametrize(
    ("options", "query"),
    [
        pytest.param({}, "page=1&per_page=100", id="plain"),
        pytest.param({"per_page": 10}, "page=1&per_page=10", id="per-page"),
        pytest.param({"status": "active"}, "page=1&per_page=100&status=active", id="status"),
        pytest.param({"status": RunnerStatus.DISABLED}, "page=1&per_page=100&status=disabled", id="status-enum"),
    ],
)
async def test_list(api: ScriptedApi, comfy: ComfyControl, options: dict[str, Any], query: str) -> None:
    """Runners are listed page by page, newest first."""
    api.answer("GET", f"/v1/runner?{query}", documented.RUNNERS)
    page = await comfy.runners.list(**options).page(1)
    assert page.items == [read(Runner, item) for item in documented.RUNNERS["runners"]]
    assert (page.total, page.number, page.per_page) == (2, 1, options.get("per_page", 100))


async def test_list_all(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A walk fetches what it needs."""
    first, second = documented.RUNNERS["runners"]
    api.answer("GET", "/v1/runner?page=1&per_page=1", {"runners": [first], "total": 2})
    api.answer("GET", "/v1/runner?page=2&per_page=1", {"runners": [second], "total": 2})
    names = [runner.name async for runner in comfy.runners.list(per_page=1)]
    assert names == ["Production GPU Runner", "Development Runner"]


async def test_list_with_a_faulty_item(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One malformed runner does not lose the others."""
    api.answer("GET", "/v1/runner?page=1&per_page=100", {"runners": [{"id": 5}, documented.RUNNER], "total": 2})
    page = await comfy.runners.list().page()
    assert [runner.id for runner in page.items] == [ID]
    assert [(item.index, item.raw) for item in page.invalid_items] == [(0, {"id": 5})]


async def test_get(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One runner is fetched by its id; its headers are there and not shown."""
    api.answer("GET", f"/v1/runner/{ID}", documented.RUNNER)
    runner = await comfy.runners.get(ID)
    assert runner == read(Runner, documented.RUNNER)
    assert runner.headers == {"Authorization": f"Bearer {SECRET}"}
    assert SECRET not in repr(runner)


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({}, {"headers": {}, "tags": []}, id="least"),
        pytest.param(
            {"headers": {"Authorization": f"Bearer {SECRET}"}, "tags": ("production", "gpu-a100")},
            {"headers": {"Authorization": f"Bearer {SECRET}"}, "tags": ["production", "gpu-a100"]},
            id="all",
        ),
    ],
)
async def test_create(api: ScriptedApi, comfy: ComfyControl, options: dict[str, Any], body: dict[str, Any]) -> None:
    """A runner is registered with one POST of JSON."""
    api.answer("POST", "/v1/runner", documented.RUNNER, status=201)
    runner = await comfy.runners.create("Prodüction", "https://my-comfy.example.com", **options)
    assert runner == read(Runner, documented.RUNNER)
    assert api.calls[0].json == {"name": "Prodüction", "endpoint": "https://my-comfy.example.com", **body}


@pytest.mark.parametrize(
    ("options", "body"),
    [
        pytest.param({"name": "New"}, {"name": "New"}, id="name"),
        pytest.param({"endpoint": "http://a.test"}, {"endpoint": "http://a.test"}, id="endpoint"),
        pytest.param({"headers": {}}, {"headers": {}}, id="no-headers-any-more"),
        pytest.param({"tags": []}, {"tags": []}, id="no-tags-any-more"),
        pytest.param({"status": "disabled"}, {"status": "disabled"}, id="status"),
        pytest.param({"status": RunnerStatus.ACTIVE}, {"status": "active"}, id="status-enum"),
        pytest.param(
            {"name": "New", "tags": ["a"], "headers": {"k": "v"}},
            {"name": "New", "tags": ["a"], "headers": {"k": "v"}},
            id="several",
        ),
    ],
)
async def test_update(api: ScriptedApi, comfy: ComfyControl, options: dict[str, Any], body: dict[str, Any]) -> None:
    """Only what is given is sent, for the rest stays as it is."""
    api.answer("PUT", f"/v1/runner/{ID}", documented.RUNNER)
    assert await comfy.runners.update(ID, **options) == read(Runner, documented.RUNNER)
    assert api.calls[0].json == body


@pytest.mark.parametrize("body", [b"", b"OK", b'{"status": "interrupted"}'], ids=repr)
async def test_interrupt(api: ScriptedApi, comfy: ComfyControl, body: bytes) -> None:
    """Interrupting has nothing to send and nothing to say."""
    api.answer("POST", f"/v1/runner/{ID}/interrupt", body=body)
    await comfy.runners.interrupt(ID)
    assert api.asked == [f"POST /v1/runner/{ID}/interrupt"]
    assert api.calls[0].data is None


async def test_interrupt_is_repeated(api: ScriptedApi, comfy: ComfyControl) -> None:
    """An interrupt whose answer is lost is sent again: it interrupts what is interrupted already."""
    api.fail("POST", f"/v1/runner/{ID}/interrupt", aiohttp.ServerDisconnectedError())
    api.answer("POST", f"/v1/runner/{ID}/interrupt")
    await comfy.runners.interrupt(ID)
    assert len(api.calls) == 2


async def test_history(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A runner's last workflows come as a bare array."""
    api.answer("GET", f"/v1/runner/{ID}/history", documented.HISTORY)
    assert await comfy.runners.history(ID) == [read(WorkflowSummary, item) for item in documented.HISTORY]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        pytest.param(500, ServerError, id="server-error"),
        pytest.param(aiohttp.ServerDisconnectedError(), ResponseLostError, id="lost"),
    ],
)
async def test_create_is_never_repeated(
    api: ScriptedApi, comfy: ComfyControl, fault: int | Exception, error: type[Exception]
) -> None:
    """A runner that may have been made is not made again."""
    if isinstance(fault, int):
        api.answer("POST", "/v1/runner", status=fault)
    else:
        api.fail("POST", "/v1/runner", fault)
    with pytest.raises(error):
        await comfy.runners.create("n", "https://a.test")
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "name cannot be empty", BadRequestError),
        (403, "Runner limit exceeded for your tier", PermissionDeniedError),
        (404, "requested entity not found", NotFoundError),
    ],
)
async def test_errors(api: ScriptedApi, comfy: ComfyControl, status: int, message: str, error: type[Exception]) -> None:
    """The API's own words reach the caller."""
    api.answer("PUT", f"/v1/runner/{ID}", {"status": status, "message": message}, status=status)
    with pytest.raises(error, match=message):
        await comfy.runners.update(ID, name="New")


Call = Callable[[ComfyControl], Awaitable[object]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda c: c.runners.list(per_page=0).page(1), "per_page must be from 1 to 100", id="per-page"),
        pytest.param(lambda c: c.runners.list(per_page=101).all(), "per_page must be from 1 to 100", id="per-page-101"),
        pytest.param(lambda c: c.runners.list().page(0), "a page's number must be a whole number from 1", id="page"),
        pytest.param(lambda c: c.runners.get("5"), "an id is text like", id="get"),
        pytest.param(lambda c: c.runners.history("5"), "an id is text like", id="history"),
        pytest.param(lambda c: c.runners.interrupt("5"), "an id is text like", id="interrupt"),
        pytest.param(lambda c: c.runners.update("5", name="n"), "an id is text like", id="update"),
        pytest.param(lambda c: c.runners.create("", "http://a.test"), "a runner's name must not be empty", id="name"),
        pytest.param(lambda c: c.runners.create(None, "http://a.test"), "a runner's name must be text", id="none-name"),
        pytest.param(lambda c: c.runners.create("n", None), "an endpoint is a URL", id="none-endpoint"),
        pytest.param(lambda c: c.runners.create("x" * 101, "http://a.test"), "at most 100", id="long-name"),
        pytest.param(lambda c: c.runners.create("n", "a.test"), "an endpoint is a URL", id="endpoint"),
        pytest.param(lambda c: c.runners.create("n", "http://a.test", tags=["t"] * 11), "at most 10", id="tags"),
        pytest.param(lambda c: c.runners.create("n", "http://a.test", tags="gpu"), "write tags=", id="tags-as-text"),
        pytest.param(
            lambda c: c.runners.create("n", "http://a.test", headers={"k": 5}), "the header 'k' must", id="headers"
        ),
        pytest.param(lambda c: c.runners.create("\ud800", "http://a.test"), "half a surrogate pair", id="surrogate"),
        pytest.param(lambda c: c.runners.update(ID), "nothing to change", id="nothing"),
        pytest.param(lambda c: c.runners.update(ID, name=""), "a runner's name must not be empty", id="update-name"),
        pytest.param(lambda c: c.runners.update(ID, endpoint="x"), "an endpoint is a URL", id="update-endpoint"),
        pytest.param(lambda c: c.runners.update(ID, tags=["t"] * 11), "at most 10", id="update-tags"),
        pytest.param(lambda c: c.runners.update(ID, headers=[]), "headers must be a mapping", id="update-headers"),
        pytest.param(
            lambda c: c.runners.update(ID, status="inactive"), "'active' or 'disabled', not 'inactive'", id="status"
        ),
        pytest.param(lambda c: c.managed_runners.list(per_page=0).all(), "per_page must be", id="managed-per-page"),
        pytest.param(lambda c: c.managed_runners.get("5"), "an id is text like", id="managed-get"),
        pytest.param(lambda c: c.managed_runners.history("5"), "an id is text like", id="managed-history"),
        pytest.param(lambda c: c.managed_runners.stats("5"), "an id is text like", id="managed-stats"),
    ],
)
async def test_refused_for_nothing(api: ScriptedApi, comfy: ComfyControl, call: Call, message: str) -> None:
    """What the API is known to refuse costs no request."""
    with pytest.raises(InvalidArgumentError, match=message):
        await call(comfy)
    assert api.calls == []


def test_no_secret_in_the_error_of_a_header() -> None:
    """The text that cannot be sent is not shown, nor is it the error's cause."""
    from comfycontrol_async.resources._calls import with_json

    with pytest.raises(InvalidArgumentError) as caught:
        with_json("POST", "/v1/runner", {"headers": {"k": f"{SECRET}\ud800"}}, Runner)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


# Managed runners


async def test_managed_list(api: ScriptedApi, comfy: ComfyControl) -> None:
    """The service's own runners are listed under the same key."""
    api.answer("GET", "/v1/managed-runner?page=1&per_page=100", documented.MANAGED_RUNNERS)
    page = await comfy.managed_runners.list().page(1)
    assert page.items == [read(ManagedRunner, item) for item in documented.MANAGED_RUNNERS["runners"]]


async def test_managed_get(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One managed runner is fetched by its id."""
    id = documented.MANAGED_RUNNER["id"]
    api.answer("GET", f"/v1/managed-runner/{id}", documented.MANAGED_RUNNER)
    assert await comfy.managed_runners.get(id) == read(ManagedRunner, documented.MANAGED_RUNNER)


async def test_managed_history(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One's own last workflows on it come as a bare array."""
    api.answer("GET", f"/v1/managed-runner/{ID}/history", documented.HISTORY)
    assert [item.status for item in await comfy.managed_runners.history(ID)] == ["completed", "failed", "running"]


async def test_managed_stats(api: ScriptedApi, comfy: ComfyControl) -> None:
    """The machine tells of itself."""
    api.answer("GET", f"/v1/managed-runner/{ID}/stats", documented.STATS)
    assert await comfy.managed_runners.stats(ID) == read(RunnerStats, documented.STATS)


async def test_managed_for_free(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A free account is told what it lacks."""
    message = "Managed runners require Pro or Plus tier"
    api.answer("GET", "/v1/managed-runner?page=1&per_page=100", {"status": 403, "message": message}, status=403)
    with pytest.raises(PermissionDeniedError, match=message):
        await comfy.managed_runners.list().first()
