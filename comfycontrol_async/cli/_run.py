"""`comfycontrol run`: one graph, from the file to its outputs."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import typer

from comfycontrol_async import ComfyControl, DownloadError, Graph, GraphError, WorkflowRun
from comfycontrol_async.cli._execute import INTERRUPTED, check_directory, connect
from comfycontrol_async.cli._show import error_console, follow, print_note

if TYPE_CHECKING:
    from rich.console import RenderableType

# The id keeps the files of two runs of one graph apart.
_FILE_NAMES = "{name}-{id:.8}-{index:03}{ext}"


@attrs.frozen(kw_only=True)
class Job:
    """What the command line asks for."""

    file: Path
    params: dict[str, str | Path]
    output: Path
    name: str
    tags: Sequence[str]
    timeout: float | None
    wait: bool
    as_json: bool


@attrs.define
class _Progress:
    """How far a job has come."""

    started: float
    run: WorkflowRun | None = None
    paths: list[Path] | None = None

    @property
    def finished(self) -> bool:
        return self.run is not None and self.run.status is not None and self.run.status.terminal


async def run_job(job: Job) -> int:
    """Check the job, run it and print what it made."""
    graph = await asyncio.to_thread(_check, job)
    progress = _Progress(error_console().get_time())
    async with connect() as comfy:

        def tell() -> str:
            return _describe(progress, comfy)

        def draw() -> "RenderableType":
            return _animate(progress, comfy)

        try:
            await follow(_work(comfy, graph, job, progress), draw, tell, tell_every=0.2, transient=True)
        except asyncio.CancelledError:
            print_note(_farewell(progress, job))
            return INTERRUPTED
        except DownloadError as error:
            _print_paths(error.saved)
            raise
    _report(progress, job)
    return 0


def _check(job: Job) -> Graph:
    """Do everything that needs no request.

    Raises:
        GraphError: the graph or a parameter cannot run.
        DownloadError: the outputs would have nowhere to go.
    """
    graph = Graph.load(job.file)
    issues = graph.check(job.params)
    if any(issue.severity == "error" for issue in issues):
        raise GraphError(f"{str(job.file)!r} cannot run", issues=issues)
    if job.wait:
        check_directory(job.output)
    return graph


async def _work(comfy: ComfyControl, graph: Graph, job: Job, progress: _Progress) -> None:
    run = progress.run = await comfy.submit(graph, name=job.name, params=job.params, tags=job.tags)
    if job.wait:
        await run.wait(job.timeout)
        progress.paths = await run.download(job.output, template=_FILE_NAMES)


def _describe(progress: _Progress, comfy: ComfyControl) -> str:
    """Say how the job gets on, in words that change only when something has happened."""
    run = progress.run
    if run is None:
        text = "submitting"
    elif progress.finished:
        text = f"{run.status}, downloading" if run.status == "completed" and progress.paths is None else f"{run.status}"
    else:
        place = run.workflow.queue_number if run.workflow and run.status == "queued" else None
        text = f"{run.status}" + (f", place {place} in the queue" if place is not None else "")
    return text + (", held up by the rate limit" if comfy.limiter.snapshot().cooldown else "")


def _animate(progress: _Progress, comfy: ComfyControl) -> "RenderableType":
    from rich.spinner import Spinner

    console = error_console()
    elapsed = console.get_time() - progress.started
    cooldown = comfy.limiter.snapshot().cooldown
    wait = f" for {cooldown:.0f} s" if cooldown else ""
    spinner = Spinner("dots" if console.encoding.startswith("utf") else "line")
    spinner.start_time = progress.started
    spinner.update(text=f"{_describe(progress, comfy)}{wait}, {elapsed:.0f} s")
    return spinner


def _farewell(progress: _Progress, job: Job) -> str:
    """Say what becomes of the workflow after Ctrl-C."""
    run = progress.run
    if run is None:
        return f"interrupted while submitting: if workflow {job.name!r} was created, it goes on at the service"
    if progress.finished:
        return f"interrupted: workflow {run.id} is {run.status}, its outputs stay at the service"
    return f"interrupted: workflow {run.id} goes on at the service"


def _report(progress: _Progress, job: Job) -> None:
    run, paths = progress.run, progress.paths or []
    assert run is not None  # the work is done
    seconds = error_console().get_time() - progress.started
    if job.as_json:
        facts: dict[str, object] = {"id": run.id, "name": run.name, "status": run.status, "seconds": round(seconds, 3)}
        typer.echo(json.dumps({**facts, "paths": [str(path) for path in paths]}))
    elif job.wait:
        print_note(f"workflow {run.id} {run.status} in {seconds:.1f} s" + ("" if paths else ", without outputs"))
        _print_paths(paths)
    else:
        print_note(f"workflow {run.name!r} is {run.status}; its id:")
        typer.echo(run.id)


def _print_paths(paths: Sequence[Path]) -> None:
    for path in paths:
        typer.echo(path)
