"""Answers are believed only for what was asked."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, ResponseFormatError
from support import documented
from support.scripted import ScriptedApi

OTHER = "99999999-9999-4999-a999-999999999999"
Call = Callable[[ComfyControl], Awaitable[object]]


@pytest.mark.parametrize(
    ("method", "path", "payload", "call"),
    [
        pytest.param("GET", "/v1/runner/", documented.RUNNER, lambda c: c.runners.get(OTHER), id="runner"),
        pytest.param(
            "PUT", "/v1/runner/", documented.RUNNER, lambda c: c.runners.update(OTHER, name="n"), id="runner-update"
        ),
        pytest.param(
            "GET",
            "/v1/managed-runner/",
            documented.MANAGED_RUNNER,
            lambda c: c.managed_runners.get(OTHER),
            id="managed",
        ),
        pytest.param("GET", "/v1/template/", documented.TEMPLATE, lambda c: c.templates.get(OTHER), id="template"),
        pytest.param(
            "PUT",
            "/v1/template/",
            documented.TEMPLATE,
            lambda c: c.templates.update(OTHER, name="n"),
            id="template-update",
        ),
        pytest.param("GET", "/v1/workflow/", documented.WORKFLOW, lambda c: c.workflows.get(OTHER), id="workflow"),
    ],
)
async def test_an_answer_about_another(
    api: ScriptedApi, comfy: ComfyControl, method: str, path: str, payload: dict[str, Any], call: Call
) -> None:
    """An object with another id is no answer to what was asked, and nothing is asked again."""
    api.answer(method, path + OTHER, payload)
    with pytest.raises(ResponseFormatError, match=f"is about '{payload['id']}', not about '{OTHER}'") as caught:
        await call(comfy)
    assert (caught.value.method, caught.value.json_path) == (method, "$.id")
    assert len(api.calls) == 1


async def test_outputs_are_believed(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Items of a list are what was asked for, whatever workflow they name: no page says that they name this one."""
    items = [{"id": "1", "workflow_id": documented.WORKFLOW_ID, "src": "https://a.test/1.png"}]
    api.answer("GET", f"/v1/workflow/{OTHER}/outputs", items)
    assert len(await comfy.workflows.outputs(OTHER)) == 1


async def test_the_case_of_an_id_does_not_matter(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Ids are hexadecimal: a service may answer in the other case."""
    id = documented.RUNNER["id"].upper()
    api.answer("GET", f"/v1/runner/{id}", documented.RUNNER)
    assert (await comfy.runners.get(id)).id == documented.RUNNER["id"]
