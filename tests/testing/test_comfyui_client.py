"""The client in front of a ComfyUI, through LocalServer: what it does, and how fast."""

import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, LocalLimiter, WorkflowCancelledError, WorkflowFailedError
from comfycontrol_async.testing import LocalServer, read_png_text
from support.fake_comfyui import FakeComfyUI
from support.waiting import eventually

REAL = os.environ.get("COMFYUI_URL")
only_fake = pytest.mark.skipif(REAL is not None, reason="needs a ComfyUI whose speed is known")

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": "$text(color)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic"}},
}


def color() -> int:
    """Return a colour that was never drawn before."""
    return uuid.uuid4().int % 0xFFFFFF


@pytest.fixture
async def fake() -> AsyncIterator[FakeComfyUI]:
    """Run a fake ComfyUI."""
    async with FakeComfyUI() as server:
        yield server


@pytest.fixture
async def server(fake: FakeComfyUI) -> AsyncIterator[LocalServer]:
    """Serve in front of a ComfyUI, without a limit."""
    async with LocalServer(comfyui=REAL or fake.url, limit=None) as running:
        yield running


@pytest.fixture
async def comfy(server: LocalServer) -> AsyncIterator[ComfyControl]:
    """Open a client."""
    async with ComfyControl(
        server.token, base_url=server.url, limiter=LocalLimiter(server.limit, server.period)
    ) as client:
        yield client


async def test_run(comfy: ComfyControl, tmp_path: Path) -> None:
    """A picture is run and downloaded by unchanged code, with the graph in it."""
    drawn = color()
    run = await comfy.run(GRAPH, params={"color": drawn})
    (path,) = await run.download(tmp_path)
    assert json.loads(read_png_text(path.read_bytes())["prompt"])["1"]["inputs"]["color"] in (drawn, str(drawn))


async def test_errors(comfy: ComfyControl) -> None:
    """A failure of a node is the client's error, with node type, error type and message."""
    graph = {
        "1": {"class_type": "RegexReplace", "inputs": {"string": "a", "regex_pattern": "(", "replace": "x"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(WorkflowFailedError) as caught:
        await comfy.run(graph)
    error = caught.value
    assert (error.node_type, error.exception_type) == ("RegexReplace", "re.error")
    assert "missing )" in str(error.exception_message)


@only_fake
async def test_cancel(comfy: ComfyControl, fake: FakeComfyUI) -> None:
    """A run that is cancelled ends as cancelled."""
    fake.seconds = 1000.0
    run = await comfy.submit(GRAPH, params={"color": color()})
    await eventually(lambda: fake.running is not None)
    fake.seconds = 0.0
    waiting = await comfy.submit(GRAPH, params={"color": color()})
    await eventually(lambda: len(fake.pending) == 1)
    await waiting.cancel()
    with pytest.raises(WorkflowCancelledError):
        await waiting.wait()
    assert fake.pending == []
    assert (await run.refresh()).status == "running"


@only_fake
async def test_batch(comfy: ComfyControl, fake: FakeComfyUI, tmp_path: Path) -> None:
    """A batch with downloads goes through, each row with its picture."""
    fake.seconds = 0.001
    rows = [{"color": number} for number in range(12)]
    results = [result async for result in comfy.map(GRAPH, rows, download_to=tmp_path)]
    assert [result.error for result in results] == [None] * 12
    for result in results:
        (path,) = result.paths
        assert json.loads(read_png_text(path.read_bytes())["prompt"])["1"]["inputs"]["color"] == str(
            result.row["color"]
        )


@only_fake
@pytest.mark.slow
async def test_speed(comfy: ComfyControl, server: LocalServer, fake: FakeComfyUI, tmp_path: Path) -> None:
    """A wait ends 0.3 s after a prompt of 0.04 s at most; 40 rows of 50 ms with downloads take 4 s at most."""
    late = []
    for _ in range(10):
        run = await comfy.run(GRAPH, params={"color": color()})
        late.append(server.now - server.workflows[run.id].life.queued - fake.seconds)
    assert max(late) <= 0.3
    fake.seconds = 0.05
    began = server.now
    rows = [{"color": number} for number in range(40)]
    assert [result.error async for result in comfy.map(GRAPH, rows, download_to=tmp_path)] == [None] * 40
    assert server.now - began <= 4.0


@only_fake
@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [False, True])
async def test_killed(comfy: ComfyControl, server: LocalServer, fake: FakeComfyUI, comes_back: bool) -> None:
    """Killed in the middle of a run, that fails with a reason within 15 s; the next run after a restart completes."""
    fake.seconds = 1000.0
    run = await comfy.submit(GRAPH, params={"color": color()})
    await eventually(lambda: fake.running is not None)
    began = server.now
    await fake.kill()
    fake.seconds = 0.04
    if comes_back:
        await fake.start()
    with pytest.raises(WorkflowFailedError, match=r"restarted|cannot be reached"):
        await run.wait()
    assert server.now - began <= 15.0
    if not comes_back:
        await fake.start()
    assert (await comfy.run(GRAPH, params={"color": color()})).status == "completed"
