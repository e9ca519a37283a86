"""`comfycontrol submit`, `get`, `wait`, `cancel`, `rerun`, `ls` and `show`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async.testing import LocalServer
from support.command_line import TXT2IMG, call, errors, graph_of, listed

SPEED = 50.0
ABSENT = "00000000-0000-4000-a000-000000000000"


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    """Run a server whose limit no test here meets."""
    async with LocalServer(speed=SPEED, limit=1000) as server:
        yield server


async def submitted(server: LocalServer, *args: str) -> str:
    """Submit a graph and return the id that was printed."""
    result = await call(server, "submit", TXT2IMG, "-p", "prompt=x", *args)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


async def test_submit(server: LocalServer) -> None:
    """The id is all that stdout gets, for one request, and stderr says how to go on with it."""
    result = await call(server, "submit", TXT2IMG, "-p", "prompt=x", "--name", "mine", "--tag", "gpu")
    assert result.exit_code == 0, result.output
    (id,) = server.workflows
    assert result.stdout == f"{id}\n"
    assert f"comfycontrol get {id}" in result.stderr
    assert len(server.requests) == 1
    assert (server.workflows[id].name, list(server.workflows[id].tags)) == ("mine", ["gpu"])


async def test_submit_json(server: LocalServer) -> None:
    """With --json stdout is one document."""
    result = await call(server, "submit", TXT2IMG, "-p", "prompt=x", "--json")
    facts = json.loads(result.stdout)
    assert sorted(facts) == ["id", "name", "status"]
    assert facts["id"] in server.workflows


async def test_submit_key(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key makes one workflow."""
    monkeypatch.setattr("comfycontrol_async.runs._key_index._PAUSE", 0.1)  # the server here is that much faster
    first = await submitted(server, "--key", "order 5")
    assert await submitted(server, "--key", "order 5") == first
    assert len(server.workflows) == 1


