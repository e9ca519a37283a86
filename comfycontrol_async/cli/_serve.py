"""`comfycontrol serve`: a LocalServer in the shell."""

import asyncio
from typing import TYPE_CHECKING, Any

from comfycontrol_async import ConfigurationError
from comfycontrol_async.cli._execute import BASE_URL_VARIABLE
from comfycontrol_async.cli._exit_codes import TOKEN_VARIABLE
from comfycontrol_async.cli._show import print_note, print_result, sanitize

if TYPE_CHECKING:
    from comfycontrol_async.testing import LocalServer, RequestRecord

# Seconds between two looks at what arrived.
_LOG_EVERY = 0.1


async def run_server(*, outcome: str, latency: float, limit: int | None, **options: Any) -> int:
    """Serve until Ctrl-C, which is how it ends and no failure; every request is a line on stderr."""
    from comfycontrol_async.testing import ComfyUIError, LocalServer

    given = {name: value for name, value in options.items() if value is not None}
    try:
        server = LocalServer(outcome=lambda _: outcome, latency=latency or None, limit=limit, **given)
        await server.start()
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"cannot listen on {options['host']} port {options['port']}: {reason}") from error
    except (ComfyUIError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    try:
        describe(server, limited=limit is not None)
        await _log_requests(server)
    except asyncio.CancelledError:
        print_note("")  # the terminal has just shown ^C on this line
    finally:
        await server.stop()
    print_note(f"{len(server.requests)} requests, {server.refused} times 429, {len(server.workflows)} workflows")
    return 0


async def _log_requests(server: "LocalServer") -> None:
    """Print each request once it was answered or dropped; one that takes long holds up no other."""
    known, pending = 0, list["RequestRecord"]()
    while True:
        arrived = server.requests[known:]
        known += len(arrived)
        looked_at, pending = [*pending, *arrived], []
        for one in looked_at:
            if one.status is None and not one.dropped:
                pending.append(one)
                continue
            print_note(f"{one.at:8.2f} s  {one.status or 'lost'}  {one.method} {sanitize(one.path)}")
        await asyncio.sleep(_LOG_EVERY)


def describe(server: "LocalServer", *, limited: bool = True) -> None:
    """Print how to reach a server, in a form that a shell can take."""
    print_result(f"url    {server.url}")
    print_result(f"token  {server.token}")
    limit = f"{server.limit} requests per {server.period:g} s, cooldown {server.cooldown:g} s" if limited else "none"
    print_result(f"limit  {limit}")
    print_result()
    print_result(f"export {TOKEN_VARIABLE}={server.token}")
    print_result(f"export {BASE_URL_VARIABLE}={server.url}")
    print_note("serving until Ctrl-C")


async def until_interrupted() -> None:
    """Wait for Ctrl-C."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print_note("")  # the terminal has just shown ^C on this line
