"""Runs: waiting for a workflow, looking at it, acting on it, and what each of that costs."""

import asyncio
import copy
import pickle
from typing import Any

import pytest

from comfycontrol_async import (
    BadRequestError,
    ClientClosedError,
    ComfyControl,
    ComfyControlError,
    GraphError,
    InvalidArgumentError,
    NotFoundError,
    RetryPolicy,
    WaitTimeoutError,
    WatchPolicy,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowInvalidError,
    WorkflowNotFinishedError,
    WorkflowUpdate,
)
from comfycontrol_async.events import WorkflowChanged
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH, GRAPH
from support.services import UNKNOWN_ID, client_of, connected, sent, serving
from support.waiting import eventually

ENDLESS: dict[str, Any] = {"delays": (0.0, 0.0, 0.0), "duration": 10_000.0}


def polling(server: LocalServer) -> WatchPolicy:
    """Make a policy without streams."""
    return WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=0)


class TestCost:
    """How many requests a run takes."""

    async def test_one_run_is_two_requests(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Submit and one stream: the outputs come with its last event."""
        run = await comfy.run(GRAPH, params={"color": 255}, name="cheap")
        outputs = await run.outputs()
        assert [output.workflow_id for output in outputs] == [run.id]
        assert sent(server) == ["POST /v1/workflow", f"GET /v1/workflow/{run.id}/subscribe"]
        assert (run.name, run.status) == ("cheap", "completed")

    async def test_get_run_is_none(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A handle of an existing workflow costs nothing, and an id that cannot be one is refused."""
        run = comfy.get_run(UNKNOWN_ID)
        assert (run.id, run.name, run.status, run.workflow) == (UNKNOWN_ID, "", None, None)
        with pytest.raises(InvalidArgumentError, match="an id is text like"):
            comfy.get_run("../user")
        assert len(server.requests) == 0

    async def test_waiting_for_what_is_over(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A finished workflow is asked for once by a new handle, and not at all by one that knows."""
        run = await comfy.run(GRAPH)
        before = len(server.requests)
        await run.wait()
        assert [update.status async for update in run.updates()] == ["completed"]
        assert len(server.requests) == before
        again = comfy.get_run(run.id)
        assert (await again.wait()).name == run.name
        assert sent(server)[before:] == [f"GET /v1/workflow/{run.id}"]

    async def test_refresh(self, server: LocalServer, comfy: ComfyControl) -> None:
        """`refresh` is one request and fills in what only the full form has."""
        run = await comfy.submit(GRAPH, name="w", tags=["a", "b"])
        assert run.workflow is not None
        assert run.workflow.workflow_json == {}
        full = await run.refresh()
        assert run.workflow is full
        assert full.workflow_json == GRAPH
        assert full.workflow_params == [["$text(color)", "3368601"]]
        assert full.tags == ["a", "b"]
        assert full.user_runner_id in server.runners
        assert len(server.requests) == 2


class TestUpdates:
    """What a caller is told while it waits."""

    async def test_on_update(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A function is called with every change, in order, the last one final."""
        seen: list[WorkflowUpdate] = []
        run = await comfy.run(GRAPH, on_update=seen.append)
        assert seen[-1].status == "completed"
        assert [output.id for output in seen[-1].outputs] == [output.id for output in await run.outputs()]
        assert len(seen) == len({(update.status, update.queue_number) for update in seen})

    async def test_on_update_coroutine(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A coroutine function is awaited before the next change is told."""
        seen: list[str] = []
        busy = False

        async def note(update: WorkflowUpdate) -> None:
            nonlocal busy
            assert not busy
            busy = True
            await asyncio.sleep(0.01)
            seen.append(str(update.status))
            busy = False

        await comfy.run(GRAPH, on_update=note)
        assert seen[-1] == "completed"

    @pytest.mark.parametrize("kind", [ValueError, TimeoutError, asyncio.TimeoutError, KeyError])
    async def test_on_update_that_fails(self, server: LocalServer, comfy: ComfyControl, kind: type[Exception]) -> None:
        """An error of the caller's function comes through as it is, and the stream is let go."""

        def fail(update: WorkflowUpdate) -> None:
            raise kind("mine")

        with pytest.raises(kind, match="mine") as caught:
            await comfy.run(GRAPH, on_update=fail, timeout=30)
        assert type(caught.value) is kind
        await eventually(lambda: server.open_streams == 0)
        assert len(server.workflows) == 1

    async def test_events(self) -> None:
        """Each status of a workflow that is followed is an event, once, with the one before."""
        async with connected(**ENDLESS) as (server, comfy):
            seen: list[WorkflowChanged] = []
            comfy.on(WorkflowChanged, seen.append)
            waiting = asyncio.create_task(comfy.run(GRAPH, name="w"))
            await eventually(lambda: bool(seen) and seen[-1].status == "running")
            server.finish(seen[0].id)
            run = await waiting
        statuses = [event.status for event in seen]
        assert [event.previous for event in seen] == [None, *statuses[:-1]]
        assert statuses[-2:] == ["running", "completed"]
        assert {(event.id, event.name) for event in seen} == {(run.id, "w")}

    async def test_leaving_the_updates(self) -> None:
        """A caller that stops iterating holds nothing any more."""
        async with connected(**ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH)
            async for update in run.updates():
                assert update.status == "running"
                break
            await eventually(lambda: server.open_streams == 0)
            assert run.status == "running"

    async def test_queue_number(self) -> None:
        """The place in the queue is told, kept, and forgotten when the workflow runs."""
        async with connected(delays=(0.0, 0.0, 10_000.0), duration=1.0) as (server, comfy):
            run = await comfy.submit(GRAPH)
            async for update in run.updates():
                assert run.workflow is not None
                assert update.queue_number == run.workflow.queue_number
                if update.status == "queued":
                    assert update.queue_number == 3
                    server.finish(run.id)
                else:
                    assert (update.status, update.queue_number) == ("completed", None)


class TestOutcomes:
    """How a workflow can end."""

    async def test_failed_by_stream(self) -> None:
        """A failure carries what the stream says: the kind of node, and ComfyUI's own words."""
        async with connected(outcome=lambda index: "failed") as (server, comfy):
            with pytest.raises(WorkflowFailedError) as caught:
                await comfy.run(GRAPH, name="doomed")
        error = caught.value
        assert (error.id, error.name, error.status) == (next(iter(server.workflows)), "doomed", "failed")
        assert (error.node_id, error.node_type) == (None, "SaveImage")
        assert error.exception_type == "RuntimeError"
        assert error.exception_message == "the test server was told to let this workflow fail"
        assert str(error) == (
            f"workflow {error.id} (doomed): failed at SaveImage: "
            "RuntimeError: the test server was told to let this workflow fail"
        )
        assert len(server.requests) == 2
        for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
            assert (str(twin), twin.node_type) == (str(error), error.node_type)

    async def test_failed_by_polling(self) -> None:
        """Without a stream it carries what the workflow itself says: the node's id."""
        async with (
            serving(outcome=lambda index: "failed") as server,
            client_of(server, watch=polling(server)) as comfy,
        ):
            with pytest.raises(WorkflowFailedError) as caught:
                await comfy.run(GRAPH)
        assert (caught.value.node_id, caught.value.node_type) == ("2", "SaveImage")
        assert caught.value.exception_type == "RuntimeError"

    async def test_failed_in_a_crowd(self) -> None:
        """What was told of by a listing, which knows no reasons, is asked for."""
        async with (
            serving(outcome=lambda index: "failed" if index % 2 else "completed") as server,
            client_of(server, watch=polling(server)) as comfy,
        ):
            results = await asyncio.gather(*(comfy.run(GRAPH) for _ in range(12)), return_exceptions=True)
        failures = [result for result in results if isinstance(result, WorkflowFailedError)]
        assert len(failures) == 6
        assert {failure.exception_type for failure in failures} == {"RuntimeError"}

    @pytest.mark.parametrize("streams", [True, False], ids=["stream", "poll"])
    async def test_cancelled(self, streams: bool) -> None:
        """A workflow that is cancelled at the server ends the wait with its own error, after a while."""
        async with serving(cancel_delay=3.0, **ENDLESS) as server:
            options: dict[str, Any] = {} if streams else {"watch": polling(server)}
            async with client_of(server, **options) as comfy:
                run = await comfy.submit(GRAPH, name="w")
                waiting = asyncio.create_task(run.wait())
                await run.cancel()
                with pytest.raises(WorkflowCancelledError) as caught:
                    await waiting
        assert (caught.value.id, caught.value.status) == (run.id, "cancelled")
        assert run.status == "cancelled"

    async def test_cancel_crosses_the_end(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Cancelling what is over says why it cannot be."""
        run = await comfy.run(GRAPH)
        with pytest.raises(BadRequestError, match="cannot be cancelled"):
            await run.cancel()

    @pytest.mark.parametrize("status", [404, 200])
    async def test_completed_without_outputs(self, status: int) -> None:
        """Whether the service says 404 or an empty list, the outputs of a completed run are an empty list."""
        async with connected(**ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH)
            server.finish(run.id)
            await run.refresh()
            outputs = "/v1/workflow/{id}/outputs"
            server.fail_next("GET", outputs, status=status, body="[]", content_type="application/json")
            assert await run.outputs() == []

    async def test_outputs_of_what_runs(self) -> None:
        """Asking too early says that it has not ended, whether the handle knows of it or not."""
        async with connected(**ENDLESS) as (_, comfy):
            run = await comfy.submit(GRAPH)
            for handle in (run, comfy.get_run(run.id)):
                with pytest.raises(WorkflowNotFinishedError, match="it is running") as caught:
                    await handle.outputs()
                assert (caught.value.workflow_id, caught.value.status) == (run.id, "running")
            with pytest.raises(NotFoundError) as missing:
                await comfy.get_run(UNKNOWN_ID).outputs()
            assert missing.value.workflow_id == UNKNOWN_ID

    async def test_outputs_of_what_failed(self) -> None:
        """The outputs of one that failed are its failure."""
        async with connected(outcome=lambda index: "failed") as (server, comfy):
            run = await comfy.submit(GRAPH)
            await eventually(lambda: server.workflows[run.id].status == "failed")
            with pytest.raises(WorkflowFailedError, match=r"at SaveImage \(node 2\): RuntimeError"):
                await comfy.get_run(run.id).outputs()

    async def test_outputs_by_another_handle(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A handle that saw no stream asks once and remembers."""
        run = await comfy.run(GRAPH)
        other = comfy.get_run(run.id)
        before = len(server.requests)
        first, second = await other.outputs(), await other.outputs()
        assert [output.id for output in first] == [output.id for output in await run.outputs()]
        assert first == second
        assert sent(server)[before:] == [f"GET /v1/workflow/{run.id}/outputs"]


class TestTimeout:
    """A wait that is bounded."""

    @pytest.mark.parametrize("streams", [True, False], ids=["stream", "poll"])
    async def test_says_what_was_seen_last(self, streams: bool) -> None:
        """The error carries the id, the name, the last status and how long was waited; the workflow goes on."""
        async with serving(**ENDLESS) as server:
            options: dict[str, Any] = {} if streams else {"watch": polling(server)}
            async with client_of(server, **options) as comfy:
                with pytest.raises(WaitTimeoutError) as caught:
                    await comfy.run(GRAPH, name="long", timeout=0.2)
                error = caught.value
                assert isinstance(error, TimeoutError)
                assert (error.name, error.status) == ("long", "running")
                assert error.waited >= 0.2
                assert server.workflows[error.id].status == "running"
                await eventually(lambda: server.open_streams == 0)
                server.finish(error.id)
                assert (await comfy.get_run(error.id).wait(timeout=20)).status == "completed"

    async def test_nothing_was_seen(self) -> None:
        """Even when nothing was heard of it in time."""
        async with connected(**ENDLESS) as (server, comfy):
            server.delay_next("GET", "*", 10_000.0, times=10)
            with pytest.raises(WaitTimeoutError, match="last seen never") as caught:
                await comfy.get_run(UNKNOWN_ID).wait(timeout=0.1)
        assert (caught.value.id, caught.value.status) == (UNKNOWN_ID, None)

    async def test_while_the_limit_is_used_up(self) -> None:
        """Waiting for the rate limit counts as well."""
        async with serving(limit=1, speed=1.0, **ENDLESS) as server:
            async with client_of(server) as comfy:
                with pytest.raises(WaitTimeoutError):
                    await comfy.run(GRAPH, timeout=0.1)
            assert len(server.requests) == 1

    async def test_a_wait_that_is_cancelled(self) -> None:
        """Cancelling the task that waits is no timeout, and leaves the workflow alone."""
        async with connected(**ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH)
            waiting = asyncio.create_task(run.wait(timeout=60))
            await eventually(lambda: server.open_streams == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await eventually(lambda: server.open_streams == 0)
            assert server.workflows[run.id].status == "running"


class TestOnCancel:
    """What a cancelled `run` does at the server."""

    async def _cancel_while_running(self, server: LocalServer, comfy: ComfyControl, **options: Any) -> str:
        task = asyncio.create_task(comfy.run(GRAPH, **options))
        await eventually(lambda: server.open_streams == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return next(iter(server.workflows))

    async def test_detach(self) -> None:
        """By default it runs on."""
        async with connected(**ENDLESS) as (server, comfy):
            id = await self._cancel_while_running(server, comfy)
            assert server.workflows[id].status == "running"
            assert sent(server, "POST") == ["POST /v1/workflow"]

    async def test_cancel(self) -> None:
        """With "cancel" it is cancelled, by one request."""
        async with connected(**ENDLESS) as (server, comfy):
            id = await self._cancel_while_running(server, comfy, on_cancel="cancel")
            assert server.workflows[id].status == "cancelled"
            assert sent(server, "POST") == ["POST /v1/workflow", f"POST /v1/workflow/{id}/cancel"]

    async def test_cancel_by_a_timeout_around(self) -> None:
        """An `asyncio.timeout` of the caller is a cancellation too."""
        async with connected(**ENDLESS) as (server, comfy):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    await comfy.run(GRAPH, on_cancel="cancel", on_update=lambda update: limit.reschedule(0.0))
            assert [record.status for record in server.workflows.values()] == ["cancelled"]

    async def test_own_timeout_is_no_cancellation(self) -> None:
        """The `timeout` of `run` lets the workflow go on."""
        async with connected(**ENDLESS) as (server, comfy):
            with pytest.raises(WaitTimeoutError):
                await comfy.run(GRAPH, on_cancel="cancel", timeout=0.1)
            assert [record.status for record in server.workflows.values()] == ["running"]

    async def test_cancel_that_fails(self) -> None:
        """When the cancel itself fails, the cancellation still goes through."""
        async with connected(**ENDLESS) as (server, comfy):
            server.fail_next("POST", "/v1/workflow/{id}/cancel", status=403)
            await self._cancel_while_running(server, comfy, on_cancel="cancel")

    async def test_cancel_before_it_is_queued(self) -> None:
        """A workflow that the API cannot cancel yet is cancelled as soon as it is queued."""
        async with connected(**{**ENDLESS, "delays": (1.0, 5.0, 0.5)}) as (server, comfy):
            id = await self._cancel_while_running(server, comfy, on_cancel="cancel")
            assert server.workflows[id].status == "cancelled"

    async def test_anything_else(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Any other word is refused before anything is sent."""
        with pytest.raises(InvalidArgumentError, match="on_cancel"):
            await comfy.run(GRAPH, on_cancel="abort")  # type: ignore[arg-type] # that is what is tested
        assert len(server.requests) == 0


class TestOnTimeout:
    """What a `run` that was not finished in time does at the server."""

    async def test_cancel(self) -> None:
        """With "cancel" it is cancelled, by one request, and the error is the same."""
        async with connected(**ENDLESS) as (server, comfy):
            with pytest.raises(WaitTimeoutError) as caught:
                await comfy.run(GRAPH, timeout=0.2, on_timeout="cancel")
            assert server.workflows[caught.value.id].status == "cancelled"
            assert len(sent(server, "POST", "/cancel")) == 1

    async def test_completed_meanwhile(self) -> None:
        """If it completed before it could be cancelled, the run is returned as if it had been in time."""
        async with serving(**ENDLESS) as server:
            rare = WatchPolicy(min_interval=50.0, max_interval=50.0, max_streams=0)
            async with client_of(server, watch=rare) as comfy:
                running = asyncio.create_task(comfy.run(GRAPH, timeout=0.4, on_timeout="cancel"))
                await eventually(lambda: len(server.workflows) == 1)
                server.finish(next(iter(server.workflows)))
                run = await running
            assert run.status == "completed"

    async def test_anything_else(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Any other word is refused before anything is sent."""
        with pytest.raises(InvalidArgumentError, match="on_timeout"):
            await comfy.run(GRAPH, on_timeout="abort")  # type: ignore[arg-type] # that is what is tested
        assert len(server.requests) == 0


class TestErrorsNameTheWorkflow:
    """Whatever ends a call after the submit says which workflow goes on."""

    @staticmethod
    def check(error: BaseException, id: str) -> None:
        """See that an error names a workflow, once, and that errors of ours have it as a field."""
        assert sum(id in note for note in getattr(error, "__notes__", ())) == 1
        if isinstance(error, ComfyControlError):
            assert error.workflow_id == id
            assert pickle.loads(pickle.dumps(error)).workflow_id == id

    async def test_closed(self) -> None:
        """Each of several waits for one workflow gets an error of its own that names it."""
        async with connected(**ENDLESS) as (server, comfy):
            runs = [asyncio.create_task(comfy.run(GRAPH)) for _ in range(2)]
            await eventually(lambda: server.open_streams == 2)
            again = asyncio.create_task(comfy.get_run(next(iter(server.workflows))).wait())
            await asyncio.sleep(0.05)
            await comfy.aclose()
            results = await asyncio.gather(*runs, again, return_exceptions=True)
            ids = [next(id for id in server.workflows if id in str(vars(result))) for result in results]
            assert len(set(ids[:2])) == 2
            for result, id in zip(results, ids, strict=True):
                assert isinstance(result, ClientClosedError)
                self.check(result, id)

    async def test_cancelled(self) -> None:
        """Cancellation too, and the timeout of the caller that it was made of."""
        async with connected(**ENDLESS) as (server, comfy):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.3):
                    await comfy.run(GRAPH)
            assert caught.value.__cause__ is not None
            self.check(caught.value.__cause__, next(iter(server.workflows)))

    async def test_of_the_caller(self, server: LocalServer, comfy: ComfyControl) -> None:
        """An error of the caller's own callback gets a note."""

        def fail(update: WorkflowUpdate) -> None:
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine") as caught:
            await comfy.run(GRAPH, on_update=fail)
        self.check(caught.value, next(iter(server.workflows)))

    async def test_by_updates_and_outputs(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Errors of `updates`, `outputs` and `files` name it, and leaving the updates is none."""
        run = comfy.get_run(UNKNOWN_ID)
        for call in (lambda: anext(run.updates()), run.outputs, run.files, run.wait):
            with pytest.raises(NotFoundError) as caught:
                await call()
            self.check(caught.value, UNKNOWN_ID)


class TestInvalid:
    """A workflow that the service finds invalid."""

    async def test_reason(self) -> None:
        """The error has the reason that the service gave: it is asked for, once."""
        async with connected(outcome=lambda index: "invalid") as (server, comfy):
            with pytest.raises(WorkflowInvalidError, match="the service found it invalid") as caught:
                await comfy.run(GRAPH)
            asked = f"GET /v1/workflow/{caught.value.id}"
            assert sent(server).count(asked) == 1

    async def test_reason_that_cannot_be_had(self) -> None:
        """When it cannot be asked for, the error is the same without it."""
        once = RetryPolicy(attempts=1)
        async with serving(outcome=lambda index: "invalid") as server, client_of(server, retry=once) as comfy:
            server.fail_next("GET", "/v1/workflow/{id}", status=503)
            with pytest.raises(WorkflowInvalidError, match="check its graph and parameters"):
                await comfy.run(GRAPH)


class TestCancelAgain:
    """A cancel whose answer is lost."""

    @pytest.mark.parametrize("status", [None, 503], ids=["dropped", "503"])
    async def test_lost_answer(self, status: int | None) -> None:
        """It took effect; that the second sending is refused is a success."""
        async with connected(cancel_delay=0.0, **ENDLESS) as (server, comfy):
            run = await comfy.submit(GRAPH)
            await eventually(lambda: server.workflows[run.id].status == "running")
            if status is None:
                server.drop_next("POST", "/v1/workflow/{id}/cancel", after=True)
            else:
                server.fail_next("POST", "/v1/workflow/{id}/cancel", status=status, effect=True)
            await run.cancel()
            assert len(sent(server, "POST", "/cancel")) == 2
            assert server.workflows[run.id].status == "cancelled"
            with pytest.raises(BadRequestError):
                await run.cancel()


class TestRerun:
    """The same again, or nearly."""

    async def test_known_graph(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A run that knows its graph needs one request, and gives a run of its own."""
        run = await comfy.run(FILE_GRAPH, params={"image": b"img", "prefix": "a"}, name="w")
        before = len(server.requests)
        again = await run.rerun({"prefix": "b", "method": "area"})
        assert sent(server)[before:] == [f"POST /v1/workflow/{run.id}/rerun"]
        assert again.id != run.id
        assert (await again.wait()).name == "w"
        assert server.workflows[again.id].values == {"$prefix": "b", "#method": "area"}
        third = await again.rerun({"image": b"other"})
        assert server.workflows[third.id].files["image"].data == b"other"

    async def test_unknown_graph(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A handle that does not know the graph asks for it first."""
        made = await comfy.submit(FILE_GRAPH, params={"image": b"img", "prefix": "a"})
        before = len(server.requests)
        again = await comfy.get_run(made.id).rerun({"method": "area"})
        assert sent(server)[before:] == [f"GET /v1/workflow/{made.id}", f"POST /v1/workflow/{made.id}/rerun"]
        assert server.workflows[again.id].values["#method"] == "area"

    async def test_bad_parameters(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Unknown names and options outside the list make nothing."""
        run = await comfy.submit(FILE_GRAPH, params={"image": b"img", "prefix": "a"})
        for params in ({"nothing": 1}, {"method": "bicubic"}, {"image": "a text"}):
            with pytest.raises(GraphError):
                await run.rerun(params)
        assert len(server.workflows) == 1
        assert len(server.requests) == 1


class TestLists:
    """Pages of what was made."""

    async def test_walking_pages(self, server: LocalServer, comfy: ComfyControl) -> None:
        """All pages are walked, newest first, lazily, and no item is given twice."""
        for number in range(7):
            await comfy.workflows.create(GRAPH, name=f"w{number}")
        before = len(server.requests)
        pager = comfy.workflows.list(per_page=3)
        assert len(server.requests) == before
        assert [item.name async for item in pager] == [f"w{number}" for number in range(6, -1, -1)]
        assert [record.query["page"] for record in server.requests[before:]] == ["1", "2", "3"]
        page = await pager.page(2)
        assert (len(page.items), page.total, page.number, page.per_page) == (3, 7, 2, 3)
        first = await pager.first()
        assert first is not None
        assert first.name == "w6"
        assert len(await pager.all()) == 7

    async def test_items_that_shift(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Workflows made while a list is walked push others down: none is given twice, none is left out."""
        for number in range(6):
            await comfy.workflows.create(GRAPH, name=f"w{number}")
        names: list[str] = []
        async for item in comfy.workflows.list(per_page=2):
            names.append(item.name)
            if len(names) in (2, 4):
                await comfy.workflows.create(GRAPH, name="new")
        assert [name for name in names if name != "new"] == [f"w{number}" for number in range(5, -1, -1)]

    async def test_by_status(self) -> None:
        """A status filters at the server."""
        async with connected(**ENDLESS) as (server, comfy):
            done = await comfy.submit(GRAPH, name="done")
            fresh = await comfy.submit(GRAPH, name="fresh")
            server.finish(done.id)
            assert [item.id for item in await comfy.workflows.list(status="completed").all()] == [done.id]
            assert [item.id for item in await comfy.workflows.list(status="running").all()] == [fresh.id]


@pytest.mark.parametrize(
    "timeout", [-1, float("nan"), "5", 10**400, True], ids=["negative", "nan", "text", "huge", "bool"]
)
async def test_timeout_that_is_none(server: LocalServer, comfy: ComfyControl, timeout: Any) -> None:
    """A timeout that is no number of seconds is refused before anything is spent, by `run` and by `wait`."""
    with pytest.raises(InvalidArgumentError, match="timeout must be a number of seconds from 0"):
        await comfy.run(GRAPH, timeout=timeout)
    with pytest.raises(InvalidArgumentError, match="timeout must be a number of seconds from 0"):
        await comfy.get_run(UNKNOWN_ID).wait(timeout)
    assert server.requests == []


async def test_on_update_that_is_none(server: LocalServer, comfy: ComfyControl) -> None:
    """So is an `on_update` that cannot be called."""
    with pytest.raises(InvalidArgumentError, match="on_update must be a function, not str"):
        await comfy.run(GRAPH, on_update="print")  # type: ignore[arg-type] # as a user without a type checker may
    assert server.requests == []
