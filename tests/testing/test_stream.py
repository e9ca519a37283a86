"""Streams of updates."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from support.bare_api import Api, serving
from support.waiting import eventually


async def events(api: Api, id: str) -> AsyncIterator[Any]:
    """Yield the events of a stream until it ends."""
    headers = {"Authorization": f"Bearer {api.server.token}", "Accept": "text/event-stream"}
    async with api.session.get(f"{api.server.url}/v1/workflow/{id}/subscribe", headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        async for line in response.content:
            if line.strip():
                assert line.startswith(b"data: ")
                yield json.loads(line[6:])


async def test_until_completed() -> None:
    """Updates come at once and at every tick; the last one has the outputs, and the server closes."""
    async with serving(speed=8.0, delays=(1.0, 2.0, 2.0), duration=4.0) as api:
        id = await api.create()
        before = api.server.now
        seen = [event async for event in events(api, id)]
        assert [it["status"] for it in seen] == ["accepted", "uploaded", "queued", "running", "running", "completed"]
        assert api.server.now - before >= 9.9
        assert [it["queue_number"] is None for it in seen] == [True, True, False, False, False, True]
        assert [it["prompt"] is None for it in seen] == [True, True, True, False, False, False]
        assert [bool(it["outputs"]) for it in seen] == [False] * 5 + [True]
        assert set(seen[-1]["outputs"][0]) == {"id", "workflow_id", "src"}
        assert seen[-1]["cause"] is None
        assert seen[-1]["completed_at"] is not None
        assert (await api.call("GET", seen[-1]["outputs"][0]["src"], headers={})).status == 200
        assert len(api.server.requests) == 2


@pytest.mark.parametrize("end", ["failed", "cancelled"])
async def test_other_ends(end: str) -> None:
    """A stream also ends at `failed`, with the cause, and at `cancelled`."""
    async with serving(delays=(0, 0, 0), duration=0, outcome=lambda index: end) as api:
        seen = [event async for event in events(api, await api.create())]
        assert [it["status"] for it in seen] == [end]
        cause = seen[0]["cause"]
        assert (cause is not None) == (end == "failed")
        if cause is not None:
            assert set(cause) == {"node_type", "exception_type", "exception_message"}
            assert cause["node_type"] == "SaveImage"
        assert seen[0]["outputs"] == []


async def test_invalid_does_not_end_it() -> None:
    """At `invalid` the updates go on to the last one allowed."""
    async with serving(sse_updates=4, delays=(0, 0, 0), outcome=lambda index: "invalid") as api:
        seen = [event["status"] async for event in events(api, await api.create())]
        assert seen == ["invalid"] * 4


async def test_last_update() -> None:
    """After the last update the server closes, though the workflow goes on."""
    async with serving(sse_updates=3, duration=1e6, delays=(0, 0, 0)) as api:
        before = api.server.now
        assert [event["status"] async for event in events(api, await api.create())] == ["running"] * 3
        assert api.server.now - before >= 3.9


async def test_client_that_leaves() -> None:
    """A stream whose client has gone ends without a trace."""
    async with serving(duration=1e6, sse_interval=1.0) as api:
        id = await api.create()
        async for _ in events(api, id):
            break
        await eventually(lambda: api.server.open_streams == 0)


async def test_cut_streams() -> None:
    """Open streams can be cut off, and can be asked for again."""
    async with serving(speed=20.0, duration=1e6, sse_interval=2.0) as api:
        id = await api.create()
        stream = events(api, id)
        await anext(stream)
        assert api.server.open_streams == 1
        assert api.server.cut_streams() == 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await anext(stream)
        again = events(api, id)
        await anext(again)
        await again.aclose()  # type: ignore[attr-defined]
