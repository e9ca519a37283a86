"""Submitting over the wire: every way of losing an answer, and nothing is lost or doubled."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import ComfyControl, RetryPolicy, SubmitOutcomeUnknownError
from comfycontrol_async.testing import LocalServer
from support import documented
from support.graphs import GRAPH
from support.services import Received, client_at, client_of, connected, own_tasks, recording, sent, serving
from support.waiting import eventually

CREATE = ("POST", "/v1/workflow")
LIST = ("GET", "/v1/workflow")


@pytest.fixture
async def comfy(server: LocalServer) -> AsyncIterator[ComfyControl]:
    """Open a client that was told the server's time: a server in scaled time is soon ahead of a later guess."""
    async with client_of(server) as client:
        await client.user.get()
        yield client


class TestAnswers:
    """What an answer that was lost, or is a 5xx, leads to."""

    @pytest.mark.parametrize("status", [500, 502, 503])
    @pytest.mark.parametrize("effect", [pytest.param(True, id="took-effect"), pytest.param(False, id="no-effect")])
    async def test_failed(self, server: LocalServer, comfy: ComfyControl, status: int, effect: bool) -> None:
        """A 5xx is looked up: what took effect is adopted after one look, what did not is sent again after five."""
        server.fail_next(*CREATE, status=status, effect=effect)
        run = await comfy.submit(GRAPH)
        assert list(server.workflows) == [run.id]
        assert len(sent(server, *CREATE)) == (1 if effect else 2)
        assert len(sent(server, *LIST)) == (1 if effect else 5)

    @pytest.mark.parametrize("effect", [pytest.param(True, id="after-acting"), pytest.param(False, id="before-acting")])
    async def test_dropped(self, server: LocalServer, comfy: ComfyControl, effect: bool) -> None:
        """A connection that broke is looked up too."""
        server.drop_next(*CREATE, after=effect)
        run = await comfy.submit(GRAPH)
        assert list(server.workflows) == [run.id]
        assert len(sent(server, *CREATE)) == (1 if effect else 2)

    async def test_first_request_of_all(self, server: LocalServer) -> None:
        """It works for a client that no answer has told the server's time."""
        server.drop_next(*CREATE, after=True)
        async with client_of(server) as comfy:
            run = await comfy.submit(GRAPH)
        assert list(server.workflows) == [run.id]

    async def test_truncated(self, server: LocalServer, comfy: ComfyControl) -> None:
        """An answer that was cut short is looked up."""
        server.truncate_next(*CREATE)
        run = await comfy.submit(GRAPH)
        assert list(server.workflows) == [run.id]

    async def test_lost_again_and_again(self, server: LocalServer, comfy: ComfyControl) -> None:
        """The second sending may be lost as well."""
        server.drop_next(*CREATE)
        server.fail_next(*CREATE, status=503)
        server.drop_next(*CREATE, after=True)
        run = await comfy.submit(GRAPH)
        assert list(server.workflows) == [run.id]
        assert len(sent(server, *CREATE)) == 3

    async def test_refused(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A 429 was certainly not processed: it is sent again and nothing is looked for."""
        server.fail_next(*CREATE, status=429)
        comfy.limiter.cool_down(0.0)
        await asyncio.wait_for(comfy.submit(GRAPH), 5)
        assert len(server.workflows) == 1
        assert sent(server, *LIST) == []

    async def test_listed_late(self) -> None:
        """A workflow that the list shows 20 s after its creation is found all the same."""
        async with connected(list_lag=20.0) as (server, comfy):
            server.drop_next(*CREATE, after=True)
            run = await comfy.submit(GRAPH)
            assert list(server.workflows) == [run.id]
            assert len(sent(server, *LIST)) > 1

    async def test_run_goes_on(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A run whose submit was lost is waited for and gives its outputs, as any other."""
        server.drop_next(*CREATE, after=True)
        run = await comfy.run(GRAPH)
        assert len(await run.outputs()) == 1
        assert run.name == server.workflows[run.id].name

    @pytest.mark.parametrize("year", ["0001", "9999"])
    async def test_date_beyond_reason(self, year: str) -> None:
        """A Date that no clock shows is none: what was lost is found all the same."""
        listed: list[dict[str, Any]] = []

        def answer(received: Received) -> web.Response:
            headers = {"Date": f"Mon, 01 Jan {year} 00:00:00 GMT"}
            if documented.WORKFLOW_ID in received.target:
                return web.json_response({**documented.WORKFLOW, **listed[0], "workflow_json": {}}, headers=headers)
            if received.method == "GET":
                return web.json_response({"workflows": listed, "total": len(listed)}, headers=headers)
            now = datetime.now(UTC).isoformat()
            listed.append({**documented.ACCEPTED, "name": "mine", "tags": [], "created_at": now, "updated_at": now})
            return web.Response(status=502, headers=headers)

        async with recording(answer) as api, client_at(api.url) as comfy:
            assert (await comfy.submit(GRAPH, name="mine")).id == documented.WORKFLOW_ID
        assert [received.method for received in api.received].count("POST") == 1

    async def test_many_at_once(self) -> None:
        """Of fifty at once over a line that loses every tenth request, each is made exactly once."""
        async with connected(loss=0.1, seed=7) as (server, comfy):
            await comfy.user.get()
            runs = await asyncio.gather(*(comfy.submit(GRAPH, name=f"row-{number}") for number in range(50)))
            assert {run.id for run in runs} == set(server.workflows)
            assert [server.workflows[run.id].name for run in runs] == [f"row-{number}" for number in range(50)]
            assert server.lost > 3


class TestUndecided:
    """What cannot be told."""

    async def test_several(self) -> None:
        """Several of one name and content, made at the same time by two clients, are named in the error."""
        # In real time, so that the twin that is made just before is as new as the one whose answer is lost.
        async with serving(speed=1.0) as server, client_of(server) as other, client_of(server) as comfy:
            await other.submit(GRAPH, name="twin")
            server.drop_next(*CREATE, after=True)
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await comfy.submit(GRAPH, name="twin")
            assert set(caught.value.candidates) == set(server.workflows)
            assert len(server.workflows) == 2
            assert comfy.get_run(caught.value.candidates[0]).status is None

    async def test_same_name_twice(self, server: LocalServer, comfy: ComfyControl) -> None:
        """The earlier workflow of the same name that this client made is no candidate."""
        first = await comfy.submit(GRAPH, name="twin")
        server.drop_next(*CREATE, after=True)
        second = await comfy.submit(GRAPH, name="twin")
        server.drop_next(*CREATE)
        third = await comfy.with_options().submit(GRAPH, name="twin")
        assert set(server.workflows) == {first.id, second.id, third.id}

    async def test_looks_that_fail(self, server: LocalServer) -> None:
        """When no look succeeds, nothing is sent again, and the cause is attached."""
        server.drop_next(*CREATE, after=True)
        server.fail_next(*LIST, status=502, times=100)
        async with client_of(server, retry=RetryPolicy(attempts=2, base_delay=0.005)) as comfy:
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await comfy.submit(GRAPH)
        assert "502" in str(caught.value.__cause__)
        assert len(sent(server, *CREATE)) == 1

    async def test_server_is_gone(self) -> None:
        """When the server vanishes in the middle of it, the error comes within the bounds of the policy."""
        async with serving() as server, client_of(server, retry=RetryPolicy(attempts=2, base_delay=0.005)) as comfy:
            server.delay_next(*CREATE, 1000.0)
            submitting = asyncio.create_task(comfy.submit(GRAPH))
            await eventually(lambda: len(server.workflows) == 1)
            await server.stop()
            with pytest.raises(SubmitOutcomeUnknownError):
                await submitting

    async def test_cancelled(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A submit that is cancelled, in whatever state, leaves nothing running."""
        before = own_tasks()
        for pause in (0.0, 0.003, 0.01, 0.05, 0.1):
            server.drop_next(*CREATE)
            submitting = asyncio.create_task(comfy.submit(GRAPH))
            await asyncio.sleep(pause)
            submitting.cancel()
            await asyncio.wait([submitting])
            # The server's handler of a kept-alive connection stays; anything else may take another turn of the loop.
            await eventually(lambda: all("RequestHandler" in repr(task) for task in own_tasks() - before))
            assert sum(comfy.limiter.snapshot().waiting.values()) == 0