async def test_get(server: LocalServer, tmp_path: Path) -> None:
    """`get` takes the id that `submit` printed: it waits and downloads."""
    id = await submitted(server)
    result = await call(server, "get", id, "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path.parent == tmp_path / "out"
    assert graph_of(path)["2"]["inputs"]["text"] == "x"


async def test_get_without_a_directory(server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -o it waits and says how it ended; no file is made."""
    monkeypatch.chdir(tmp_path)
    id = await submitted(server)
    result = await call(server, "get", id)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{id}  completed\n"
    assert not listed(tmp_path)


async def test_get_now() -> None:
    """With --no-wait it says how the workflow is now, for one request."""
    async with LocalServer(duration=1e6, speed=SPEED) as server:
        id = await submitted(server)
        before = len(server.requests)
        result = await call(server, "get", id, "--no-wait", "--json")
        assert len(server.requests) == before + 1
    facts = json.loads(result.stdout)
    assert facts["id"] == id
    assert facts["status"] in ("accepted", "uploaded", "queued", "running")
    assert facts["paths"] == []


async def test_get_ndjson(server: LocalServer, tmp_path: Path) -> None:
    """A stream of events ends with how it ended."""
    id = await submitted(server)
    result = await call(server, "get", id, "-o", str(tmp_path), "--ndjson")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in events[:-1]} <= {"status"}
    assert sorted(events[-1]) == ["event", "id", "name", "paths", "seconds", "status"]
    assert (events[-1]["event"], events[-1]["status"], len(events[-1]["paths"])) == ("ended", "completed", 1)


async def test_get_absent(server: LocalServer) -> None:
    """An id that the service does not know is one line."""
    result = await call(server, "get", ABSENT)
    assert result.exit_code == 1
    assert ["404" in line for line in errors(result)] == [True]
    assert "may go on" not in result.stderr


async def test_wait_for_nothing() -> None:
    """A workflow that was not asked for in time is shown as unknown."""
    async with LocalServer(duration=1e6) as server:
        id = (await call(server, "submit", TXT2IMG, "-p", "prompt=x")).stdout.strip()
        result = await call(server, "wait", id, "--timeout", "0")
    assert result.exit_code == 6
    assert result.stdout == f"{id}  unknown\n"


async def test_get_timeout() -> None:
    """Too long a wait is exit code 6, and stderr says how to come back."""
    async with LocalServer(duration=1e6) as server:
        id = await submitted(server)
        result = await call(server, "get", id, "--timeout", "0.2")
    assert result.exit_code == 6
    assert f"comfycontrol get {id}" in result.stderr


async def test_wait(server: LocalServer) -> None:
    """Several are waited for at once; each is a line."""
    ids = [await submitted(server) for _ in range(3)]
    result = await call(server, "wait", *ids, ids[0])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [f"{id}  completed" for id in ids]


async def test_wait_failed() -> None:
    """One that fails does not hide the others, and decides the exit code."""
    async with LocalServer(speed=SPEED, outcome=lambda index: "failed" if index == 1 else "completed") as server:
        ids = [await submitted(server) for _ in range(3)]
        result = await call(server, "wait", *ids, "--json")
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    assert [facts["status"] for facts in found] == ["completed", "failed", "completed"]
    assert ["error" in facts for facts in found] == [False, True, False]


async def test_cancel() -> None:
    """What was cancelled is printed; what cannot be is an error, and the others are cancelled all the same."""
    async with LocalServer(duration=1e6, speed=SPEED, delays=(0, 0, 0)) as server:
        ids = [await submitted(server) for _ in range(2)]
        result = await call(server, "cancel", ABSENT, *ids)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == ids
    assert len(errors(result)) == 1


async def test_rerun(server: LocalServer) -> None:
    """A rerun is a workflow of its own, with what was given changed."""
    id = await submitted(server)
    result = await call(server, "rerun", id, "-p", "prompt=y")
    assert result.exit_code == 0, result.output
    again = result.stdout.strip()
    assert again != id
    assert len(server.workflows) == 2
    assert f"comfycontrol get {again}" in result.stderr


async def test_ls(server: LocalServer) -> None:
    """Newest first, ids whole, no more than asked for, and one request."""
    ids = [await submitted(server, "--name", f"job {number}") for number in range(3)]
    before = len(server.requests)
    result = await call(server, "ls", "--limit", "2")
    assert len(server.requests) == before + 1
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["ID", "STATUS", "CREATED", "NAME"]
    assert [line.split()[0] for line in lines] == ids[:0:-1]
    assert lines[0].endswith("job 2")


async def test_ls_forms(server: LocalServer) -> None:
    """--json is a list, --ndjson a line each, and nothing found is a note."""
    await submitted(server)
    (facts,) = json.loads((await call(server, "ls", "--json")).stdout)
    assert facts["id"] in server.workflows
    event = json.loads((await call(server, "ls", "--ndjson")).stdout)
    assert event["event"] == "workflow"
    assert event["workflow"]["id"] == facts["id"]
    result = await call(server, "ls", "--status", "cancelled")
    assert (result.stdout, result.stderr) == ("", "there are no workflows\n")
    assert (await call(server, "ls", "--status", "odd")).exit_code == 2


async def test_show(server: LocalServer) -> None:
    """Everything that is known is shown, what is not is left out."""
    id = await submitted(server, "--name", "mine")
    assert (await call(server, "wait", id)).exit_code == 0
    result = await call(server, "show", id)
    fields = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert (fields["id"], fields["name"], fields["status"]) == (id, "mine", "completed")
    assert "exception" not in fields
    assert json.loads((await call(server, "show", id, "--json")).stdout)["workflow_json"]


ID = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
USAGE: dict[str, tuple[str, ...]] = {
    "both forms": ("run", TXT2IMG, "--json", "--ndjson"),
    "no id": ("get",),
    "no ids": ("wait",),
    "no limit": ("ls", "--limit", "0"),
    "no rows": ("map", TXT2IMG, "-o", "x", "--journal", "y"),
    "no journal": ("map", TXT2IMG, "rows.csv", "-o", "x"),
    "two sources": ("check", TXT2IMG, "--object-info", "x", "--runner", ID),
    "header": ("runners", "add", "a", "http://b", "--header", "secret-without-colon"),
}


@pytest.mark.parametrize("args", USAGE.values(), ids=USAGE)
async def test_usage(args: tuple[str, ...], server: LocalServer) -> None:
    """A wrong command line exits 2 and spends no request."""
    result = await call(server, *args)
    assert result.exit_code == 2
    assert "secret" not in result.output
    assert not server.requests


BAD_ID: dict[str, Any] = {command: (command, "not-an-id") for command in ("get", "wait", "cancel", "show")}


@pytest.mark.parametrize("args", BAD_ID.values(), ids=BAD_ID)
async def test_bad_id(args: tuple[str, ...]) -> None:
    """An id that is none is refused before a request, where that can be known, or by the service; one line."""
    async with LocalServer() as server:
        result = await call(server, *args)
    assert result.exit_code in (1, 2)
    assert len(errors(result)) == 1


async def test_wait_for_one_in_json(server: LocalServer) -> None:
    """The document of `wait` is a list, also for one id: its form does not depend on how many there are."""
    id = await submitted(server)
    (facts,) = json.loads((await call(server, "wait", id, "--json")).stdout)
    assert (facts["id"], facts["status"]) == (id, "completed")
