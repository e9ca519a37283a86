"""`comfycontrol whoami`: the account behind the token."""

import typer

from comfycontrol_async import RetryPolicy
from comfycontrol_async.cli._execute import connect
from comfycontrol_async.cli._show import sanitize

# The user waits at the terminal, and can ask again.
_RETRY = RetryPolicy(attempts=2)


async def show_user() -> int:
    """Print name, e-mail and tier; one request."""
    async with connect(_RETRY) as comfy:
        user = await comfy.user.get()
        rows = {"name": user.name, "email": user.email, "tier": user.tier, "server": comfy.base_url}
    for label, value in rows.items():
        typer.echo(f"{typer.style(f'{label:<8}', dim=True)}{sanitize(value)}")
    return 0
