"""`comfycontrol limits`."""

import json

from comfycontrol_async.testing import LocalServer
from support.command_line import call


async def test_limits() -> None:
    """What the programs of this machine have used is shown, for no request."""
    async with LocalServer() as server:
        assert (await call(server, "whoami")).exit_code == 0
        result = await call(server, "limits")
        facts = json.loads((await call(server, "limits", "--json")).stdout)
        assert len(server.requests) == 1
    assert result.exit_code == 0
    fields = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert fields["used"] == "1 of 40 in 10 s"
    assert fields["cooldown"] == "none"
    assert (facts["limit"], facts["used"], facts["available"]) == (40, 1, 39)
    assert facts["waiting"] == {"interactive": 0, "normal": 0, "bulk": 0}


async def test_limits_without_a_token() -> None:
    """Nothing is sent, so that no token is needed."""
    result = await call(None, "limits", "--once")
    assert result.exit_code == 0, result.output
    assert "of 40 in 10 s" in result.stdout
