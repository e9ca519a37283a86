"""`comfycontrol serve`: a LocalServer in the shell."""

import asyncio
from typing import TYPE_CHECKING

import typer

from comfycontrol_async import ConfigurationError
from comfycontrol_async.cli._execute import BASE_URL_VARIABLE, TOKEN_VARIABLE
from comfycontrol_async.cli._show import print_note

if TYPE_CHECKING:
    from comfycontrol_async.testing import LocalServer


async def run_server(*, port: int, limit: int, period: float, cooldown: float, edge: str, speed: float) -> int:
    """Serve until Ctrl-C, which is how it ends and no failure."""
    from comfycontrol_async.testing import LocalServer

    server = LocalServer(port=port, limit=limit, period=period, cooldown=cooldown, edge=edge, speed=speed)
    try:
        await server.start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on port {port}: {error.strerror or error}") from error
    try:
        describe(server)
        await until_interrupted()
    finally:
        await server.stop()
    print_note(f"{len(server.requests)} requests, {server.refused} times 429, {len(server.workflows)} workflows")
    return 0


def describe(server: "LocalServer") -> None:
    """Print how to reach a server, in a form that a shell can take."""
    typer.echo(f"url    {server.url}")
    typer.echo(f"token  {server.token}")
    typer.echo(f"limit  {server.limit} requests per {server.period:g} s, cooldown {server.cooldown:g} s")
    typer.echo()
    typer.echo(f"export {TOKEN_VARIABLE}={server.token}")
    typer.echo(f"export {BASE_URL_VARIABLE}={server.url}")
    print_note("serving until Ctrl-C")


async def until_interrupted() -> None:
    """Wait for Ctrl-C."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print_note("")  # the terminal has just shown ^C on this line
