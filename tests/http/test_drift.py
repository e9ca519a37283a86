"""What the service sends that this version does not know is counted, for each client."""

import pytest

from comfycontrol_async import APIError, ComfyControl
from comfycontrol_async._http._drift import Drift
from support import documented
from support.scripted import TOKEN, ScriptedApi


async def test_nothing(api: ScriptedApi, comfy: ComfyControl) -> None:
    """As long as everything is as documented there is no text."""
    api.answer("GET", "/v1/user", documented.USER)
    api.answer("GET", "/v1/user", {"message": "no"}, status=404)
    await comfy.user.get()
    with pytest.raises(APIError):
        await comfy.user.get()
    assert comfy.drift == ""


async def test_counted(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Unknown fields, words and statuses are counted, whatever else is in the answer."""
    odd = {**documented.ACCEPTED, "status": "archived", "priority": 5, f"{TOKEN}": 1}
    api.answer("GET", "/v1/workflow?page=1&per_page=100", {"workflows": [odd, odd], "total": 2}, times=2)
    api.answer("GET", f"/v1/workflow/{documented.WORKFLOW_ID}", status=418)
    pager = comfy.workflows.list()
    await pager.page()
    await comfy.with_options(timeouts=5).workflows.list().page()
    with pytest.raises(APIError):
        await comfy.workflows.get(documented.WORKFLOW_ID)
    first, *lines = comfy.drift.splitlines()
    assert first.startswith("comfycontrol-async ")
    assert lines == [
        "WorkflowStatus 'archived': 4",
        "field WorkflowSummary.cfc_***: 4",
        "field WorkflowSummary.priority: 4",
        "status 418 of GET /v1/workflow/{id}: 1",
    ]
    other = ComfyControl(TOKEN)
    assert other.drift == ""


def test_bounded() -> None:
    """A service that sends ever new names, or very long ones, does not fill the memory."""
    drift = Drift()
    for number in range(1000):
        drift.count(f"field X.{number}")
    drift.count("field X.0" + "y" * 10_000)
    assert len(str(drift).splitlines()) == 201
    assert len(str(drift)) < 10_000
