"""`comfycontrol whoami`: the account behind the token."""

from comfycontrol_async import RetryPolicy
from comfycontrol_async.cli._execute import connect
from comfycontrol_async.cli._show import print_fields, print_json

# A person waits for the answer and can ask again.
_RETRY = RetryPolicy(attempts=2)


async def show_user(*, as_json: bool) -> int:
    """Print name, e-mail and tier; one request."""
    async with connect(_RETRY) as comfy:
        user = await comfy.user.get()
        server = comfy.base_url
    if as_json:
        print_json(user)
    else:
        print_fields({"name": user.name, "email": user.email, "tier": str(user.tier), "server": server})
    return 0
