"""`comfycontrol map` and `journal`: a table of rows through one graph, resumable, and what its journal holds."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from comfycontrol_async import ComfyControl, ComfyControlError, Graph, GraphError, Journal, MapProgress, MapResult
from comfycontrol_async.cli._execute import check_directory, connect, words_of
from comfycontrol_async.cli._exit_codes import DONE, INTERRUPTED, WORKFLOW_FAILED
from comfycontrol_async.cli._run import Format
from comfycontrol_async.cli._show import (
    bar_over,
    error_console,
    fit,
    follow,
    path_text,
    print_event,
    print_fields,
    print_json,
    print_labelled,
    print_note,
    print_result,
    show_seconds,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

# More failures than this are counted, not printed one by one.
_SHOWN_FAILURES = 10


@attrs.frozen(kw_only=True)
class Table:
    """A batch, as the command line gives it."""

    graph: Path
    rows: Path
    output: Path
    journal: Path
    key: str | None
    name: str
    template: str | None
    tags: Sequence[str]
    concurrency: int
    timeout: float | None
    max_failures: int | None
    retry_failed: bool

    def again(self) -> str:
        """Return the command line that resumes it."""
        options = ["-o", self.output, "--journal", self.journal]
        options += ["--key", self.key] if self.key is not None else []
        options += ["--name", self.name] if self.name != "{key}" else []
        options += ["--template", self.template] if self.template is not None else []
        for tag in self.tags:
            options += ["--tag", tag]
        options += ["--concurrency", self.concurrency] if self.concurrency != 100 else []
        options += ["--timeout", f"{self.timeout:g}"] if self.timeout is not None else []
        options += ["--max-failures", self.max_failures] if self.max_failures is not None else []
        return words_of("map", self.graph, self.rows, *options)


@attrs.define
class Batch:
    """What a batch has done so far."""

    table: Table
    progress: MapProgress
    started: float = attrs.field(factory=lambda: error_console().get_time())
    failures: list[str] = attrs.field(factory=list)
    files: int = 0

    def pieces(self) -> list[str]:
        """Say how far it is, in pieces that no line breaks."""
        now = self.progress
        pieces = [
            f"{now.done} done",
            f"{now.failed} failed" if now.failed else "",
            f"{now.running} running",
            f"{now.submitted} submitted",
            f"{now.read} rows read",
            f"{now.requests} requests",
            f"{now.rate * 60:.0f} a minute" if now.rate else "",
            f"{show_seconds(now.eta)} left" if now.eta is not None else "",
        ]
        if now.waiting_for_limit >= 1:
            pieces.append(f"waiting for the rate limit {show_seconds(now.waiting_for_limit)}")
        return [piece for piece in pieces if piece]

    def tell(self) -> str:
        """Say it in one line; nothing before the first row is read."""
        return ", ".join(self.pieces()) if self.progress.read else ""

    def draw(self) -> "RenderableType":
        """Draw it for a terminal: a bar over as many lines of counts as the width asks for."""
        from rich.progress_bar import ProgressBar

        console = error_console()
        width = max(10, console.width - 1)
        seconds = console.get_time() - self.started
        bar = ProgressBar(total=max(1, self.progress.read), completed=self.progress.done, width=min(width, 60))
        return bar_over(bar, fit([*self.pieces(), show_seconds(seconds)], width))


async def run_table(table: Table, *, form: Format) -> int:
    """Run a graph over the rows of a file; started again with the same journal, it goes on where it was."""
    graph = await asyncio.to_thread(Graph.load, table.graph)
    if errors := [issue for issue in graph.check() if issue.severity == "error"]:
        raise GraphError(f"{str(table.graph)!r} cannot run", issues=errors)
    check_directory(table.output)
    batch = Batch(table, MapProgress())
    async with connect() as comfy:
        try:
            await follow(_walk(comfy, graph, batch, form), batch.draw, batch.tell, tell_every=2.0, transient=True)
        except asyncio.CancelledError:
            print_note(f"interrupted after {', '.join(batch.pieces())}; what runs goes on at the service. To go on:")
            print_note(table.again())
            return INTERRUPTED
        except ComfyControlError:
            if batch.progress.read:  # else the table or the journal is at fault, and the error says all
                print_note(f"stopped after {batch.tell()}. To go on: {table.again()}")
            raise
    return _report(batch, form)


async def _walk(comfy: ComfyControl, graph: Graph, batch: Batch, form: Format) -> None:
    table = batch.table

    def note(progress: MapProgress) -> None:
        batch.progress = progress

    results = comfy.map(
        graph,
        table.rows,
        key=table.key,
        name=table.name,
        tags=table.tags,
        concurrency=table.concurrency,
        download_to=table.output,
        template=table.template,
        journal=table.journal,
        retry_failed=table.retry_failed,
        timeout=table.timeout,
        max_failures=table.max_failures,
        on_progress=note,
    )
    async for result in results:
        _take(result, batch, form)


def _take(result: MapResult, batch: Batch, form: Format) -> None:
    paths = path_text(result.paths or ())
    batch.files += len(paths)
    if form == "ndjson":
        run = result.run
        print_event(
            "row",
            key=result.key,
            index=result.index,
            id=run.id if run is not None else None,
            status=run.status if run is not None else None,
            paths=paths,
            error=str(result.error) if result.error is not None else None,
        )
    elif form == "text":
        for path in paths:
            print_result(path)
    if result.error is not None:
        batch.failures.append(f"row {result.key}: {result.error}")
        if len(batch.failures) <= _SHOWN_FAILURES and form != "ndjson":
            print_labelled("error", batch.failures[-1])


def _report(batch: Batch, form: Format) -> int:
    now = batch.progress
    counts = {"rows": now.read, "done": now.done, "failed": now.failed, "files": batch.files, "requests": now.requests}
    if form == "json":
        print_json(counts)
    elif form == "ndjson":
        print_event("done", **counts)
    if len(batch.failures) > _SHOWN_FAILURES:
        print_note(f"and {len(batch.failures) - _SHOWN_FAILURES} failures more")
    seconds = error_console().get_time() - batch.started
    print_note(f"{now.done} rows in {show_seconds(seconds)}, {now.failed} failed, {batch.files} files")
    if not now.failed:
        return DONE
    print_note(f"to try the failed rows again: {batch.table.again()} --retry-failed")
    return WORKFLOW_FAILED


async def show_journal(file: Path, state: str | None, *, as_json: bool) -> int:
    """Show what a journal holds: how many rows are in which state, or the rows of one state."""

    def look() -> dict[str, int] | list[object]:
        with Journal.open(file) as journal:
            return journal.summary() if state is None else list(journal.rows(state))

    found = await asyncio.to_thread(look)
    if isinstance(found, list):
        for row in found:
            print_json(row, indent=None)
    elif as_json:
        print_json(found)
    else:
        print_fields({name: str(number) for name, number in found.items()})
    return DONE
