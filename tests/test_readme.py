"""The README's examples run as they are printed."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comfycontrol_async.testing import LocalServer

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
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
    """The README has the three examples that are run here, the first of at most twelve lines."""
    assert len(EXAMPLES) == 3
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 12
