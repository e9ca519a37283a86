"""The README's examples run as they are printed."""

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from comfycontrol_async.testing import LocalServer
from support.command_line import call

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
GRAPH = ROOT / "tests" / "data" / "workflows" / "sd01_txt2img.template.json"


@pytest.mark.parametrize("example", EXAMPLES, ids=["run", "map", "testing"])
async def test_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python example runs in a process of its own against a local server, and says nothing on stderr."""
    (tmp_path / "workflow.json").write_bytes(GRAPH.read_bytes())
    async with LocalServer(speed=10, limit=400) as server:
        monkeypatch.setenv("COMFYCONTROL_API_TOKEN", server.token)
        monkeypatch.setenv("COMFYCONTROL_BASE_URL", server.url)
        monkeypatch.chdir(tmp_path)
        run = await _run(example)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert run.stdout.strip()


async def _run(example: str) -> subprocess.CompletedProcess[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", example, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await process.communicate()
    return subprocess.CompletedProcess([], process.returncode or 0, out.decode(), err.decode())


def test_examples_are_found() -> None:
    """The README has the three examples that are run here, the first of at most twelve lines, and is not long."""
    assert len(EXAMPLES) == 3
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 12
    assert len(README.splitlines()) < 250


async def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line of the README works as it is printed, one after the other."""
    commands = [
        shlex.split(line)
        for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
        for line in block.splitlines()
        if line.startswith("comfycontrol ")
    ]
    assert len(commands) > 5
    (tmp_path / "workflow.json").write_bytes(GRAPH.read_bytes())
    (tmp_path / "prompt.txt").write_text("a cat\n")
    (tmp_path / "rows.csv").write_text("id,prompt,note\n1,a cat,x\n2,a dog,y\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "local?limit=1000&period=1")
    async with LocalServer(speed=50, limit=1000) as server:
        for _, *command in commands:
            result = await call(server, *command)
            assert result.exit_code == 0, f"{command}: {result.output}"


def test_links_lead_somewhere() -> None:
    """Every file that the README names is there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
