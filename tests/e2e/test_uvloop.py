"""The main path under uvloop."""

import asyncio
import gc
from pathlib import Path

import pytest

from comfycontrol_async import ComfyControl, ConnectionFailedError, RetryPolicy
from comfycontrol_async.testing import LocalServer, read_png_text
from support.graphs import FILE_GRAPH
from support.services import SPEED, client_of

uvloop = pytest.importorskip("uvloop")


def test_main_path(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Submit, wait, download, an upload after a 429, a dropped connection, a cut stream and a cancellation."""
    server = LocalServer(speed=SPEED, limit=200, duration=4.0)
    clients: list[ComfyControl] = []

    async def use() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, uvloop.Loop)
        async with server:
            comfy = clients[0] if clients else client_of(server)
            clients.append(comfy)
            server.fail_next("POST", "/v1/workflow", status=429)
            server.drop_next("GET", "/v1/user")
            await comfy.user.get()
            run = await comfy.run(FILE_GRAPH, params={"prefix": "uv", "image": bytes(200_000)}, timeout=30)
            (path,) = await run.download(tmp_path / run.id)
            assert '"uv"' in read_png_text(path.read_bytes())["prompt"]
            waiting = asyncio.create_task(comfy.run(FILE_GRAPH, params={"prefix": "x", "image": b"y"}))
            await asyncio.sleep(0.03)
            server.cut_streams()
            await waiting
            doomed = asyncio.create_task(comfy.run(FILE_GRAPH, params={"prefix": "x", "image": b"y"}))
            await asyncio.sleep(0.03)
            doomed.cancel()
            await asyncio.wait([doomed])
            runs = await asyncio.gather(
                *(comfy.run(FILE_GRAPH, params={"prefix": "x", "image": b"y"}) for _ in range(10))
            )
            assert {one.status for one in runs} == {"completed"}
            assert server.refused == len(clients)  # the one that was ordered

    async def close() -> None:
        with pytest.raises(ConnectionFailedError):
            await clients[0].with_options(retry=RetryPolicy(attempts=1)).user.get()
        await clients[0].aclose()

    for step in (use, use, close):
        uvloop.run(step())
    gc.collect()
    assert [str(it.message) for it in recwarn] == []
