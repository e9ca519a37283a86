"""Keys over the wire: processes that are killed, redelivered and run at once give one workflow."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import InvalidArgumentError, KeyConflictError
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import client_of, sent, serving
from support.waiting import eventually

WORKER = Path(__file__).parent.parent / "support" / "keyed_submit.py"
# Workflows stay in the queue, where a younger twin can be cancelled.
QUEUED: dict[str, Any] = {"speed": 1.0, "delays": (0.0, 0.0, 600.0)}


@pytest.fixture
async def server() -> AsyncIterator[LocalServer]:
    """Run a server in real time."""
    async with serving(**QUEUED) as server:
        yield server


async def test_adopted(server: LocalServer) -> None:
    """Another client adopts what the first made, as a run; another content is refused, and so is a bad age."""
    async with client_of(server) as first, client_of(server) as second:
        made = await first.submit(GRAPH, key="order-17", name="order")
        assert made.name.startswith("order~")
        adopted = await second.submit(GRAPH, key="order-17", name="order", params={"color": 3368601})
        assert (adopted.id, adopted.name, len(server.workflows)) == (made.id, made.name, 1)
        with pytest.raises(KeyConflictError) as caught:
            await second.run(GRAPH, key="order-17", params={"color": 1})
        assert caught.value.id == made.id
        with pytest.raises(InvalidArgumentError, match="key_max_age"):
            await second.submit(GRAPH, key="order-17", key_max_age=-1)
        assert len(sent(server, "POST")) == 1


async def test_no_look(server: LocalServer) -> None:
    """`key_max_age=0` costs one request."""
    async with client_of(server) as comfy:
        await comfy.submit(GRAPH, key="order-17", key_max_age=0)
    assert sent(server) == ["POST /v1/workflow"]


async def start(server: LocalServer, key: str) -> Process:
    """Start a process that submits with a key, and wait until it is about to."""
    arguments = (str(WORKER), server.url, server.token, key)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def result(process: Process) -> str:
    """Return the id that a process printed."""
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode().strip()


@pytest.mark.slow
async def test_killed_between_post_and_answer(server: LocalServer) -> None:
    """What a process made that was killed before it had the answer is adopted by the next delivery."""
    server.delay_next("POST", "/v1/workflow", 1000.0)
    dying = await start(server, "order-17")
    await eventually(lambda: len(server.workflows) == 1)
    dying.kill()
    await dying.communicate()
    ids = [await result(await start(server, "order-17")) for _ in range(2)]
    assert ids == [*server.workflows] * 2


@pytest.mark.slow
async def test_two_processes_at_once(server: LocalServer) -> None:
    """Two that come at the same instant give one workflow that goes on, and both know it."""
    processes = await asyncio.gather(*(start(server, "order-17") for _ in range(2)))
    ids = await asyncio.gather(*map(result, processes))
    assert len(set(ids)) == 1
    going_on = [id for id, record in server.workflows.items() if record.status != "cancelled"]
    assert going_on == [ids[0]]
