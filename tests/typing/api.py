"""What users see of the types: read by mypy in strict mode, never run."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import aiohttp
from obstore.store import MemoryStore

from comfycontrol_async import (
    APIError,
    ComfyControl,
    File,
    Graph,
    GraphError,
    GraphIssue,
    InvalidItem,
    Limiter,
    LocalLimiter,
    ManagedRunner,
    MapResult,
    NodeDefinitions,
    ObjectStore,
    Output,
    OutputFile,
    Page,
    Pager,
    Parameter,
    Permit,
    Priority,
    RateLimitSnapshot,
    RateLimitWaitError,
    RetryPolicy,
    Runner,
    RunnerStats,
    RunnerStatus,
    SubmitOutcomeUnknownError,
    Template,
    TemplateSummary,
    Timeouts,
    User,
    UserProvider,
    UserTier,
    WaitTimeoutError,
    WatchPolicy,
    Workflow,
    WorkflowFailedError,
    WorkflowRun,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)


async def client(session: aiohttp.ClientSession, limiter: LocalLimiter) -> None:
    """Make clients with every option."""
    ComfyControl()
    comfy = ComfyControl(
        "cfc_token",
        base_url="https://api.test",
        session=session,
        limiter=limiter,
        retry=RetryPolicy(attempts=3, max_elapsed=60, base_delay=0.1, max_delay=1),
        timeouts=Timeouts(connect=1, read=None, total=5.5),
        watch=WatchPolicy(min_interval=1, max_interval=2, max_streams=0),
        max_rate_limit_wait=None,
        user_agent="my-app",
        proxy="http://p.test",
        trace_configs=[aiohttp.TraceConfig()],
    )
    async with comfy as entered:
        assert_type(entered, ComfyControl)
    assert_type(comfy.with_options(priority=Priority.BULK, max_rate_limit_wait=1), ComfyControl)
    assert_type(comfy.base_url, str)
    assert_type(comfy.limiter, Limiter)
    assert_type(comfy.limiter.snapshot(), RateLimitSnapshot)
    assert_type(await comfy.limiter.acquire(Priority.INTERACTIVE, max_wait=1.0), Permit)
    assert_type(await comfy.request("GET", "/v1/new", params={"page": 1, "all": True}), Any)
    assert_type(await comfy.aclose(), None)


async def resources(comfy: ComfyControl, graph: Graph) -> None:
    """Call all 22 endpoints."""
    user = await comfy.user.get()
    assert_type(user, User)
    assert_type(user.tier, UserTier)
    assert_type(user.provider, UserProvider | None)
    assert_type(user.created_at, datetime)

    assert_type(comfy.runners.list(status="active"), Pager[Runner])
    runner = await comfy.runners.get("id")
    assert_type(runner, Runner)
    assert_type(runner.status, RunnerStatus)
    assert_type(runner.headers, dict[str, str])
    assert_type(await comfy.runners.create("n", "https://a.test", headers={"k": "v"}, tags=["t"]), Runner)
    assert_type(await comfy.runners.update("id", tags=(), status=RunnerStatus.DISABLED), Runner)
    assert_type(await comfy.runners.interrupt("id"), None)
    assert_type(await comfy.runners.history("id"), list[WorkflowSummary])

    assert_type(comfy.managed_runners.list(per_page=10), Pager[ManagedRunner])
    assert_type(await comfy.managed_runners.get("id"), ManagedRunner)
    assert_type(await comfy.managed_runners.history("id"), list[WorkflowSummary])
    stats = await comfy.managed_runners.stats("id")
    assert_type(stats, RunnerStats)
    assert_type(stats.devices[0].vram_free, int | None)

    assert_type(comfy.workflows.list(status=WorkflowStatus.RUNNING), Pager[WorkflowSummary])
    workflow = await comfy.workflows.get("id")
    assert_type(workflow, Workflow)
    assert_type(workflow.status, WorkflowStatus)
    assert_type(workflow.completed_at, datetime | None)
    assert_type(await comfy.workflows.create(graph, name="n", params={"p": 1}, tags=["t"]), WorkflowSummary)
    assert_type(await comfy.workflows.cancel("id"), None)
    assert_type(await comfy.workflows.rerun("id", params={"p": 1}), WorkflowSummary)
    assert_type(await comfy.workflows.outputs("id"), list[Output])
    async for update in comfy.workflows.subscribe("id"):
        assert_type(update, WorkflowUpdate)

    assert_type(comfy.templates.list(), Pager[TemplateSummary])
    template = await comfy.templates.get("id")
    assert_type(template, Template)
    assert_type(template.graph, Graph)
    assert_type(await comfy.templates.create("n", "d", "graph.json"), Template)
    assert_type(await comfy.templates.update("id", graph=graph), Template)


async def pages(pager: Pager[Runner]) -> None:
    """Walk a listing."""
    async for runner in pager:
        assert_type(runner, Runner)
    page = await pager.page(1)
    assert_type(page, Page[Runner])
    assert_type(page.items, list[Runner])
    assert_type(page.invalid_items, list[InvalidItem])
    assert_type(page.total, int)
    assert_type(await pager.all(), list[Runner])
    assert_type(await pager.first(), Runner | None)


async def verbs(comfy: ComfyControl, template: Template, rows: AsyncIterator[Mapping[str, Any]]) -> None:
    """Submit, run, wait and map, from every kind of source."""

    async def on_update(update: WorkflowUpdate) -> None:
        assert_type(update.status.terminal, bool)

    assert_type(await comfy.submit("graph.json"), WorkflowRun)
    assert_type(await comfy.submit(template, name="n", params={"image": File(b"png")}, tags=["t"]), WorkflowRun)
    run = await comfy.run(Path("graph.json"), timeout=60, on_update=on_update, on_cancel="cancel")
    assert_type(run, WorkflowRun)
    await comfy.run({"1": {"class_type": "SaveImage", "inputs": {}}}, on_update=print)
    await comfy.run("graph.json", on_cancel="stop")  # type: ignore[arg-type] # no such choice
    async for result in comfy.map("graph.json", rows, key="name", concurrency=10, journal="run.sqlite"):
        assert_type(result, MapResult)
        assert_type(result.key, str)
        assert_type(result.run, WorkflowRun | None)
    assert_type(comfy.get_run("id"), WorkflowRun)

    assert_type(run.id, str)
    assert_type(run.status, WorkflowStatus | None)
    assert_type(run.workflow, Workflow | None)
    assert_type(await run.wait(timeout=1.5), Workflow)
    async for update in run.updates():
        assert_type(update, WorkflowUpdate)
    assert_type(await run.refresh(), Workflow)
    assert_type(await run.cancel(), None)
    assert_type(await run.rerun({"prompt": "x"}), WorkflowRun)
    assert_type(await run.outputs(), list[Output])
    assert_type(await run.download("out", template="{id}{ext}", overwrite=True), list[Path])


async def files(run: WorkflowRun, store: ObjectStore, stored: MemoryStore) -> None:
    """What it made, as files and objects."""
    assert_type(await run.download(store), list[str])
    assert_type(await run.download(stored), list[str])
    (file,) = assert_type(await run.files(), list[OutputFile])
    assert_type(await file.read(max_bytes=10**6), bytes)
    assert_type(await file.save("out/a.png", overwrite=True), Path)
    async for chunk in file.chunks():
        assert_type(chunk, bytes)


def graphs() -> None:
    """Look at a graph."""
    graph = Graph.load("graph.json").set("5", "seed", 1)
    assert_type(graph, Graph)
    assert_type(graph.parameters, tuple[Parameter, ...])
    assert_type(graph.check({"prompt": "x"}), list[GraphIssue])
    assert_type(graph.check(node_definitions=NodeDefinitions.load("object_info.json")), list[GraphIssue])
    assert_type(graph.to_json(), str)


async def errors(run: WorkflowRun) -> None:
    """Catch errors and read their facts."""
    try:
        await run.wait()
    except WorkflowFailedError as error:
        assert_type(error.node_id, str | None)
        assert_type(error.node_type, str | None)
        assert_type(error.exception_message, str | None)
    except WaitTimeoutError as error:
        assert_type(error.id, str)
        assert_type(error.status, str | None)
        assert_type(error.waited, float)
    except SubmitOutcomeUnknownError as error:
        assert_type(error.candidates, tuple[str, ...])
    except RateLimitWaitError as error:
        assert_type(error.needed, float)
    except GraphError as error:
        assert_type(error.issues, tuple[Any, ...])
    except APIError as error:
        assert_type(error.status, int)
        assert_type(error.request_id, str | None)
        assert_type(error.retry_after, float | None)


def limiters() -> Limiter:
    """Give the limiter of the package where any limiter will do."""
    return LocalLimiter(40, 10.0, pacing="smooth")
