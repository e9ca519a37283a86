"""The commands of `comfycontrol` as typer sees them; what they do is in the other modules, imported when called."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from comfycontrol_async import __version__
from comfycontrol_async.cli import _app_account, _app_batch, _app_workflows
from comfycontrol_async.cli._options import Command, finite, json_of, make_app

app = make_app(
    "Run ComfyUI graphs on ComfyControl within its rate limit.",
    epilog="The API token is read from the environment variable COMFYCONTROL_API_TOKEN, or from --token-file. "
    "Exit codes: 0 done, 1 any other error, 2 usage, 3 a workflow failed, 4 authentication, 5 rate limit, 6 timed out, "
    "7 cannot connect, 130 interrupted.",
)
_app_workflows.add_to(app)
_app_batch.add_to(app)
_app_account.add_to(app)


class Edge(StrEnum):
    """How the server counts requests."""

    EXACT = "exact"
    COUNTER = "counter"
    FIXED = "fixed"


class Outcome(StrEnum):
    """How workflows of the server end."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INVALID = "invalid"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"comfycontrol {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr what the client does.")] = False,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Read the API token from a file.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run ComfyUI graphs on ComfyControl within its rate limit."""
    from comfycontrol_async.cli._execute import log_to_stderr, settings

    settings.verbose, settings.token_file = verbose, token_file
    context.call_on_close(log_to_stderr(verbose=verbose))


@app.command(cls=Command)
def demo(
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=999, metavar="N", help="How many prompts to run.")
    ] = 60,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the PNG files go.")] = Path(
        "comfycontrol-demo"
    ),
    speed: Annotated[
        float, typer.Option(min=0.01, callback=finite, metavar="N", help="Server seconds in one real second.")
    ] = 1.0,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running afterwards, until Ctrl-C.")] = False,
) -> None:
    """Run many prompts on a server of this machine that has the real rate limit; no token or GPU is needed.

    It starts the server, runs a text-to-image graph with N different prompts, downloads the images, verifies
    that each carries its prompt, and says what that cost. Files of an earlier demo are replaced.
    """
    from comfycontrol_async.cli._demo import run_demo
    from comfycontrol_async.cli._execute import execute

    execute(run_demo(count, output, speed=speed, keep=keep))


@app.command(cls=Command)
def serve(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="The port; 0 takes a free one.")] = 0,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Requests that pass in any period.")] = 40,
    no_limit: Annotated[bool, typer.Option("--no-limit", help="Refuse no request.")] = False,
    period: Annotated[
        float, typer.Option(min=0.001, callback=finite, metavar="SECONDS", help="Length of the period.")
    ] = 10.0,
    cooldown: Annotated[
        float, typer.Option(min=0, callback=finite, metavar="SECONDS", help="Refusal after one request too many.")
    ] = 10.0,
    edge: Annotated[Edge, typer.Option(metavar="KIND", help="How requests are counted: exact, counter, fixed.")] = (
        Edge.EXACT
    ),
    speed: Annotated[
        float, typer.Option(min=0.01, callback=finite, metavar="N", help="Server seconds in one real second.")
    ] = 1.0,
    token: Annotated[str | None, typer.Option(metavar="TOKEN", help="The token to accept; default: a new one.")] = None,
    latency: Annotated[
        float, typer.Option(min=0, callback=finite, metavar="SECONDS", help="The round trip of a request.")
    ] = 0.0,
    loss: Annotated[
        float, typer.Option(min=0, max=1, callback=finite, metavar="SHARE", help="Requests closed unanswered, 0 to 1.")
    ] = 0.0,
    outcome: Annotated[
        Outcome, typer.Option(metavar="STATUS", help="How workflows end: completed, failed, cancelled, invalid.")
    ] = Outcome.COMPLETED,
    comfyui: Annotated[str | None, typer.Option(metavar="URL", help="Run workflows on the real ComfyUI there.")] = None,
    headers: Annotated[
        list[str] | None,
        typer.Option("--comfyui-header", metavar="'NAME: VALUE'", help="A header that this ComfyUI asks for."),
    ] = None,
) -> None:
    """Run a ComfyControl service on this machine, to try programs against, until Ctrl-C."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._params import read_headers
    from comfycontrol_async.cli._serve import run_server

    execute(
        run_server(
            host=host,
            port=port,
            limit=None if no_limit else limit,
            period=period,
            cooldown=cooldown,
            edge=edge.value,
            speed=speed,
            token=token,
            latency=latency,
            loss=loss,
            outcome=outcome.value,
            comfyui=comfyui,
            comfyui_headers=read_headers(headers, "--comfyui-header"),
        )
    )


@app.command(cls=Command)
def whoami(as_json: Annotated[bool, json_of("the fields of User")] = False) -> None:
    """Show whose token it is."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._whoami import show_user

    execute(show_user(as_json=as_json))


@app.command(cls=Command)
def limits(
    once: Annotated[bool, typer.Option("--once", help="Print it once, also on a terminal.")] = False,
    as_json: Annotated[bool, json_of("the fields of RateLimitSnapshot, in seconds")] = False,
) -> None:
    """Show how much of the rate limit the programs of this machine use; no request is made."""
    from comfycontrol_async.cli._execute import execute
    from comfycontrol_async.cli._limits import show_limits

    execute(show_limits(once=once, as_json=as_json))


@app.command(cls=Command)
def doctor(as_json: Annotated[bool, json_of("a list of level (ok, warn, fail), topic, text")] = False) -> None:
    """Find out what is set, what works, and what to do about what does not. One request."""
    from comfycontrol_async.cli._doctor import examine
    from comfycontrol_async.cli._execute import execute

    execute(examine(as_json=as_json))
