"""`comfycontrol runners` and `managed`."""

import json

from comfycontrol_async.testing import LocalServer
from support.command_line import call, errors

SECRET = "Bearer very-secret"


async def test_life_of_a_runner() -> None:
    """A runner is added, shown, changed, disabled and enabled; its headers' values are never printed."""
    async with LocalServer() as server:
        add = ("runners", "add", "desk", "https://comfy.example.com", "--header", f"Authorization: {SECRET}")
        result = await call(server, *add, "--tag", "gpu")
        assert result.exit_code == 0, result.output
        id = result.stdout.strip()
        assert server.runners[id]["headers"] == {"Authorization": SECRET}
        shown = [await call(server, "runners", "ls"), await call(server, "runners", "ls", "--json")]
        shown += [await call(server, "runners", "show", id), await call(server, "runners", "show", id, "--json")]
        shown.append(await call(server, "runners", "update", id, "--name", "new", "--tag", "a", "--tag", "b"))
        assert (server.runners[id]["name"], server.runners[id]["tags"]) == ("new", ["a", "b"])
        shown.append(await call(server, "runners", "disable", id))
        assert server.runners[id]["status"] == "disabled"
        assert id not in (await call(server, "runners", "ls", "--status", "active")).stdout
        shown.append(await call(server, "runners", "enable", id))
        assert server.runners[id]["status"] == "active"
        shown += [await call(server, "runners", "interrupt", id), await call(server, "runners", "history", id)]
    assert [result.exit_code for result in shown] == [0] * len(shown)
    assert all(SECRET not in result.output for result in shown)
    assert "Authorization: ***" in shown[2].stdout
    assert json.loads(shown[3].stdout)["headers"] == {"Authorization": "***"}
    assert all(id in result.stdout for result in shown[:-1])
    assert "it has run nothing yet" in shown[-1].stderr


async def test_runner_errors() -> None:
    """What the API refuses is one line each."""
    async with LocalServer() as server:
        bad = await call(server, "runners", "add", "desk", "no-url")
        assert (bad.exit_code, len(errors(bad))) == (2, 1)
        assert not server.requests
        nothing = await call(server, "runners", "update", "00000000-0000-4000-a000-000000000000")
        assert nothing.exit_code == 2
        absent = await call(server, "runners", "show", "00000000-0000-4000-a000-000000000000")
    assert (absent.exit_code, len(errors(absent))) == (1, 1)


async def test_managed() -> None:
    """Managed runners are listed and shown, with their machine."""
    async with LocalServer() as server:
        result = await call(server, "managed", "ls")
        assert all(id in result.stdout for id in server.managed_runners)
        id = next(iter(server.managed_runners))
        found = json.loads((await call(server, "managed", "ls", "--json")).stdout)
        assert {one["id"] for one in found} == {*server.managed_runners}
        assert json.loads((await call(server, "managed", "show", id, "--json")).stdout)["id"] == id
        assert id in (await call(server, "managed", "show", id)).stdout
        stats = await call(server, "managed", "stats", id)
        assert "GiB free" in stats.stdout
        assert "devices" in json.loads((await call(server, "managed", "stats", id, "--json")).stdout)
        assert (await call(server, "managed", "history", id)).exit_code == 0


async def test_managed_of_a_free_tier() -> None:
    """The service's own words say why there are none."""
    async with LocalServer(tier="free") as server:
        (line,) = errors(await call(server, "managed", "ls"))
    assert "403" in line
