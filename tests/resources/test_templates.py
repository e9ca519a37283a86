"""`comfy.templates`: what is sent, what comes back, what is refused without a request."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfycontrol_async import (
    ComfyControl,
    Graph,
    GraphError,
    InvalidArgumentError,
    PermissionDeniedError,
    ResponseLostError,
    Template,
    TemplateSummary,
)
from comfycontrol_async._http._convert import structurer
from support import documented
from support.scripted import ScriptedApi

ID = documented.TEMPLATE_ID
READ: Template = structurer(Template)(documented.TEMPLATE)


def body(call_data: dict[str, Any]) -> Any:
    """Read the graph that was sent."""
    name, content_type, content = call_data["body"]
    assert (name, content_type) == ("workflow.json", "application/json")
    return json.loads(content)


async def test_list(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Templates are listed without their graphs."""
    api.answer("GET", "/v1/template?page=1&per_page=100", documented.TEMPLATES)
    assert await comfy.templates.list().all() == [structurer(TemplateSummary)(documented.TEMPLATE_SUMMARY)]


async def test_get(api: ScriptedApi, comfy: ComfyControl) -> None:
    """One template is fetched with its graph."""
    api.answer("GET", f"/v1/template/{ID}", {**documented.TEMPLATE, "body": documented.GRAPH})
    template = await comfy.templates.get(ID)
    assert template.graph == Graph(documented.GRAPH)


@pytest.mark.parametrize("kind", ["mapping", "graph", "template", "path", "str"])
async def test_create(api: ScriptedApi, comfy: ComfyControl, tmp_path: Path, kind: str) -> None:
    """A graph is stored from whatever it is given as, in one POST of a form."""
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(documented.GRAPH))
    template: Template = structurer(Template)({**documented.TEMPLATE, "body": documented.GRAPH})
    sources: dict[str, Any] = {
        "mapping": documented.GRAPH,
        "graph": Graph(documented.GRAPH),
        "template": template,
        "path": path,
        "str": str(path),
    }
    api.answer("POST", "/v1/template", documented.TEMPLATE, status=201)
    assert await comfy.templates.create("Näme", "What it does", sources[kind]) == READ
    data = api.calls[0].data
    assert list(data) == ["name", "description", "body"]
    assert (data["name"], data["description"], body(data)) == ("Näme", "What it does", documented.GRAPH)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        pytest.param({"name": "New"}, {"name": "New"}, id="name"),
        pytest.param({"description": "New"}, {"description": "New"}, id="description"),
        pytest.param({"graph": documented.GRAPH}, {}, id="graph"),
        pytest.param(
            {"name": "New", "description": "Too", "graph": documented.GRAPH},
            {"name": "New", "description": "Too"},
            id="all",
        ),
    ],
)
async def test_update(api: ScriptedApi, comfy: ComfyControl, options: dict[str, Any], fields: dict[str, str]) -> None:
    """Only what is given is sent."""
    api.answer("PUT", f"/v1/template/{ID}", documented.TEMPLATE)
    assert await comfy.templates.update(ID, **options) == READ
    data = dict(api.calls[0].data)
    if "graph" in options:
        assert body(data) == documented.GRAPH
        del data["body"]
    assert data == fields


async def test_create_is_never_repeated(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A template that may have been stored is not stored again, while an update is."""
    api.fail("POST", "/v1/template", aiohttp.ServerDisconnectedError())
    with pytest.raises(ResponseLostError):
        await comfy.templates.create("n", "d", documented.GRAPH)
    assert len(api.calls) == 1
    api.fail("PUT", f"/v1/template/{ID}", aiohttp.ServerDisconnectedError())
    api.answer("PUT", f"/v1/template/{ID}", documented.TEMPLATE)
    assert await comfy.templates.update(ID, graph=documented.GRAPH) == READ
    assert [body(call.data) for call in api.calls[1:]] == [documented.GRAPH] * 2


async def test_tier_limit(api: ScriptedApi, comfy: ComfyControl) -> None:
    """The tier's limit is the API's to tell."""
    message = "Template limit exceeded for your tier"
    api.answer("POST", "/v1/template", {"status": 403, "message": message}, status=403)
    with pytest.raises(PermissionDeniedError, match=message):
        await comfy.templates.create("n", "d", documented.GRAPH)


Call = Callable[[ComfyControl], Awaitable[object]]
GRAPH = documented.GRAPH


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        pytest.param(lambda c: c.templates.list(per_page=0).all(), InvalidArgumentError, "per_page", id="per-page"),
        pytest.param(lambda c: c.templates.get("5"), InvalidArgumentError, "an id is", id="get"),
        pytest.param(lambda c: c.templates.update("5", name="n"), InvalidArgumentError, "an id is", id="update"),
        pytest.param(lambda c: c.templates.update(ID), InvalidArgumentError, "nothing to change", id="nothing"),
        pytest.param(lambda c: c.templates.create("", "d", GRAPH), InvalidArgumentError, "name must not", id="name"),
        pytest.param(lambda c: c.templates.create(None, "d", GRAPH), InvalidArgumentError, "needs a name", id="none"),
        pytest.param(lambda c: c.templates.create("n" * 101, "d", GRAPH), InvalidArgumentError, "most 100", id="long"),
        pytest.param(lambda c: c.templates.create("n", "", GRAPH), InvalidArgumentError, "description must", id="text"),
        pytest.param(
            lambda c: c.templates.create("n", None, GRAPH), InvalidArgumentError, "a description", id="none-text"
        ),
        pytest.param(
            lambda c: c.templates.create("n", "d" * 501, GRAPH), InvalidArgumentError, "at most 500", id="long-text"
        ),
        pytest.param(lambda c: c.templates.create("n", "d", {}), GraphError, "the graph is empty", id="empty-graph"),
        pytest.param(lambda c: c.templates.create("n", "d", None), InvalidArgumentError, "and a graph", id="no-graph"),
        pytest.param(lambda c: c.templates.create("n", "d", "absent.json"), GraphError, "cannot read", id="no-file"),
        pytest.param(lambda c: c.templates.update(ID, graph={"nodes": []}), GraphError, "UI format", id="ui-format"),
    ],
)
async def test_refused_for_nothing(
    api: ScriptedApi, comfy: ComfyControl, call: Call, error: type[Exception], message: str
) -> None:
    """What the API is known to refuse costs no request."""
    with pytest.raises(error, match=message):
        await call(comfy)
    assert api.calls == []
