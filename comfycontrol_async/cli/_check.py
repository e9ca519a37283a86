"""`comfycontrol check` and `types`: what is wrong with a graph, and typed functions for it; no workflow is made."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comfycontrol_async import Graph, GraphError, GraphIssue, NodeDefinitions
from comfycontrol_async.cli._execute import connect
from comfycontrol_async.cli._exit_codes import DONE, USAGE
from comfycontrol_async.cli._files import write_over
from comfycontrol_async.cli._show import print_json, print_labelled, print_note, print_result
from comfycontrol_async.graph.types import write_types


async def check_graph(
    file: Path, params: dict[str, str | Path] | None, *, object_info: str | None, runner: str | None, as_json: bool
) -> int:
    """Print what is wrong with a graph; errors end with exit code 2."""
    graph = await asyncio.to_thread(Graph.load, file)
    definitions = await _definitions(object_info, runner)
    issues = await asyncio.to_thread(graph.check, params, node_definitions=definitions)
    errors = [issue for issue in issues if issue.severity == "error"]
    if as_json:
        print_json({"parameters": list(graph.parameters), "issues": issues})
    else:
        _print(graph, issues)
    return USAGE if errors else DONE


async def _definitions(object_info: str | None, runner: str | None) -> NodeDefinitions | None:
    if object_info is not None and object_info.lower().startswith(("http://", "https://")):
        return await NodeDefinitions.fetch(object_info)
    if object_info is not None:
        return await asyncio.to_thread(NodeDefinitions.load, object_info)
    if runner is None:
        return None
    async with connect() as comfy:
        found = await comfy.runners.get(runner)
    return await NodeDefinitions.fetch(found.endpoint, headers=found.headers)


def _print(graph: Graph, issues: list[GraphIssue]) -> None:
    for parameter in graph.parameters:
        facts: list[Any] = [parameter.kind]
        if parameter.choices:
            facts.append(" | ".join(parameter.choices))
        if parameter.default is not None:
            facts.append(f"default {parameter.default}")
        print_result(f"{parameter.name}  {', '.join(facts)}")
    for issue in issues:
        print_labelled(issue.severity, str(issue))
    if not issues:
        print_note(f"{len(graph.nodes)} nodes, nothing wrong was found")


async def write_functions(files: Sequence[Path], output: Path | None, *, object_info: str | None) -> int:
    """Write a typed function for each graph, to a file or to stdout."""
    graphs = {file.stem: await asyncio.to_thread(Graph.load, file) for file in files}
    if len(graphs) < len(files):
        raise GraphError("two of the files have one name, and so would their functions")
    text = write_types(graphs, node_definitions=await _definitions(object_info, None))
    if output is None:
        print_result(text.removesuffix("\n"))
        return DONE
    await asyncio.to_thread(write_over, output, text)
    return DONE
