"""The commands about workflows and graphs, as typer sees them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfycontrol_async.cli._options import (
    ENDED,
    EVENTS,
    Command,
    Files,
    GraphFile,
    Id,
    Ids,
    Key,
    Name,
    Output,
    Params,
    Tags,
    Timeout,
    form_of,
    json_of,
    ndjson_of,
    only_one,
)
from comfycontrol_async.cli._params import read_params

if TYPE_CHECKING:
    from comfycontrol_async.cli._run import Submission


class Listed(StrEnum):
    """The statuses that a listing can be narrowed to (API documentation: endpoints/workflows/list)."""

    COMPLETED = "completed"
    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"
    CANCELLED = "cancelled"


ObjectInfo = Annotated[
    str | None,
    typer.Option(metavar="FILE|URL", help="Node definitions: what /object_info of a ComfyUI says, or its URL."),
]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program's."""
    for command in (run, submit, get, wait, cancel, rerun, list_, show, check, types):
        app.command("ls" if command is list_ else None, cls=Command)(command)


def _submission(
    file: Path, params: Params, files: Files, name: str | None, tags: list[str] | None, key: str | None
) -> "Submission":
    from comfycontrol_async.cli._run import Submission

    return Submission(
        file=file,
        params=read_params(params, files),
        name=name,
        tags=tags or [],
        key=key,
    )


def run(
    file: GraphFile,
    params: Params = None,
    files: Files = None,
    output: Output = Path("outputs"),
    name: Name = None,
    tags: Tags = None,
    key: Key = None,
    timeout: Timeout = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for it and download its outputs.")] = True,
    as_json: Annotated[bool, json_of(ENDED)] = False,
    as_ndjson: Annotated[bool, ndjson_of(f"submitted (id, name, status), {EVENTS}")] = False,
) -> None:
    """Run a graph, wait for it, and download what it made.

    Prints the paths of the files. Everything that can be checked without a request is checked first. Ctrl-C stops
    only the waiting: the workflow goes on, and `get ID` comes back to it. With --no-wait it is `submit`.
    """
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._run import run_graph
    from comfycontrol_async.cli._workflows import submit_graph

    submission = _submission(file, params, files, name, tags, key)
    form: Any = form_of(as_json, as_ndjson)
    if not wait:
        execute(submit_graph(submission, form=form))
    execute(run_graph(submission, output, timeout=timeout, form=form))


def submit(
    file: GraphFile,
    params: Params = None,
    files: Files = None,
    name: Name = None,
    tags: Tags = None,
    key: Key = None,
    as_json: Annotated[bool, json_of("id, name, status")] = False,
) -> None:
    """Submit a graph and print the workflow's id."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._workflows import submit_graph

    execute(submit_graph(_submission(file, params, files, name, tags, key), form="json" if as_json else "text"))


def get(
    id: Id,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Download its outputs into this directory.")
    ] = None,
    timeout: Timeout = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    as_json: Annotated[bool, json_of(ENDED)] = False,
    as_ndjson: Annotated[bool, ndjson_of(EVENTS)] = False,
) -> None:
    """Wait for a workflow, and download what it made."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._run import get_workflow

    form: Any = form_of(as_json, as_ndjson)
    execute(get_workflow(id, output, wait=wait, timeout=timeout, form=form))


def wait(
    ids: Ids,
    timeout: Timeout = None,
    as_json: Annotated[bool, json_of(f"a list, for each {ENDED}")] = False,
    as_ndjson: Annotated[bool, ndjson_of(EVENTS)] = False,
) -> None:
    """Wait until workflows have ended; the exit code says whether all completed."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._run import wait_for

    form: Any = form_of(as_json, as_ndjson)
    execute(wait_for(ids, timeout=timeout, form=form))


def cancel(ids: Ids) -> None:
    """Cancel workflows that are queued or running, and print their ids."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._workflows import cancel_workflows

    execute(cancel_workflows(ids))


def rerun(
    id: Id,
    params: Params = None,
    files: Files = None,
    as_json: Annotated[bool, json_of("id, name, status, rerun_of")] = False,
) -> None:
    """Run a workflow again as a new one, with other parameters where they are given, and print the new id."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._workflows import rerun_workflow

    execute(rerun_workflow(id, read_params(params, files), as_json=as_json))


def list_(
    status: Annotated[
        Listed | None,
        typer.Option(metavar="STATUS", help="Only these: completed, running, queued, failed or cancelled."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many at the most.")] = 20,
    as_json: Annotated[bool, json_of("a list of the fields of WorkflowSummary")] = False,
    as_ndjson: Annotated[bool, ndjson_of("workflow (workflow: the fields of WorkflowSummary)")] = False,
) -> None:
    """List workflows, newest first; one request for each hundred."""
    from comfycontrol_async import WorkflowStatus
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._workflows import list_workflows

    form: Any = form_of(as_json, as_ndjson)
    wanted = WorkflowStatus(status.value) if status is not None else None
    execute(list_workflows(wanted, limit, form=form))


def show(id: Id, as_json: Annotated[bool, json_of("the fields of Workflow")] = False) -> None:
    """Show everything that the service knows of a workflow."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._workflows import show_workflow

    execute(show_workflow(id, as_json=as_json))


def check(
    file: GraphFile,
    params: Params = None,
    files: Files = None,
    object_info: ObjectInfo = None,
    runner: Annotated[
        str | None, typer.Option(metavar="ID", help="Take the node definitions from the ComfyUI behind this runner.")
    ] = None,
    as_json: Annotated[
        bool, json_of("parameters (name, kind, default, choices, places) and issues (severity, place, message)")
    ] = False,
) -> None:
    """List a graph's parameters and what is wrong with it. No workflow is made."""
    from comfycontrol_async.cli._check import check_graph
    from comfycontrol_async.cli._execute import execute

    only_one(object_info=object_info, runner=runner)
    given = read_params(params, files)
    execute(
        check_graph(file, given if params or files else None, object_info=object_info, runner=runner, as_json=as_json)
    )


def types(
    files: Annotated[
        list[Path], typer.Argument(help="ComfyUI graphs; each file's name becomes a function's.", metavar="FILE...")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where the module goes; default: stdout.")
    ] = None,
    object_info: ObjectInfo = None,
) -> None:
    """Write a Python module with a typed function for each graph."""
    from comfycontrol_async.cli._check import write_functions
    from comfycontrol_async.cli._execute import execute

    execute(write_functions(files, output, object_info=object_info))
