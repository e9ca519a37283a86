"""Streams of updates: one connection as the API gives it, and waiting on top of it."""

import asyncio
import itertools
import json
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import (
    ComfyControl,
    LocalLimiter,
    NotFoundError,
    ResponseFormatError,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
    WatchPolicy,
    WorkflowInvalidError,
    WorkflowStatus,
    WorkflowUpdate,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import (
    ID,
    UNKNOWN_ID,
    Received,
    client_of,
    connected,
    raw_server,
    recording,
    sent,
    serving,
)
from support.waiting import eventually

# Long enough for several updates and looks, short enough for a quick test.
SLOW: dict[str, Any] = {"duration": 16.0, "sse_interval": 1.0, "speed": 100.0}
ENDLESS: dict[str, Any] = {"delays": (0.0, 0.0, 0.0), "duration": 10_000.0}


def event(status: str, **facts: Any) -> bytes:
    """Write one event as the API does."""
    update: dict[str, Any] = {"status": status, "prompt": None, "queue_number": None, "outputs": [], "cause": None}
    return b"data: " + json.dumps(update | {"started_at": None, "completed_at": None} | facts).encode() + b"\n\n"


class TestSubscribe:
    """One connection."""

    async def test_every_update_as_it_comes(self) -> None:
        """The updates of one request come through to the last, which carries the outputs."""
        updates: list[WorkflowUpdate] = []
        async with connected(**ENDLESS) as (server, comfy):
            made = await comfy.workflows.create(GRAPH, name="w")
            async for update in comfy.workflows.subscribe(made.id):
                updates.append(update)
                if len(updates) == 5:
                    server.finish(made.id)
        assert [update.status for update in updates] == ["running"] * 5 + ["completed"]
        assert [output.workflow_id for output in updates[-1].outputs] == [made.id]
        assert updates[-1].completed_at is not None
        assert sent(server, "GET") == [f"GET /v1/workflow/{made.id}/subscribe"]
        assert server.requests[-1].headers["Accept"] == "text/event-stream, application/json"

    async def test_the_last_update_allowed(self) -> None:
        """The server closes after its last update, and the iteration ends there."""
        async with connected(sse_updates=5, **ENDLESS) as (_, comfy):
            made = await comfy.workflows.create(GRAPH, name="w")
            updates = [update async for update in comfy.workflows.subscribe(made.id)]
        assert len(updates) == 5
        assert not updates[-1].status.terminal

    async def test_not_found(self, server: LocalServer, comfy: ComfyControl) -> None:
        """An unknown workflow is a 404, asked once."""
        with pytest.raises(NotFoundError, match="requested entity not found"):
            await anext(comfy.workflows.subscribe(UNKNOWN_ID))
        assert len(server.requests) == 1

    async def test_cut(self) -> None:
        """A connection that breaks is told apart from an end."""
        async with connected(duration=10_000.0) as (server, comfy):
            made = await comfy.workflows.create(GRAPH, name="w")
            updates = comfy.workflows.subscribe(made.id)
            await anext(updates)
            server.cut_streams()
            with pytest.raises(ResponseLostError):
                async for _ in updates:
                    pass

    async def test_silence(self) -> None:
        """A stream that says nothing for longer than the read timeout is broken."""
        async with (
            serving(duration=10_000.0, sse_interval=10_000.0) as server,
            client_of(server, timeouts=Timeouts(read=0.1)) as comfy,
        ):
            made = await comfy.workflows.create(GRAPH, name="w")
            updates = comfy.workflows.subscribe(made.id)
            await anext(updates)
            with pytest.raises(TransportError):
                await anext(updates)

    async def test_leaving_early(self) -> None:
        """Leaving the iteration closes the connection."""
        async with connected(duration=10_000.0) as (server, comfy):
            made = await comfy.workflows.create(GRAPH, name="w")
            updates = comfy.workflows.subscribe(made.id)
            await anext(updates)
            assert server.open_streams == 1
            await updates.aclose()
            await eventually(lambda: server.open_streams == 0)

    async def test_a_failed_start_is_tried_again(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Opening a stream is a GET like any other: a 503 and a 429 are absorbed."""
        made = await comfy.workflows.create(GRAPH, name="w")
        server.fail_next("GET", "*", status=503)
        server.fail_next("GET", "*", status=429)
        assert (await anext(comfy.workflows.subscribe(made.id))).status in WorkflowStatus
        assert len(sent(server, "GET")) == 3

    @pytest.mark.parametrize(
        ("body", "statuses"),
        [
            pytest.param(event("queued") + event("completed"), ["queued", "completed"], id="plain"),
            pytest.param(event("queued").replace(b"\n", b"\r\n") + event("failed"), ["queued", "failed"], id="crlf"),
            pytest.param(b": hello\n\nretry: 10\n\nid: 1\nevent: x\n" + event("running"), ["running"], id="fields"),
            pytest.param(b"\xef\xbb\xbf" + event("running"), ["running"], id="byte-order-mark"),
            pytest.param(event("running") + b'data: {"status": "comp', ["running"], id="broken-off"),
            pytest.param(event("running", extra={"a": [1]}, outputs=None), ["running"], id="unknown-and-null"),
            pytest.param(event("archived"), ["archived"], id="unknown-status"),
            pytest.param(b"", [], id="nothing"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 7, 10_000])
    async def test_any_chunking(self, body: bytes, statuses: list[str], size: int) -> None:
        """However the bytes are cut into packets, the same events come out."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for start in range(0, len(body), size):
                writer.write(body[start : start + size])
                await writer.drain()
                await asyncio.sleep(0)

        async with raw_server(talk) as port:
            comfy = ComfyControl("cfc_x", base_url=f"http://127.0.0.1:{port}", limiter=LocalLimiter(10, 10.0))
            async with comfy:
                assert [update.status async for update in comfy.workflows.subscribe(ID)] == statuses

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b'data: {"status": 1, "prompt": null}\n\n', id="status-of-another-type"),
            pytest.param(b'data: {"status": "running", "outputs": 1}\n\n', id="no-list"),
            pytest.param(b"data: \xff\xfe\n\n", id="no-utf-8"),
        ],
    )
    async def test_unreadable_events(self, body: bytes) -> None:
        """An event that is not what the API documents is our own error."""

        def answer(received: Received) -> web.Response:
            return web.Response(body=body, content_type="text/event-stream")

        limiter = LocalLimiter(10, 10.0)
        async with recording(answer) as other, ComfyControl("cfc_x", base_url=other.url, limiter=limiter) as comfy:
            with pytest.raises(ResponseFormatError):
                await anext(comfy.workflows.subscribe(ID))


