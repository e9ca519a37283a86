"""Commands about templates: stored graphs."""

import asyncio
import json
from pathlib import Path

from comfycontrol_async import Graph
from comfycontrol_async.cli._execute import connect
from comfycontrol_async.cli._exit_codes import DONE
from comfycontrol_async.cli._files import write_new
from comfycontrol_async.cli._show import print_fields, print_json, print_note, print_result, print_table, show_time


async def list_templates(*, as_json: bool) -> int:
    """List your templates."""
    async with connect() as comfy:
        found = await comfy.templates.list().all()
    if as_json:
        print_json(found)
        return DONE
    rows = [
        {"id": one.id, "created": show_time(one.created_at), "name": one.name, "description": one.description}
        for one in found
    ]
    print_table(rows, empty="there are no templates; store one with: comfycontrol templates push FILE")
    return DONE


async def show_template(id: str, output: Path | None, *, as_json: bool) -> int:
    """Show a template; its graph is written to a file, or printed with --json."""
    async with connect() as comfy:
        template = await comfy.templates.get(id)
    if output is not None:
        text = json.dumps(template.body, indent=2, ensure_ascii=False) + "\n"
        await asyncio.to_thread(write_new, output, text)
        print_note(f"the graph of {template.name!r} is in {output}")
    if as_json:
        print_json(template)
        return DONE
    graph = template.graph
    print_fields(
        {
            "id": template.id,
            "name": template.name,
            "description": template.description,
            "nodes": str(len(graph.nodes)),
            "parameters": ", ".join(f"{one.name} ({one.kind})" for one in graph.parameters) or "-",
            "created": show_time(template.created_at),
            "updated": show_time(template.updated_at),
        }
    )
    return DONE


async def push_template(file: Path, name: str, description: str, *, as_json: bool) -> int:
    """Store a graph as a new template and print its id."""
    graph = await asyncio.to_thread(Graph.load, file)
    async with connect() as comfy:
        template = await comfy.templates.create(name, description, graph)
    if as_json:
        print_json(template)
    else:
        print_result(template.id)
    return DONE


async def update_template(
    id: str, file: Path | None, name: str | None, description: str | None, *, as_json: bool
) -> int:
    """Change what is given of a template and print its id."""
    graph = await asyncio.to_thread(Graph.load, file) if file is not None else None
    async with connect() as comfy:
        template = await comfy.templates.update(id, name=name, description=description, graph=graph)
    if as_json:
        print_json(template)
    else:
        print_result(template.id)
    return DONE
