"""Batches over the wire: what `map` gives, in which order, and how it ends."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from comfycontrol_async import (
    AuthenticationError,
    ClientClosedError,
    ComfyControl,
    GraphError,
    InvalidArgumentError,
    MapProgress,
    MapResult,
    NotFoundError,
    TooManyFailuresError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH, GRAPH
from support.services import client_of, connected, own_tasks, sent, serving
from support.waiting import eventually

Row = dict[str, Any]


def colors(count: int) -> list[Row]:
    """Make rows."""
    return [{"color": number} for number in range(count)]


async def results_of(comfy: ComfyControl, rows: Any, **options: Any) -> list[MapResult]:
    """Run a batch to its end."""
    return [result async for result in comfy.map(GRAPH, rows, **options)]


async def until_error(results: AsyncIterator[MapResult]) -> tuple[list[MapResult], Exception | None]:
    """Take results until an error comes; return both."""
    taken: list[MapResult] = []
    try:
        async for result in results:
            taken.append(result)  # noqa: PERF401 # a comprehension would lose them
    except Exception as error:
        return taken, error
    return taken, None


async def nothing_runs(before: set[asyncio.Task[Any]]) -> None:
    """Wait until no task is left that was not there before."""
    await eventually(lambda: own_tasks() <= before)


class TestResults:
    """What a batch gives."""

    async def test_all_of_it(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Every row gives one result with its key, run and outputs, for two requests and a share of the looks."""
        rows = colors(60)
        results = await results_of(comfy, rows, key="color", name="cat-{key}", tags=["gpu"], concurrency=20)
        assert sorted(result.index for result in results) == list(range(60))
        for result in results:
            assert result.row is rows[result.index]
            assert result.key == str(result.row["color"])
            assert result.error is None
            assert result.run is not None
            assert result.run.status == "completed"
            assert [output.workflow_id for output in result.outputs] == [result.run.id]
            record = server.workflows[result.run.id]
            assert record.values["$color"] == result.key
            assert record.tags == ["gpu"]
            assert record.name.startswith(f"cat-{result.key}-")
        assert len({record.name for record in server.workflows.values()}) == len(server.workflows) == 60
        assert len(sent(server, "POST")) == 60

    async def test_no_outputs(self, server: LocalServer, comfy: ComfyControl) -> None:
        """When no outputs are wanted none are asked for."""
        results = await results_of(comfy, colors(60), outputs=False)
        assert all(result.outputs == [] and result.error is None for result in results)
        assert sent(server, "GET", "/outputs") == sent(server, "GET", "/subscribe") == []

    @pytest.mark.parametrize("concurrency", [1, 100])
    async def test_ordered(self, concurrency: int) -> None:
        """Results come in the order of the rows when that is asked for, and as they come when not."""
        async with connected(duration=lambda index: 5.0 - index) as (_, comfy):
            ordered = await results_of(comfy, colors(5), concurrency=concurrency, ordered=True)
            assert [result.index for result in ordered] == list(range(5))
        async with connected(duration=lambda index: 1.0 if index else 30.0) as (_, comfy):
            loose = await results_of(comfy, colors(4), concurrency=4)
            assert [result.index for result in loose] != list(range(4))

    async def test_concurrency(self) -> None:
        """No more workflows are unfinished at once than was said, and rows are read no further than twice that."""
        read = 0

        def rows() -> Iterator[Row]:
            nonlocal read
            for row in colors(20):
                read += 1
                yield row

        async with connected(duration=2.0) as (server, comfy):
            async for _ in comfy.map(GRAPH, rows(), concurrency=5):
                pass
            lives = [record.life for record in server.workflows.values()]
            assert max(sum(one.accepted <= life.accepted < one.ended for one in lives) for life in lives) <= 5
            async with aclosing(comfy.map(GRAPH, rows(), concurrency=5)) as results:
                await anext(results)
                await asyncio.sleep(0.3)
                assert read <= 20 + 11

    async def test_async_rows(self, comfy: ComfyControl) -> None:
        """Rows may come asynchronously, and slowly."""

        async def rows() -> AsyncIterator[Row]:
            for row in colors(5):
                await asyncio.sleep(0.01)
                yield row

        assert len(await results_of(comfy, rows())) == 5

    async def test_no_rows(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A batch without rows gives nothing and asks nothing."""
        assert await results_of(comfy, iter(())) == []
        assert len(server.requests) == 0

    async def test_files(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Rows may hold files and choices."""
        rows = [{"image": b"GIF89a", "method": "area", "prefix": f"p{number}"} for number in range(3)]
        results = [result async for result in comfy.map(FILE_GRAPH, rows, key=lambda row: row["prefix"])]
        assert sorted(result.key for result in results) == ["p0", "p1", "p2"]
        assert all(record.files["image"].data == b"GIF89a" for record in server.workflows.values())

    async def test_progress(self, comfy: ComfyControl) -> None:
        """Progress counts up to the end; the callback may be a coroutine function."""
        told: list[MapProgress] = []

        async def note(progress: MapProgress) -> None:
            await asyncio.sleep(0)
            told.append(progress)

        rows = [*colors(9), {"color": object()}]
        await results_of(comfy, rows, on_progress=note)
        last = told[-1]
        assert (last.read, last.submitted, last.running, last.done, last.failed) == (10, 9, 0, 10, 1)
        assert 18 <= last.requests <= 40
        assert last.rate > 0
        assert last.eta == 0
        assert [progress.done for progress in told] == sorted(progress.done for progress in told)

    async def test_two_batches(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Two batches of one client run side by side."""
        both = await asyncio.gather(results_of(comfy, colors(20)), results_of(comfy, colors(20), ordered=True))
        assert len({result.run.id for results in both for result in results if result.run}) == 40

    async def test_under_the_limit(self) -> None:
        """A batch that needs more than the limit allows causes no 429, in any window."""
        async with serving(limit=40, speed=100.0) as server, client_of(server) as comfy:
            results = await results_of(comfy, colors(80), outputs=False)
            assert all(result.error is None for result in results)
            assert server.refused == 0
            assert server.max_in_window <= 40
            assert len(server.requests) <= 1.4 * 80


class TestBadRows:
    """Rows that cannot run fail by themselves."""

    async def test_some(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A row without a parameter, without a key, of a wrong type or of a key that was there fails; the rest runs."""
        wrong: list[Any] = [{"id": None}, {"color": 3}, "text", None, {"id": 0}, {"id": {}}, {"id": []}]
        graph = {**GRAPH, "1": {"class_type": "EmptyImage", "inputs": {"color": "$text(id)"}}}
        rows = [{"id": 0}, *wrong, {"id": "last"}]
        results = {result.index: result async for result in comfy.map(graph, rows, key="id")}
        assert len(results) == 9
        kinds = [type(results[index].error) for index in range(9)]
        assert kinds == [
            type(None),
            InvalidArgumentError,
            InvalidArgumentError,
            InvalidArgumentError,
            InvalidArgumentError,
            InvalidArgumentError,
            GraphError,
            GraphError,
            type(None),
        ]
        assert "of an earlier row" in str(results[5].error)
        assert all(results[index].run is None for index in range(1, 8))
        assert len(server.workflows) == 2

    async def test_all(self, server: LocalServer, comfy: ComfyControl) -> None:
        """When all rows are bad no request is spent."""
        results = await results_of(comfy, [{"color": object()}] * 20)
        assert {type(result.error) for result in results} == {GraphError}
        assert len(server.requests) == 0

    async def test_bad_graph(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A graph that cannot run ends the batch before it begins."""
        with pytest.raises(GraphError):
            await anext(comfy.map({"1": {"class_type": "KSampler", "inputs": {"x": ["9", 0]}}}, colors(3)))
        assert len(server.requests) == 0

    @pytest.mark.parametrize("rows", [{"color": 1}, "rows", None, b"x", 7])
    async def test_no_rows_at_all(self, server: LocalServer, comfy: ComfyControl, rows: Any) -> None:
        """What cannot be rows is refused."""
        with pytest.raises(InvalidArgumentError, match="rows must be"):
            await results_of(comfy, rows)
        assert len(server.requests) == 0

    async def test_rows_that_break_off(self, server: LocalServer, comfy: ComfyControl) -> None:
        """When the rows raise, those that were read are finished and given first."""

        def rows() -> Iterator[Row]:
            yield from colors(7)
            raise OSError("the file of rows is gone")

        results, error = await until_error(comfy.map(GRAPH, rows()))
        assert isinstance(error, OSError)
        assert len(results) == len(server.workflows) == 7
        assert all(result.error is None for result in results)


class TestFailures:
    """Workflows that do not complete."""

    async def test_every_outcome(self) -> None:
        """One that fails, is cancelled or invalid gives its error and its run, and the others go on."""
        ends = ["completed", "failed", "cancelled", "invalid"]
        async with connected(outcome=lambda index: ends[index % 4]) as (server, comfy):
            results = [result async for result in comfy.map(GRAPH, colors(40))]
            kinds = {
                "failed": WorkflowFailedError,
                "cancelled": WorkflowCancelledError,
                "invalid": WorkflowInvalidError,
            }
            for result in results:
                assert result.run is not None
                outcome = ends[server.workflows[result.run.id].index % 4]
                assert type(result.error) is kinds.get(outcome, type(None))
                assert len(result.outputs) == (outcome == "completed")
            failed = [result.error for result in results if isinstance(result.error, WorkflowFailedError)]
            assert {error.exception_type for error in failed} == {"RuntimeError"}

    async def test_max_failures(self) -> None:
        """After more failures than allowed no more rows are begun; those under way are given, then the error comes."""
        async with connected(outcome=lambda index: "failed" if index >= 5 else "completed") as (server, comfy):
            results, error = await until_error(comfy.map(GRAPH, colors(200), concurrency=4, max_failures=2))
            assert isinstance(error, TooManyFailuresError)
            assert error.allowed == 2
            assert error.failed == sum(result.error is not None for result in results) >= 3
            assert len(results) == len(server.workflows) < 30

    @pytest.mark.parametrize("ordered", [False, True])
    async def test_no_failures_allowed(self, server: LocalServer, comfy: ComfyControl, ordered: bool) -> None:
        """`max_failures=0` allows none, and as many failures as are allowed end nothing."""
        with pytest.raises(TooManyFailuresError):
            await results_of(comfy, [{"color": object()}, *colors(500)], max_failures=0, ordered=ordered, concurrency=2)
        assert len(server.workflows) < 20
        assert len(await results_of(comfy, [{"color": object()}, *colors(5)], max_failures=1, ordered=ordered)) == 6

    async def test_timeout(self) -> None:
        """A workflow that is not finished in time gives WaitTimeoutError, and goes on at the server."""
        async with connected(duration=lambda index: 1000.0 if index == 1 else 2.0) as (server, comfy):
            results = await results_of(comfy, colors(4), timeout=0.4)
            late = [result for result in results if result.error is not None]
            assert [type(result.error) for result in late] == [WaitTimeoutError]
            assert late[0].run is not None
            assert server.workflows[late[0].run.id].status == "running"

    async def test_vanished(self) -> None:
        """A workflow that is deleted meanwhile fails its row alone."""
        # The one that is deleted would never end by itself: none can be done before all twelve are made.
        async with connected(duration=lambda index: 100_000.0 if index == 0 else 20.0) as (server, comfy):
            working = asyncio.create_task(results_of(comfy, colors(12)))
            await eventually(lambda: len(server.workflows) == 12)
            gone = next(id for id, record in server.workflows.items() if record.index == 0)
            server.forget(gone)
            server.cut_streams()
            results = await working
            failed = [result for result in results if result.error is not None]
            assert [(type(it.error), it.run and it.run.id) for it in failed] == [(NotFoundError, gone)]

    async def test_a_lossy_line(self) -> None:
        """On a line that loses every twentieth request everything is submitted exactly once and completes."""
        async with connected(loss=0.05, seed=11) as (server, comfy):
            await comfy.user.get()
            results = await results_of(comfy, colors(60), concurrency=30)
            assert [result.error for result in results if result.error] == []
            assert len(server.workflows) == 60
            assert server.lost > 3


class TestEnding:
    """How a batch ends before its end."""

    async def test_break(self) -> None:
        """Leaving the loop stops everything: no task, no stream, no place in the limiter's queue is left."""
        before = own_tasks()
        async with connected(duration=100.0) as (server, comfy):
            first = own_tasks()
            for number in (1, 3, 30):
                async for result in comfy.map(GRAPH, [{"color": object()}, *colors(100)], concurrency=number):
                    assert result.index == 0
                    break
                await eventually(lambda: not any("Batch" in repr(task) for task in own_tasks()))
                assert not {it.get_name() for it in own_tasks() - first if it.get_name().startswith("comfycontrol")}
                await eventually(lambda: server.open_streams == 0)
                assert sum(comfy.limiter.snapshot().waiting.values()) == 0
        await nothing_runs(before)

    @pytest.mark.parametrize("pause", [0.0, 0.005, 0.02, 0.1, 0.25])
    async def test_cancelled(self, pause: float) -> None:
        """Cancelling the task that iterates, at any stage, stops everything; what was submitted goes on."""
        before = own_tasks()
        async with connected(duration=8.0) as (server, comfy):
            working = asyncio.create_task(results_of(comfy, colors(100), concurrency=20))
            await asyncio.sleep(pause)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            made = len(server.workflows)
            await eventually(lambda: server.open_streams == 0)
            assert len(server.workflows) <= made + 8
            assert all(record.status != "cancelled" for record in server.workflows.values())
        await nothing_runs(before)

    async def test_token_refused(self) -> None:
        """A token that is refused in the middle ends the batch with the error, after what was done before."""
        before = own_tasks()
        async with connected() as (server, comfy):

            def expire(progress: MapProgress) -> None:
                if progress.done == 5:
                    server.expire_token()

            results, error = await until_error(comfy.map(GRAPH, colors(200), concurrency=10, on_progress=expire))
            assert isinstance(error, AuthenticationError)
            assert len(results) >= 5
            assert all(result.error is None for result in results)
            assert len(server.workflows) < 60
        await nothing_runs(before)

    async def test_client_closed(self) -> None:
        """A client that is closed in the middle ends the batch with the error."""
        before = own_tasks()
        async with connected(duration=10.0) as (server, comfy):
            working = asyncio.create_task(results_of(comfy, colors(100), concurrency=20))
            await eventually(lambda: len(server.workflows) > 10)
            await comfy.aclose()
            with pytest.raises(ClientClosedError):
                await working
        await nothing_runs(before)

    @pytest.mark.parametrize(
        ("what", "options"),
        [
            pytest.param("key", {"key": lambda row: 1 / 0}, id="key"),
            pytest.param("progress", {"on_progress": lambda progress: 1 / 0}, id="progress"),
        ],
    )
    async def test_callbacks_that_fail(self, comfy: ComfyControl, what: str, options: dict[str, Any]) -> None:
        """A key that cannot be told fails its row; a mistake in `on_progress` reaches its author."""
        if what == "key":
            results = await results_of(comfy, colors(2), **options)
            assert all(isinstance(result.error, InvalidArgumentError) for result in results)
        else:
            with pytest.raises(ZeroDivisionError):
                await results_of(comfy, colors(2), **options)

    async def test_slow_consumer(self) -> None:
        """One who takes results slowly loses none, and no more rows are read than there is room for."""
        async with connected(duration=1.0) as (server, comfy):
            count = 0
            async for _ in comfy.map(GRAPH, colors(20), concurrency=2):
                count += 1
                await asyncio.sleep(0.02)
                assert len(server.workflows) <= count + 4
            assert count == 20


async def test_runs_beside_a_batch() -> None:
    """Five runs beside a large batch are each submitted within one window: 40 requests of others at the most."""
    async with serving(limit=40, speed=20.0, duration=20.0) as server, client_of(server) as comfy:
        others: list[int] = []

        async def submit() -> None:
            before = len(server.requests)
            await comfy.submit(GRAPH)
            others.append(len(server.requests) - before)

        async with aclosing(comfy.map(GRAPH, colors(5000), concurrency=200)) as results:
            await anext(results)
            await asyncio.gather(*(submit() for _ in range(5)))
        assert len(others) == 5
        assert max(others) <= 40
