"""`comfycontrol run`."""

import json
import os
from pathlib import Path

import pytest

from comfycontrol_async import ComfyControl, LocalLimiter
from comfycontrol_async.cli import _run, _show
from comfycontrol_async.testing import LocalServer
from support.command_line import BLEND, TXT2IMG, UI_FORMAT, call, errors, graph_of, listed

SPEED = 50.0


async def test_run(tmp_path: Path) -> None:
    """The paths of the outputs are all that stdout gets, and the files hold what was asked for."""
    async with LocalServer(speed=SPEED) as server:
        args = ("-p", "prompt=a cat = a dog", "-p", "sampler=lcm", "-o", str(tmp_path / "new" / "out"), "--name", "n")
        result = await call(server, "run", TXT2IMG, *args)
    assert result.exit_code == 0, result.output
    path = Path(result.stdout.strip())
    assert path.parent == tmp_path / "new" / "out"
    nodes = graph_of(path)
    assert nodes["2"]["inputs"]["text"] == "a cat = a dog"
    assert nodes["5"]["inputs"]["sampler_name"] == "lcm"
    (workflow,) = server.workflows.values()
    assert workflow.name == "n"
    assert "submitting" in result.stderr
    assert "completed in" in result.stderr


async def test_run_twice(tmp_path: Path) -> None:
    """A second run of a graph does not meet the files of the first."""
    async with LocalServer(speed=SPEED) as server:
        for _ in range(2):
            result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path))
            assert result.exit_code == 0, result.output
    assert len(listed(tmp_path)) == 2


async def test_run_files_and_tags(tmp_path: Path) -> None:
    """Files are uploaded, and tags are sent."""
    picture = tmp_path / "a.png"
    picture.touch()
    async with LocalServer(speed=SPEED) as server:
        args = ("-f", f"image={picture}", "--tag", "gpu", "--tag", "fast", "--no-wait")
        result = await call(server, "run", BLEND, *args)
        assert result.exit_code == 0, result.output
        (workflow,) = server.workflows.values()
    assert list(workflow.tags) == ["gpu", "fast"]
    assert workflow.files["image"].filename == "a.png"


async def test_run_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is all that stdout gets, for one request, and no directory is made."""
    monkeypatch.chdir(tmp_path)
    async with LocalServer(speed=SPEED) as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "--no-wait")
        assert result.stdout.split() == list(server.workflows)
        assert len(server.requests) == 1
    assert not listed(tmp_path)


@pytest.mark.parametrize("waits", [True, False], ids=["wait", "no-wait"])
async def test_run_json(waits: bool, tmp_path: Path) -> None:
    """With --json stdout is one JSON document."""
    async with LocalServer(speed=SPEED) as server:
        args = ("-p", "prompt=x", "-o", str(tmp_path), "--json", *(() if waits else ("--no-wait",)))
        facts = json.loads((await call(server, "run", TXT2IMG, *args)).stdout)
        assert facts["id"] in server.workflows
    assert facts["name"].startswith("sd01_txt2img.template-")
    if not waits:
        assert sorted(facts) == ["id", "name", "status"]
        return
    assert sorted(facts) == ["id", "name", "paths", "seconds", "status"]
    assert facts["status"] == "completed"
    assert [Path(path).parent for path in facts["paths"]] == [tmp_path]
    assert facts["seconds"] > 0


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "told"])
async def test_run_held_up(drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cooldown is told while it lasts; a terminal gets one line that is redrawn, and stdout is the same."""
    monkeypatch.setattr(_show, "is_live", lambda _: drawn)
    async with LocalServer(speed=20) as server:
        limiter = LocalLimiter(server.limit, server.period)
        monkeypatch.setattr(_run, "connect", lambda: ComfyControl(server.token, base_url=server.url, limiter=limiter))
        server.consume(server.limit)
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 1
    assert "completed in" in result.stderr
    assert "warning: the server refused a request" in result.stderr
    assert ("submitting, held up by the rate limit" in result.stderr) is not drawn


CASES = {
    "missing": ((), ['2.text: text "prompt" has no default and is missing in params']),
    "two issues": (
        ("-p", "promt=x"),
        ["the graph has no parameter 'promt'; did you mean 'prompt'?", '2.text: text "prompt" has no default'],
    ),
    "choice": (("-p", "prompt=x", "-p", "sampler=none"), ['5.sampler_name: choice "sampler" takes']),
    "no file": (
        ("-f", "prompt=absent.png"),
        ['2.text: text "prompt" takes a str, int, float or bool, but was given the path'],
    ),
}


@pytest.mark.parametrize(("args", "texts"), CASES.values(), ids=CASES)
async def test_bad_params(args: tuple[str, ...], texts: list[str]) -> None:
    """Each issue gets a line of its own, and nothing is sent."""
    async with LocalServer() as server:
        result = await call(server, "run", TXT2IMG, *args)
        assert not server.requests
    found = errors(result)
    assert result.exit_code == 2
    assert not result.stdout
    assert len(found) == len(texts)
    assert all(line.startswith(f"error: {text}") for line, text in zip(found, texts, strict=True))


GRAPHS = {
    "not JSON": ("{", "is not JSON"),
    "no object": ("[1]", "not a JSON object"),
    "empty": ("{}", "the graph is empty"),
    "not UTF-8": ("\xff", "is not UTF-8"),
}


