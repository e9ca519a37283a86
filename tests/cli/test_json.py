"""The documents of --json and --ndjson: valid, with the fields that the help of each command names."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

import comfycontrol_async
from comfycontrol_async.testing import LocalServer
from support.command_line import TXT2IMG, call

ENDED = ("id", "name", "status", "seconds", "paths")
COUNTS = ("rows", "done", "failed", "files", "requests")
# The command, and either the fields of its document or the class whose fields they are; ID stands for a workflow,
# RUNNER and MANAGED for machines, TEMPLATE for a stored graph, OUT for a directory, ROWS for a table.
DOCUMENTS: dict[str, str | tuple[str, ...]] = {
    "run GRAPH -p prompt=x -o OUT": ENDED,
    "submit GRAPH -p prompt=x": ("id", "name", "status"),
    "get ID": ENDED,
    "wait ID": ENDED,
    "rerun ID": ("id", "name", "status", "rerun_of"),
    "ls": "WorkflowSummary",
    "show ID": "Workflow",
    "check GRAPH": ("parameters", "issues"),
    "map GRAPH ROWS -o OUT --journal OUT/j.sqlite": COUNTS,
    "whoami": "User",
    "limits": "RateLimitSnapshot",
    "doctor": ("level", "topic", "text"),
    "runners ls": "Runner",
    "runners show RUNNER": "Runner",
    "runners add desk http://127.0.0.1:8188": "Runner",
    "runners update RUNNER --name desk": "Runner",
    "runners enable RUNNER": "Runner",
    "runners disable RUNNER": "Runner",
    "runners history RUNNER": "WorkflowSummary",
    "managed ls": "ManagedRunner",
    "managed show MANAGED": "ManagedRunner",
    "managed history MANAGED": "WorkflowSummary",
    "managed stats MANAGED": "RunnerStats",
    "templates ls": "TemplateSummary",
    "templates show TEMPLATE": "Template",
    "templates push GRAPH": "Template",
    "templates update TEMPLATE --name other": "Template",
}
EVENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "run GRAPH -p prompt=x -o OUT": {
        "submitted": ("id", "name", "status"),
        "status": ("id", "status", "queue_number"),
        "ended": ENDED,
    },
    "get ID": {"ended": ENDED},
    "wait ID": {"ended": ENDED},
    "get 00000000-0000-4000-a000-000000000000": {"error": ("id", "error", "message")},
    "ls": {"workflow": ("workflow",)},
    "map GRAPH ROWS -o OUT --journal OUT/j.sqlite": {
        "row": ("key", "index", "id", "status", "paths", "error"),
        "done": COUNTS,
    },
}


async def words(server: LocalServer, line: str, directory: Path) -> list[str]:
    """Return a command line with what its capitals stand for, made on the server where need be."""

    async def first(*args: str) -> str:
        result = await call(server, *args, "--json")
        found = json.loads(result.stdout)
        return str((found[0] if isinstance(found, list) else found)["id"])

    (rows := directory / "rows.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    found = line.replace("GRAPH", TXT2IMG).replace("OUT", str(directory)).replace("ROWS", str(rows)).split()
    made = await first("submit", TXT2IMG, "-p", "prompt=x") if {"ID", "ls"} & {*found} else ""
    if "history" in found:
        await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(directory))
    ids = {"ID": made}
    if "RUNNER" in found:
        ids["RUNNER"] = await first("runners", "ls")
    if "MANAGED" in found:
        ids["MANAGED"] = await first("managed", "ls")
    if found[0] == "templates" and "push" not in found:
        ids["TEMPLATE"] = await first("templates", "push", TXT2IMG)
    return [ids.get(word, word) for word in found]


async def help_of(line: str) -> str:
    """Return the help of a command on one line, without the frame."""
    words = line.split()
    names = words[: 2 if words[0] in ("runners", "managed", "templates") else 1]
    return " ".join((await call(None, *names, "-h")).output.replace("│", " ").split())


@pytest.mark.parametrize(("line", "fields"), DOCUMENTS.items(), ids=DOCUMENTS)
async def test_document(line: str, fields: str | tuple[str, ...], tmp_path: Path) -> None:
    """Stdout is one document, with the fields that the help names or those of the class that it names."""
    async with LocalServer(speed=50, limit=1000) as server:
        result = await call(server, *await words(server, line, tmp_path), "--json")
    assert result.exit_code == 0, result.output
    document: Any = json.loads(result.stdout)
    many = line.split()[-1] == "ls" or line.split()[0] in ("doctor", "wait") or " history " in line
    assert isinstance(document, list) is many
    found = {*document[0]} if many and document else {*document}
    text = (await help_of(line)).partition("Print one JSON document: ")[2]
    if isinstance(fields, str):
        assert f"the fields of {fields}" in text
        wanted = {field.name for field in attrs.fields(getattr(comfycontrol_async, fields))}
    else:
        assert all(field in text for field in fields)
        wanted = {*fields}
    assert found == wanted or (line.startswith("managed history") and not document)


@pytest.mark.parametrize(("line", "events"), EVENTS.items(), ids=EVENTS)
async def test_events(line: str, events: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    """Stdout is a document a line, each an event that the help names, with its fields."""
    async with LocalServer(speed=50, limit=1000) as server:
        result = await call(server, *await words(server, line, tmp_path), "--ndjson")
    found: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in found} - {"status"} == {*events} - {"status"}
    text = (await help_of(line)).partition("Print JSON events, one a line: ")[2]
    for event in found:
        fields = events.get(event["event"], ("id", "status", "queue_number"))
        assert {*event} - {"event"} == {*fields}
        assert all(field in text for field in (event["event"], *fields))


@pytest.mark.parametrize("columns", ["25", "40", "59", "80"])
async def test_narrow_help(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the frame would cut words off, the help is plain lines; no Python types stand in it."""
    monkeypatch.setattr("support.command_line.environment", lambda server=None: {"COLUMNS": columns, "NO_COLOR": "1"})
    output = (await call(None, "wait", "-h")).output
    assert "…" not in output
    assert all(word in output for word in ("--timeout", "--ndjson", "completed.", "ID..."))
    assert not any(word in output for word in ("<list", "{ID", "......"))
