"""The commands of `comfycontrol` as typer sees them; what they do is in the other modules, imported when called."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from comfycontrol_async import __version__
from comfycontrol_async.cli._execute import execute, log_to_stderr

app = typer.Typer(
    help="Run ComfyUI graphs on ComfyControl within its rate limit.",
    epilog="The API token is read from the environment variable COMFYCONTROL_API_TOKEN.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,  # they show local variables, a token among them
)


class Edge(StrEnum):
    """How the server counts requests."""

    EXACT = "exact"
    COUNTER = "counter"
    FIXED = "fixed"


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it must be finite")
    return value


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"comfycontrol {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr what the client does.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run ComfyUI graphs on ComfyControl within its rate limit."""
    context.call_on_close(log_to_stderr(verbose=verbose))


@app.command()
def demo(
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=999, help="How many prompts to run.")] = 60,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the PNG files go.")] = Path("comfycontrol-demo"),
    speed: Annotated[float, typer.Option(min=0.01, callback=_finite, help="Server seconds in one real second.")] = 1.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Run many prompts on a server of this machine that has the real rate limit; no token or GPU is needed.

    It starts the server, runs a text-to-image graph with COUNT different prompts, downloads the images, verifies
    that each carries its prompt, and tells what that cost. Files of an earlier demo are replaced.
    """
    from comfycontrol_async.cli._demo import run_demo

    execute(run_demo(count, output, speed=speed, keep=keep))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A ComfyUI graph in API format (a JSON file).", metavar="FILE")],
    params: Annotated[
        list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="A text or a choice of the graph.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("-f", "--file", metavar="NAME=PATH", help="A file of the graph.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the outputs go.")] = Path("outputs"),
    name: Annotated[str | None, typer.Option(help="The workflow's name; default: the file's.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag that its runner must have.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, callback=_finite, help="Seconds to wait; default: as long as it takes.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for it and download its outputs.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> None:
    """Run a graph, wait for it, and download what it made.

    Prints the paths of the files, or with --no-wait the workflow's id. Everything that can be checked without a
    request is checked first. Ctrl-C stops only the waiting: the workflow goes on.
    """
    from comfycontrol_async.cli._pairs import read_params
    from comfycontrol_async.cli._run import Job, run_job
    from comfycontrol_async.graph import name_of

    job = Job(
        file=file,
        params=read_params(params or [], files or []),
        output=output,
        name=name_of(file) if name is None else name,
        tags=tags or [],
        timeout=timeout,
        wait=wait,
        as_json=as_json,
    )
    execute(run_job(job))


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Requests that pass in any period.")] = 40,
    period: Annotated[float, typer.Option(min=0.001, callback=_finite, help="Seconds of the period.")] = 10.0,
    cooldown: Annotated[
        float, typer.Option(min=0, callback=_finite, help="Seconds of refusal after one request too many.")
    ] = 10.0,
    edge: Annotated[Edge, typer.Option(help="How the server counts requests.")] = Edge.EXACT,
    speed: Annotated[float, typer.Option(min=0.01, callback=_finite, help="Server seconds in one real second.")] = 1.0,
) -> None:
    """Run a ComfyControl service on this machine, to try programs against, until Ctrl-C."""
    from comfycontrol_async.cli._serve import run_server

    execute(run_server(port=port, limit=limit, period=period, cooldown=cooldown, edge=edge.value, speed=speed))


@app.command()
def whoami() -> None:
    """Show whose token it is."""
    from comfycontrol_async.cli._whoami import show_user

    execute(show_user())