@pytest.mark.parametrize(("text", "said"), GRAPHS.values(), ids=GRAPHS)
async def test_bad_graph(text: str, said: str, tmp_path: Path) -> None:
    """What is no graph is refused with one line, before a token is asked for."""
    path = tmp_path / "graph.json"
    path.write_text(text, "latin-1")
    result = await call(None, "run", str(path))
    assert result.exit_code == 2
    assert [said in line for line in errors(result)] == [True]


async def test_ui_format() -> None:
    """An export for the UI is refused with what to do instead."""
    result = await call(None, "run", UI_FORMAT)
    assert result.exit_code == 2
    (line,) = errors(result)
    assert "UI format" in line
    assert "Export (API)" in line


async def test_absent_file(tmp_path: Path) -> None:
    """A graph that is not there is named."""
    (line,) = errors(await call(None, "run", str(tmp_path / "absent.json")))
    assert "absent.json" in line


async def test_graph_warning(tmp_path: Path) -> None:
    """What is odd in a graph is told, and it runs all the same."""
    path = tmp_path / "graph.json"
    path.write_text('{"1": {"class_type": "MyOwnEnd", "inputs": {}}}')
    async with LocalServer(speed=SPEED) as server:
        result = await call(server, "run", str(path), "-o", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    assert "warning: " in result.stderr
    assert "without outputs" in result.stderr


async def test_output_is_no_directory(tmp_path: Path) -> None:
    """A directory that cannot be written is found before anything is sent."""
    (tmp_path / "file").touch()
    async with LocalServer() as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path / "file" / "out"))
        assert not server.requests
    assert result.exit_code == 1
    assert ["is not a directory" in line for line in errors(result)] == [True]


async def test_output_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one without the permission, and nothing is left behind."""
    monkeypatch.setattr("os.access", lambda _, mode: mode == os.R_OK)
    result = await call(None, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path / "out"))
    assert ["is not writable" in line for line in errors(result)] == [True]
    assert not listed(tmp_path)


async def test_download_fails(tmp_path: Path) -> None:
    """Outputs that were fetched before one failed stay, and are told."""
    path = tmp_path / "graph.json"
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}
    image = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8}}
    path.write_text(json.dumps({"1": image, "2": save, "3": save}))
    async with LocalServer(speed=SPEED) as server:
        server.fail_download_next(status=402)
        result = await call(server, "run", str(path), "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert ["402" in line for line in errors(result)] == [True]
    assert result.stdout.split() == [str(path) for path in listed(tmp_path / "out")]


@pytest.mark.parametrize("outcome", ["failed", "cancelled", "invalid"])
async def test_bad_end(outcome: str, tmp_path: Path) -> None:
    """A workflow that does not complete is an error with its id."""
    async with LocalServer(speed=SPEED, outcome=lambda _: outcome) as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path))
        (id,) = server.workflows
    assert result.exit_code == 3
    assert [id in line for line in errors(result)] == [True]


async def test_timeout(tmp_path: Path) -> None:
    """A workflow that takes too long is an error that says how it was last seen."""
    async with LocalServer(duration=1e6) as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path), "--timeout", "0.3")
    assert result.exit_code == 6
    assert ["not finished after 0." in line for line in errors(result)] == [True]


USAGE = {
    "no pair": ("run", TXT2IMG, "-p", "prompt"),
    "no name": ("run", TXT2IMG, "-f", "=path"),
    "twice": ("run", TXT2IMG, "-p", "a=1", "-f", "a=2"),
    "no file": ("run",),
    "timeout": ("run", TXT2IMG, "--timeout", "nan"),
    "no command": ("fly",),
    "count": ("demo", "-n", "0"),
    "speed": ("demo", "--speed", "0"),
    "edge": ("serve", "--edge", "sharp"),
    "period": ("serve", "--period", "inf"),
}


@pytest.mark.parametrize("args", USAGE.values(), ids=USAGE)
async def test_usage(args: tuple[str, ...]) -> None:
    """An invalid command line exits 2."""
    result = await call(None, *args)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


async def test_usage_without_command() -> None:
    """A command line without a command shows the help."""
    result = await call(None)
    assert all(command in result.output for command in ("demo", "run", "serve", "whoami"))


@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_bad_end_in_json(form: str, tmp_path: Path) -> None:
    """Programs learn the id of a workflow that failed, and why, from stdout as well."""
    async with LocalServer(speed=SPEED, outcome=lambda _: "failed") as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path), f"--{form}")
        (id,) = server.workflows
    assert result.exit_code == 3
    documents = [json.loads(result.stdout)] if form == "json" else list(map(json.loads, result.stdout.splitlines()))
    assert documents[-1]["id"] == id
    if form == "json":
        assert sorted(documents[0]) == ["error", "id", "name", "paths", "seconds", "status"]
        assert documents[0]["status"] == "failed"


async def test_refused_in_json(tmp_path: Path) -> None:
    """What was never made has no id, and the document the same fields."""
    async with LocalServer(speed=SPEED) as server:
        server.expire_token()
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "-o", str(tmp_path), "--json")
    assert result.exit_code == 4
    facts = json.loads(result.stdout)
    assert (facts["id"], facts["status"], facts["paths"]) == (None, None, [])
    assert "401" in facts["error"]


async def test_run_no_wait_events(tmp_path: Path) -> None:
    """With --no-wait the stream of events is the first one."""
    async with LocalServer(speed=SPEED) as server:
        result = await call(server, "run", TXT2IMG, "-p", "prompt=x", "--no-wait", "--ndjson")
        event = json.loads(result.stdout)
        assert event["id"] in server.workflows
    assert sorted(event) == ["event", "id", "name", "status"]
    assert event["event"] == "submitted"