async def statuses_of(comfy: ComfyControl, id: str) -> list[str]:
    """Follow a workflow to its end and return the statuses, each once."""
    updates: list[WorkflowUpdate] = [update async for update in comfy.get_run(id).updates()]
    return [str(status) for status, _ in itertools.groupby(update.status for update in updates)]


class TestWaiting:
    """Waiting goes on, whatever becomes of a stream."""

    async def test_one_stream_for_all_of_it(self) -> None:
        """A run that is waited for costs its submit and one stream."""
        async with connected(**SLOW) as (server, comfy):
            run = await comfy.run(GRAPH, name="w")
        assert run.status == "completed"
        assert sent(server) == ["POST /v1/workflow", f"GET /v1/workflow/{run.id}/subscribe"]

    async def test_reconnects_after_the_last_update(self) -> None:
        """After the server's last update the next stream goes on: one request each, and nothing else."""
        async with connected(sse_updates=8, sse_interval=2.0, speed=100.0, **ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH, name="w")
            waiting = asyncio.create_task(run.wait())
            await eventually(lambda: len(sent(server, "GET", "/subscribe")) == 4)
            server.finish(run.id)
            assert (await waiting).status == "completed"
        assert sent(server)[1:] == [f"GET /v1/workflow/{run.id}/subscribe"] * len(server.requests[1:])

    @staticmethod
    def streaming(server: LocalServer, count: int) -> bool:
        """Return True once `count` streams were asked for and one is open."""
        return len(sent(server, "GET", "/subscribe")) >= count and server.open_streams > 0

    async def test_reconnects_when_cut(self) -> None:
        """A stream that is cut is opened again, and the wait goes on."""
        async with connected(**ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH, name="w")
            waiting = asyncio.create_task(run.wait())
            for streams in (1, 2, 3):
                await eventually(partial(self.streaming, server, streams))
                if streams < 3:
                    server.cut_streams()
            server.finish(run.id)
            assert (await waiting).status == "completed"
            assert len(sent(server, "GET", "/subscribe")) == 3
            assert len(server.requests) == 4

    async def test_truncated_streams(self) -> None:
        """A stream that breaks off after one update each time still gets there."""
        async with connected(**SLOW) as (server, comfy):
            run = await comfy.submit(GRAPH, name="w")
            server.truncate_next("GET", "/v1/workflow/{id}/subscribe", times=3)
            assert (await run.wait()).status == "completed"

    async def test_polls_when_streams_fail(self) -> None:
        """When no stream can be had, the workflow is looked for otherwise; the outputs are asked for then."""
        async with serving(**SLOW) as server:
            async with client_of(server, retry=RetryPolicy(attempts=2, base_delay=0.001)) as comfy:
                server.fail_next("GET", "/v1/workflow/{id}/subscribe", status=500, times=1000)
                run = await comfy.run(GRAPH, name="w")
                assert run.status == "completed"
                assert run.workflow is not None
                assert run.workflow.completed_at is not None
                assert len(await run.outputs()) == 1
            failed = sent(server, "GET", "/subscribe")
            assert len(failed) <= 10
            assert len(server.requests) > len(failed) + 2

    async def test_no_streams_at_all(self) -> None:
        """With `max_streams=0` no stream is opened."""
        async with serving(**SLOW) as server:
            policy = WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=0)
            async with client_of(server, watch=policy) as comfy:
                run = await comfy.run(GRAPH, name="w")
        assert run.status == "completed"
        assert sent(server, "GET", "/subscribe") == []
        assert 2 <= len(sent(server, "GET")) <= 45

    async def test_polling_survives_faults(self) -> None:
        """Polls that fail now and then are no verdict on the workflow."""
        async with serving(**SLOW) as server:
            policy = WatchPolicy(min_interval=1 / server.speed, max_interval=2 / server.speed, max_streams=0)
            retry = RetryPolicy(attempts=1)
            async with client_of(server, watch=policy, retry=retry) as comfy:
                run = await comfy.submit(GRAPH, name="w")
                for _ in range(3):
                    server.fail_next("GET", "*", status=503)
                    server.drop_next("GET", "*")
                    server.fail_next("GET", "*", status=200, body="<html>sorry</html>", content_type="text/html")
                assert (await asyncio.wait_for(_wait_patiently(run), 20)).status == "completed"

    async def test_polling_gives_up(self) -> None:
        """After many failures the wait ends with the failure, not with "still pending"."""
        async with serving(duration=10_000.0) as server:
            policy = WatchPolicy(min_interval=1 / server.speed, max_interval=1 / server.speed)
            async with client_of(server, watch=policy, retry=RetryPolicy(attempts=2, base_delay=0.0)) as comfy:
                run = await comfy.submit(GRAPH, name="w")
                server.fail_next("GET", "*", status=503, times=100_000)
                with pytest.raises(ServerError):
                    await run.wait()
                assert len(server.requests) < 60

    @pytest.mark.parametrize("streams", [8, 0], ids=["stream", "poll"])
    async def test_invalid_ends_the_wait(self, streams: int) -> None:
        """`invalid` ends a wait, although the server's stream goes on."""
        async with serving(outcome=lambda index: "invalid") as server:
            policy = WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=streams)
            async with client_of(server, watch=policy) as comfy:
                with pytest.raises(WorkflowInvalidError) as caught:
                    await comfy.run(GRAPH, name="w", timeout=20)
                await eventually(lambda: server.open_streams == 0)
        assert caught.value.status == "invalid"

    @pytest.mark.parametrize("streams", [8, 0], ids=["stream", "poll"])
    async def test_unknown_workflow(self, server: LocalServer, streams: int) -> None:
        """A workflow that does not exist ends the wait at once."""
        async with client_of(server, watch=WatchPolicy(min_interval=0.02, max_streams=streams)) as comfy:
            with pytest.raises(NotFoundError):
                await comfy.get_run(UNKNOWN_ID).wait(timeout=20)
        assert len(server.requests) <= 2

    @pytest.mark.parametrize("streams", [8, 0], ids=["stream", "poll"])
    async def test_deleted_meanwhile(self, streams: int) -> None:
        """So does one that is gone all of a sudden."""
        async with serving(duration=10_000.0) as server:
            policy = WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=streams)
            async with client_of(server, watch=policy) as comfy:
                run = await comfy.submit(GRAPH, name="w")
                waiting = asyncio.create_task(run.wait(timeout=20))
                before = len(server.requests)
                await eventually(lambda: len(server.requests) > before)
                server.forget(run.id)
                server.cut_streams()
                with pytest.raises(NotFoundError):
                    await waiting

    async def test_updates_tell_changes_only(self) -> None:
        """Of all the events of a stream only those are given that tell something new."""
        async with connected(delays=(1.0, 1.0, 4.0), **SLOW) as (_, comfy):
            run = await comfy.submit(GRAPH, name="w")
            updates = [update async for update in run.updates()]
        assert all(before != after for before, after in itertools.pairwise(updates))
        assert len(updates) <= 10
        assert updates[-1].status == "completed"
        assert sum(update.status == "running" for update in updates) == 1

    async def test_two_waits_share_a_stream(self) -> None:
        """Waiting twice for one workflow costs no second stream, and both are told."""
        async with connected(**SLOW) as (server, comfy):
            run = await comfy.submit(GRAPH, name="w")
            other = comfy.get_run(run.id)
            first, second, statuses = await asyncio.gather(run.wait(), other.wait(), statuses_of(comfy, run.id))
            assert first.status == second.status == "completed"
            assert statuses[-1] == "completed"
            assert len(sent(server, "GET", "/subscribe")) == 1

    async def test_many_at_once(self) -> None:
        """More workflows than streams are all told of, with the streams bounded."""
        async with connected(**SLOW) as (server, comfy):
            most = 0

            async def watch_streams() -> None:
                nonlocal most
                while True:
                    most = max(most, server.open_streams)
                    await asyncio.sleep(0.001)

            watching = asyncio.create_task(watch_streams())
            runs = await asyncio.gather(*(comfy.run(GRAPH, name=f"w{number}") for number in range(30)))
            watching.cancel()
            assert {run.status for run in runs} == {"completed"}
            assert most <= 8
            assert len(server.requests) < 30 + 100

    async def test_nothing_is_left_behind(self) -> None:
        """After the waits are over no task and no stream goes on."""
        async with connected(**SLOW) as (server, comfy):
            before = asyncio.all_tasks()
            await asyncio.gather(*(comfy.run(GRAPH, name=f"w{number}") for number in range(12)))
            await eventually(lambda: server.open_streams == 0)
            assert {task for task in asyncio.all_tasks() - before if "comfycontrol" in task.get_name()} == set()
            assert comfy.limiter.snapshot().used <= len(server.requests)


async def _wait_patiently(run: Any) -> Any:
    """Wait, and begin again when looking failed for good."""
    while True:
        try:
            return await run.wait()
        except (ServerError, TransportError, ResponseFormatError):
            continue


async def test_waiting_under_the_real_rhythm() -> None:
    """At the service's own ratio of speed to limit, 40 runs at once end without a 429."""
    async with serving(limit=40, duration=20.0) as server:
        async with client_of(server) as comfy:
            runs = await asyncio.gather(*(comfy.run(GRAPH, name=f"w{number}") for number in range(40)))
        assert {run.status for run in runs} == {"completed"}
        assert server.refused == 0
        assert server.max_in_window <= 40
