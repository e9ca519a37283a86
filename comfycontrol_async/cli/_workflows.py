"""Commands about workflows that need a request each: submit, cancel, rerun, ls and show."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from comfycontrol_async import ComfyControlError, Workflow, WorkflowStatus, WorkflowSummary
from comfycontrol_async.cli._execute import connect, words_of
from comfycontrol_async.cli._exit_codes import DONE, exit_code_of
from comfycontrol_async.cli._run import Format, Submission, check_submission, submit
from comfycontrol_async.cli._show import (
    print_error,
    print_event,
    print_fields,
    print_json,
    print_note,
    print_result,
    print_table,
    show_time,
)


async def submit_graph(submission: Submission, *, form: Format) -> int:
    """Submit a graph and print the workflow's id."""
    graph = await asyncio.to_thread(check_submission, submission)
    async with connect() as comfy:
        run = await submit(comfy, graph, submission)
    facts = {"id": run.id, "name": run.name, "status": run.status}
    if form == "json":
        print_json(facts)
    elif form == "ndjson":
        print_event("submitted", **facts)
    else:
        print_note(f"workflow {run.name!r} is {run.status}; {words_of('get', run.id)} waits for it")
        print_result(run.id)
    return DONE


async def cancel_workflows(ids: Sequence[str]) -> int:
    """Cancel workflows; the exit code is that of the first that could not be."""
    code = DONE
    async with connect() as comfy:
        for id in dict.fromkeys(ids):
            try:
                await comfy.workflows.cancel(id)
                print_result(id)
            except ComfyControlError as error:
                print_error(error)
                code = code or exit_code_of(error)
    return code


async def rerun_workflow(id: str, params: dict[str, str | Path], *, as_json: bool) -> int:
    """Run a workflow again as a new one and print the new id."""
    async with connect() as comfy:
        run = await comfy.get_run(id).rerun(params or None)
    if as_json:
        print_json({"id": run.id, "name": run.name, "status": run.status, "rerun_of": id})
    else:
        print_note(f"workflow {run.name!r} is {run.status}; {words_of('get', run.id)} waits for it")
        print_result(run.id)
    return DONE


async def list_workflows(status: WorkflowStatus | None, limit: int, *, form: Format) -> int:
    """List workflows, newest first."""
    found: list[WorkflowSummary] = []
    async with connect() as comfy:
        async for workflow in comfy.workflows.list(status=status, per_page=min(limit, 100)):
            found.append(workflow)
            if form == "ndjson":
                print_event("workflow", workflow=workflow)
            if len(found) == limit:
                break
    if form == "json":
        print_json(found)
    elif form == "text":
        rows = [
            {"id": one.id, "status": str(one.status), "created": show_time(one.created_at), "name": one.name}
            for one in found
        ]
        print_table(rows, empty="there are no workflows")
    return DONE


async def show_workflow(id: str, *, as_json: bool) -> int:
    """Show everything that the service knows of a workflow."""
    async with connect() as comfy:
        workflow = await comfy.workflows.get(id)
    if as_json:
        print_json(workflow)
        return DONE
    print_fields(_fields(workflow))
    return DONE


def _fields(workflow: Workflow) -> dict[str, str]:
    runner = workflow.user_runner_id or workflow.managed_runner_id
    fields = {
        "id": workflow.id,
        "name": workflow.name,
        "status": str(workflow.status),
        "tags": ", ".join(workflow.tags),
        "runner": runner or "",
        "queue place": str(workflow.queue_number or "") if workflow.status == WorkflowStatus.QUEUED else "",
        "created": show_time(workflow.created_at),
        "started": show_time(workflow.started_at),
        "completed": show_time(workflow.completed_at),
        "parameters": ", ".join(f"{name} = {value}" for name, value, *_ in filter(_is_pair, workflow.workflow_params)),
        "failed node": workflow.error_node or "",
        "exception": ": ".join(filter(None, (workflow.exception_type, workflow.exception_message))),
    }
    return {label: text for label, text in fields.items() if text not in ("", "-")}


def _is_pair(pair: Sequence[object]) -> bool:
    return len(pair) >= 2
