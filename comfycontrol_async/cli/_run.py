"""`comfycontrol run`, `get` and `wait`: follow workflows to their end, and fetch what they made."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from comfycontrol_async import (
    AuthenticationError,
    ComfyControl,
    ComfyControlError,
    DownloadError,
    Graph,
    GraphError,
    NotFoundError,
    WorkflowRun,
)
from comfycontrol_async.cli._execute import check_directory, connect, words_of
from comfycontrol_async.cli._exit_codes import DONE, INTERRUPTED, exit_code_of
from comfycontrol_async.cli._show import (
    error_console,
    fit,
    follow,
    path_text,
    print_error,
    print_event,
    print_json,
    print_note,
    print_result,
    show_seconds,
)
from comfycontrol_async.graph import name_of

if TYPE_CHECKING:
    from rich.console import RenderableType

Format = Literal["text", "json", "ndjson"]

# The id keeps the files of two runs of one graph apart.
FILE_NAMES = "{name}-{id:.8}-{index:03}{ext}"


@attrs.frozen(kw_only=True)
class Submission:
    """A graph to submit, as the command line gives it."""

    file: Path
    params: dict[str, str | Path]
    name: str | None
    tags: Sequence[str]
    key: str | None


@attrs.define(kw_only=True)
class Followed:
    """A workflow that a command follows, and how far it has come."""

    run: WorkflowRun | None = None
    name: str = ""
    paths: list[Path] | None = None
    error: ComfyControlError | None = None
    ended: bool = False

    @property
    def finished(self) -> bool:
        """Whether the service has nothing more to do for it."""
        return self.run is not None and self.run.status is not None and self.run.status.terminal

    def state(self) -> str:
        """Say in a few words where it stands."""
        run = self.run
        if run is None:
            return "submitting"
        if self.error is None and not self.ended and run.status == "completed":
            return "completed, downloading"
        place = run.workflow.queue_number if run.workflow and run.status == "queued" else None
        return f"{run.status or 'asking'}" + (f", place {place} in the queue" if place is not None else "")


@attrs.define
class Screen:
    """What `run`, `get` and `wait` show while they wait."""

    comfy: ComfyControl
    followed: Sequence[Followed]
    started: float = attrs.field(factory=lambda: error_console().get_time())

    @property
    def elapsed(self) -> float:
        """Seconds since the command began."""
        return error_console().get_time() - self.started

    def pieces(self) -> list[str]:
        """Say how everything gets on, in words that change only when something has happened."""
        if len(self.followed) == 1:
            found = self.followed[0].state().split(", ")
        else:
            counts: dict[str, int] = {}
            for one in self.followed:
                word = one.state().partition(",")[0]
                counts[word] = counts.get(word, 0) + 1
            found = [f"{number} {word}" for word, number in counts.items()]
        if self.comfy.limiter.snapshot().cooldown:
            found.append("held up by the rate limit")
        return found

    def tell(self) -> str:
        """Say it in one line."""
        return ", ".join(self.pieces())

    def draw(self) -> "RenderableType":
        """Draw it for a terminal, with the seconds that pass."""
        from rich.spinner import Spinner

        console = error_console()
        cooldown = self.comfy.limiter.snapshot().cooldown
        pieces = [
            f"waiting for the rate limit {show_seconds(cooldown)}" if piece == "held up by the rate limit" else piece
            for piece in self.pieces()
        ]
        spinner = Spinner("dots" if console.encoding.startswith("utf") else "line")
        spinner.start_time = self.started
        lines = fit([*pieces, show_seconds(self.elapsed)], console.width - 2)
        spinner.update(text="\n  ".join(lines))
        return spinner


def check_submission(submission: Submission) -> Graph:
    """Check a graph and its parameters, with no request; blocking.

    Raises:
        GraphError: the graph or a parameter cannot run.
    """
    graph = Graph.load(submission.file)
    issues = graph.check(submission.params)
    if any(issue.severity == "error" for issue in issues):
        raise GraphError(f"{str(submission.file)!r} cannot run", issues=issues)
    return graph


async def submit(comfy: ComfyControl, graph: Graph, submission: Submission) -> WorkflowRun:
    """Submit a graph that was checked; without a name it gets that of its file."""
    source = submission.file if submission.name is None else graph
    return await comfy.submit(
        source, name=submission.name, params=submission.params, tags=submission.tags, key=submission.key
    )


async def run_graph(submission: Submission, output: Path, *, timeout: float | None, form: Format) -> int:
    """Submit a graph, wait for it, download its outputs and print their paths."""
    graph = await asyncio.to_thread(check_submission, submission)
    check_directory(output)
    one = Followed(name=submission.name or name_of(submission.file))
    async with connect() as comfy:

        async def work() -> None:
            one.run = await submit(comfy, graph, submission)
            if form == "ndjson":
                print_event("submitted", id=one.run.id, name=one.run.name, status=one.run.status)
            await _finish(one, output, timeout=timeout, form=form)

        return await _follow(comfy, [one], work(), form=form, again="get")


async def get_workflow(id: str, output: Path | None, *, wait: bool, timeout: float | None, form: Format) -> int:
    """Wait for a workflow by its id, and download its outputs where a directory is given."""
    if output is not None:
        check_directory(output)
    async with connect() as comfy:
        one = Followed(run=comfy.get_run(id))
        if not wait:
            assert one.run is not None
            await one.run.refresh()
            one.ended = True
            if output is not None:
                one.paths = await one.run.download(output, template=FILE_NAMES)
            _report([one], 0.0, form)
            return DONE
        return await _follow(comfy, [one], _finish(one, output, timeout=timeout, form=form), form=form, again="get")


async def wait_for(ids: Sequence[str], *, timeout: float | None, form: Format) -> int:
    """Wait until every workflow has ended; the exit code is that of the first that did not complete."""
    async with connect() as comfy:
        followed = [Followed(run=comfy.get_run(id)) for id in dict.fromkeys(ids)]

        async def work() -> None:
            await asyncio.gather(*(_finish(one, None, timeout=timeout, form=form, keep=True) for one in followed))

        return await _follow(comfy, followed, work(), form=form, again="wait")


async def _finish(
    one: Followed, output: Path | None, *, timeout: float | None, form: Format, keep: bool = False
) -> None:
    """Follow one workflow to its end and fetch its outputs; with `keep` an error is kept instead of raised."""
    run = one.run
    assert run is not None  # made before it is followed
    try:
        async with _printing(run, form):
            await run.wait(timeout)
        if output is not None:
            one.paths = await run.download(output, template=FILE_NAMES)
    except ComfyControlError as error:
        one.error = error
        if not keep:
            raise
    finally:
        one.ended = one.error is not None or one.finished


@asynccontextmanager
async def _printing(run: WorkflowRun, form: Format) -> AsyncIterator[None]:
    """Print every change of a workflow as an event, for `--ndjson`; it costs no further request."""

    async def walk() -> None:
        with suppress(ComfyControlError):  # the wait beside it raises the same
            async for update in run.updates():
                print_event("status", id=run.id, status=update.status, queue_number=update.queue_number)

    if form != "ndjson":
        yield
        return
    task = asyncio.create_task(walk())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _follow(
    comfy: ComfyControl, followed: Sequence[Followed], work: Coroutine[Any, Any, None], *, form: Format, again: str
) -> int:
    """Show how the work gets on, and report how it ended."""
    screen = Screen(comfy, followed)
    try:
        await follow(work, screen.draw, screen.tell, tell_every=0.2, transient=True)
    except asyncio.CancelledError:
        print_note(farewell(followed, again))
        return INTERRUPTED
    except ComfyControlError as error:
        if isinstance(error, DownloadError) and form == "text":
            for path in error.saved:
                print_result(str(path))
        _report_error(followed, error, form, again)
        if form == "json":  # the id of what was paid for, for programs too
            followed[0].error, followed[0].paths = error, getattr(error, "saved", None)
            print_json(_facts(followed[0], screen.elapsed))
        return exit_code_of(error)
    _report(followed, screen.elapsed, form, many=again == "wait")
    return next((exit_code_of(one.error) for one in followed if one.error is not None), DONE)


def farewell(followed: Sequence[Followed], again: str) -> str:
    """Say after Ctrl-C what goes on at the service, and how to come back to it."""
    (first, *others) = followed
    if first.run is None:
        return (
            f"interrupted while submitting: if workflow {first.name!r} was created, it goes on at the service; "
            f"{words_of('ls')} shows it"
        )
    ids = [one.run.id for one in followed if one.run is not None and not one.finished]
    if not ids:
        what = "its outputs stay" if not others else "their outputs stay"
        return f"interrupted: workflow {first.run.id} is {first.run.status}, {what} at the service"
    label = f"workflow {ids[0]} goes" if len(ids) == 1 else f"{len(ids)} workflows go"
    return f"interrupted: {label} on at the service; {words_of(again, *ids)}"


def _report_error(followed: Sequence[Followed], error: ComfyControlError, form: Format, again: str) -> None:
    print_error(error)
    runs = [one.run for one in followed if one.run is not None]
    if form == "ndjson":
        ids = [run.id for run in runs]
        print_event("error", id=ids[0] if len(ids) == 1 else None, error=type(error).__name__, message=str(error))
    unfinished = [run.id for run in runs if run.status is None or not run.status.terminal]
    if unfinished and not isinstance(error, DownloadError | NotFoundError | AuthenticationError):
        print_note(f"it may go on at the service; {words_of(again, *unfinished)}")
    elif isinstance(error, DownloadError) and runs:
        print_note(f"its outputs stay at the service; {words_of(f'get {runs[0].id} -o', 'DIR')}")


def _facts(one: Followed, seconds: float) -> dict[str, object]:
    run = one.run
    facts: dict[str, object] = {"id": None, "name": one.name, "status": None, "seconds": round(seconds, 3)}
    if run is not None:  # else it was not submitted
        facts |= {"id": run.id, "name": run.name, "status": run.status}
    facts["paths"] = path_text(one.paths or ())
    if one.error is not None:
        facts["error"] = str(one.error)
    return facts


def _report(followed: Sequence[Followed], seconds: float, form: Format, *, many: bool = False) -> None:
    if form == "json":
        found = [_facts(one, seconds) for one in followed]
        print_json(found if many else found[0])
        return
    for one in followed:
        run = one.run
        assert run is not None  # the work is done
        if form == "ndjson":
            print_event("ended", **_facts(one, seconds))
            continue
        if one.error is not None:
            print_error(one.error)
        elif seconds:
            tail = "" if one.paths or one.paths is None else ", without outputs"
            print_note(f"workflow {run.id} {run.status} in {show_seconds(seconds)}{tail}")
        if one.paths is None:
            print_result(f"{run.id}  {run.status or 'unknown'}")
        for path in one.paths or ():
            print_result(str(path))
