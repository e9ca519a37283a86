"""`comfycontrol demo`."""

import functools
import io
from pathlib import Path
from typing import Any

import attrs
import pytest
from rich.console import Console

from comfycontrol_async import ComfyControlError, Graph
from comfycontrol_async.cli import _demo, _show
from comfycontrol_async.cli._demo_view import Tally, draw_tally, tell_tally
from comfycontrol_async.cli._prompts import make_prompts
from comfycontrol_async.testing import LocalServer
from support.command_line import call, errors, graph_of, listed


@pytest.fixture(autouse=True)
def _proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore what the demo says of proxies in its own process, which here is ours."""
    monkeypatch.setenv("no_proxy", "")


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "told"])
async def test_demo(drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts are run, their images numbered by prompt, and no request is refused."""
    monkeypatch.setattr(_show, "is_live", lambda _: drawn)
    (tmp_path / "prompt-001.png").write_text("of an earlier demo")
    result = await call(None, "demo", "-n", "6", "--speed", "50", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "6 of 6 completed" in result.stdout
    assert "429s       0" in result.stdout
    paths = listed(tmp_path)
    assert [path.name for path in paths] == [f"prompt-{index:03}.png" for index in range(1, 7)]
    assert [graph_of(path)["2"]["inputs"]["text"] for path in paths] == make_prompts(6)


async def test_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than a period allows take several periods and no 429."""
    servers: list[LocalServer] = []

    def make(**options: Any) -> LocalServer:
        servers.append(LocalServer(**options))
        return servers[-1]

    monkeypatch.setattr(_demo, "LocalServer", make)
    result = await call(None, "demo", "-n", "60", "--speed", "50", "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert len(listed(tmp_path)) == 60
    assert servers[0].max_in_window <= 40
    assert servers[0].refused == 0


async def test_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is told and does not stop the rest; the exit code says that something did."""

    def outcome(index: int) -> str:
        return "failed" if index else "completed"

    monkeypatch.setattr(_demo, "LocalServer", functools.partial(LocalServer, outcome=outcome))
    result = await call(None, "demo", "-n", "8", "--speed", "50", "-o", str(tmp_path))
    assert result.exit_code == 1
    assert len(errors(result)) == 5
    assert "and 2 failures more" in result.stderr
    assert "1 of 8 completed" in result.stdout
    assert len(listed(tmp_path)) == 1


class Crowded(LocalServer):
    """A server whose budget another client has used up."""

    async def start(self) -> None:
        await super().start()
        self.consume(self.limit)


async def test_429(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 costs no workflow, yet the demo fails: it is there to show none."""
    monkeypatch.setattr(_demo, "LocalServer", Crowded)
    result = await call(None, "demo", "-n", "3", "--speed", "50", "-o", str(tmp_path))
    assert result.exit_code == 1
    assert "3 of 3 completed" in result.stdout
    assert len(listed(tmp_path)) == 3
    assert "429s       0" not in result.stdout


async def test_unwritable(tmp_path: Path) -> None:
    """A directory that cannot be written is found before anything starts."""
    (tmp_path / "file").touch()
    result = await call(None, "demo", "-o", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert ["is not a directory" in line for line in errors(result)] == [True]


def test_prompts_differ() -> None:
    """No two prompts are alike, however many."""
    assert len(set(make_prompts(999))) == 999


def test_template() -> None:
    """The bundled graph asks for nothing but a prompt and has no issue."""
    graph = Graph.load(Path(_demo.__file__).with_name("demo_workflow.json"))
    assert [parameter.name for parameter in graph.parameters if parameter.required] == ["prompt"]
    assert not graph.check({"prompt": "a cat"})


@pytest.mark.parametrize("name", ["absent", "text", "other"])
async def test_verify(name: str, tmp_path: Path) -> None:
    """A file that is not there, is no image, or carries another prompt is found out."""
    path = tmp_path / "prompt-001.png"
    if name == "text":
        path.write_text("text")
    if name == "other":
        result = await call(None, "demo", "-n", "1", "--speed", "50", "-o", str(tmp_path))
        assert result.exit_code == 0, result.output
    with pytest.raises(ComfyControlError, match=r"prompt-001\.png"):
        _demo._verify(path, "a prompt that was never given")


TALLY = Tally(
    total=999,
    submitted=999,
    running=500,
    done=499,
    seconds=123.4,
    requests=1498,
    limit=40,
    period=10.0,
    used=40,
    next_free=7.25,
)
VIEWS = {
    "full": (TALLY, "next free slot in 7.2 s"),
    "cooldown": (attrs.evolve(TALLY, cooldown=9.96, refused=1), "cooling down for 10.0 s"),
    "free": (attrs.evolve(TALLY, used=3, next_free=0.0), "slots free"),
}


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize(("tally", "text"), VIEWS.values(), ids=VIEWS)
def test_views(tally: Tally, text: str, width: int) -> None:
    """Line and picture give the limiter's state, and no label or count is lost at any width."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(draw_tally(tally, width))
    drawn = capture.get()
    assert text in tell_tally(tally)
    for words in ("submitted", "done", "downloaded", "budget", "500 running", "40 requests per 10 s", text):
        assert words in drawn
    for count in ("999/999", "499/999", f"{tally.used}/40", "1498 requests", f"{tally.refused} times 429", "0 failed"):
        assert count in drawn
    assert max(map(len, drawn.splitlines())) <= width
