"""Every documented endpoint once, over the wire."""

import pytest

from comfycontrol_async import ComfyControl, PermissionDeniedError
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import connected


async def test_all_of_them(server: LocalServer, comfy: ComfyControl) -> None:
    """All but one of the 22 endpoints give what they document; one request each, in the order they were called."""
    user = await comfy.user.get()
    runner = await comfy.runners.create("r", "https://example.com", headers={"X-Key": "hidden"}, tags=["a"])
    runners = await comfy.runners.list(status="active", per_page=10).page(1)
    same = await comfy.runners.get(runner.id)
    changed = await comfy.runners.update(runner.id, status="disabled")
    await comfy.runners.interrupt(runner.id)
    history = await comfy.runners.history(runner.id)
    managed = await comfy.managed_runners.list().page(1)
    one = await comfy.managed_runners.get(managed.items[0].id)
    managed_history = await comfy.managed_runners.history(one.id)
    stats = await comfy.managed_runners.stats(one.id)
    made = await comfy.workflows.create(GRAPH, name="w", tags=["a", "b"])
    workflows = await comfy.workflows.list().page(1)
    full = await comfy.workflows.get(made.id)
    updates = [update async for update in comfy.workflows.subscribe(made.id)]
    outputs = await comfy.workflows.outputs(made.id)
    again = await comfy.workflows.rerun(made.id)
    template = await comfy.templates.create("t", "d", GRAPH)
    templates = await comfy.templates.list().page(1)
    fetched = await comfy.templates.get(template.id)
    renamed = await comfy.templates.update(template.id, name="t2")
    assert user.tier == "pro"
    assert (runner.status, runner.headers, runner.tags) == ("active", {"X-Key": "hidden"}, ["a"])
    assert "hidden" not in repr(runner)
    assert runner.id in [item.id for item in runners.items]
    assert same == runner
    assert changed.status == "disabled"
    assert (history, managed_history) == ([], [])
    assert one in managed.items
    assert stats.devices[0].name == "cuda:0"
    assert [item.id for item in workflows.items] == [made.id]
    assert full.workflow_json == GRAPH
    assert updates[-1].status == "completed"
    assert [output.id for output in outputs] == [output.id for output in updates[-1].outputs]
    assert again.id != made.id
    assert templates.items[0].name == "t"
    assert fetched.graph.nodes == GRAPH
    assert renamed.name == "t2"
    assert [f"{record.method} {record.path}" for record in server.requests] == [
        "GET /v1/user",
        "POST /v1/runner",
        "GET /v1/runner",
        f"GET /v1/runner/{runner.id}",
        f"PUT /v1/runner/{runner.id}",
        f"POST /v1/runner/{runner.id}/interrupt",
        f"GET /v1/runner/{runner.id}/history",
        "GET /v1/managed-runner",
        f"GET /v1/managed-runner/{one.id}",
        f"GET /v1/managed-runner/{one.id}/history",
        f"GET /v1/managed-runner/{one.id}/stats",
        "POST /v1/workflow",
        "GET /v1/workflow",
        f"GET /v1/workflow/{made.id}",
        f"GET /v1/workflow/{made.id}/subscribe",
        f"GET /v1/workflow/{made.id}/outputs",
        f"POST /v1/workflow/{made.id}/rerun",
        "POST /v1/template",
        "GET /v1/template",
        f"GET /v1/template/{template.id}",
        f"PUT /v1/template/{template.id}",
    ]


async def test_cancel() -> None:
    """And the last one, which needs a workflow that runs."""
    async with connected(delays=(0.0, 0.0, 0.0), duration=10_000.0) as (server, comfy):
        made = await comfy.workflows.create(GRAPH, name="w")
        await comfy.workflows.cancel(made.id)
        assert server.workflows[made.id].status == "cancelled"


async def test_a_tier_without_managed_runners() -> None:
    """What the tier does not allow is told in the service's words."""
    async with connected(tier="free", runner_limit=1, template_limit=0) as (_, comfy):
        with pytest.raises(PermissionDeniedError, match="Managed runners require Pro or Plus tier"):
            await comfy.managed_runners.list().page(1)
        with pytest.raises(PermissionDeniedError, match="Runner limit exceeded for your tier"):
            await comfy.runners.create("r", "https://example.com")
        with pytest.raises(PermissionDeniedError, match="Template limit exceeded"):
            await comfy.templates.create("t", "d", GRAPH)
