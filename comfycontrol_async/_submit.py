"""Submit: create a workflow so that it is neither lost nor doubled."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from comfycontrol_async.graph import Graph, name_of
from comfycontrol_async.resources._calls import GraphSource
from comfycontrol_async.resources.workflows import workflow_form
from comfycontrol_async.runs import RunTools, WorkflowRun


async def submit(
    tools: RunTools,
    graph: GraphSource,
    *,
    name: str | None,
    params: Mapping[str, Any] | None,
    tags: Iterable[str],
) -> WorkflowRun:
    """Create a workflow and return its handle; see `ComfyControl.submit`."""
    chosen = name_of(graph) if name is None else name
    known = graph if isinstance(graph, Graph) else await asyncio.to_thread(Graph.coerce, graph)
    form = await asyncio.to_thread(workflow_form, known, chosen, params, tags)
    summary = await tools.workflows.post(form, chosen)
    return WorkflowRun(tools, summary.id, summary=summary, graph=known)
