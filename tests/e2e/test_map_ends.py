"""Workflows that a batch does not wait for any longer, and those that failed: cancelled, left, or submitted again."""

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import (
    ComfyControl,
    ConfigurationError,
    InvalidArgumentError,
    Journal,
    MapResult,
    NotFoundError,
    WaitTimeoutError,
    WorkflowFailedError,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import client_of, connected, names_in, sent
from support.waiting import eventually


def colors(count: int) -> list[dict[str, Any]]:
    """Make rows."""
    return [{"color": number} for number in range(count)]


async def run(comfy: ComfyControl, rows: int, **options: Any) -> list[MapResult]:
    """Run a batch to its end, and return its results by index."""
    results = [result async for result in comfy.map(GRAPH, colors(rows), key="color", **options)]
    return sorted(results, key=lambda result: result.index)


def statuses(server: LocalServer) -> Counter[str]:
    """Count the workflows by their state."""
    return Counter(str(record.status) for record in server.workflows.values())


def summary(path: Path) -> dict[str, int]:
    """Return what is in a journal, without what is nowhere."""
    with Journal.open(path) as journal:
        return {state: count for state, count in journal.summary().items() if count}


def is_closed(path: Path) -> bool:
    """Tell whether no batch uses a journal."""
    try:
        Journal.open(path).close()
    except ConfigurationError:
        return False
    return True


class TestOnTimeout:
    """A workflow that takes too long."""

    async def test_detach(self, tmp_path: Path) -> None:
        """By default it runs on, and a journal waits for it again."""
        async with connected(duration=40.0) as (server, comfy):
            results = await run(comfy, 3, timeout=0.3, journal=tmp_path / "batch.db")
            assert {type(result.error) for result in results} == {WaitTimeoutError}
            assert summary(tmp_path / "batch.db") == {"submitted": 3}
            assert all(result.error is None for result in await run(comfy, 3, journal=tmp_path / "batch.db"))
            assert statuses(server) == {"completed": 3}

    async def test_cancel(self, tmp_path: Path) -> None:
        """With "cancel" it is cancelled and counts as failed, which only `retry_failed` tries again."""
        slow = {"seconds": 100_000.0}
        async with connected(duration=lambda index: slow["seconds"]) as (server, comfy):
            path = tmp_path / "batch.db"
            first = await run(comfy, 3, timeout=0.3, on_timeout="cancel", journal=path)
            assert {type(result.error) for result in first} == {WaitTimeoutError}
            assert statuses(server) == {"cancelled": 3}
            assert summary(path) == {"failed": 3}
            again = await run(comfy, 3, journal=path)
            assert [str(result.error) for result in again] == [str(result.error) for result in first]
            assert len(server.workflows) == 3
            slow["seconds"] = 1.0
            assert all(result.error is None for result in await run(comfy, 3, journal=path, retry_failed=True))
            assert statuses(server) == {"cancelled": 3, "completed": 3}

    async def test_completed_meanwhile(self) -> None:
        """One that completes before it can be cancelled is a result like any other."""
        async with connected(duration=1.0, delays=(30.0, 0.0, 0.0)) as (server, comfy):
            (result,) = await run(comfy, 1, timeout=0.3, on_timeout="cancel")
            assert result.error is None or isinstance(result.error, WaitTimeoutError)
            assert (result.error is None) == (statuses(server) == {"completed": 1})


class TestOnCancel:
    """A batch that is cancelled or left."""

    @pytest.mark.parametrize("how", ["break", "cancel", "close"])
    async def test_cancel(self, tmp_path: Path, how: str) -> None:
        """What runs is cancelled, what was not sent is dropped, and a journal submits what was cancelled again."""
        path = tmp_path / "batch.db"
        long = {"seconds": 100_000.0}
        async with connected(duration=lambda index: 1.0 if index == 0 else long["seconds"]) as (server, comfy):
            await self.leave(server, comfy, how, concurrency=6, journal=path)
            await eventually(lambda: is_closed(path))
            made = len(server.workflows)
            await eventually(lambda: statuses(server)["cancelled"] + statuses(server)["completed"] == made)
            cancelled = statuses(server)["cancelled"]
            assert 2 <= made <= 7
            assert cancelled >= made - 1
            found = summary(path)
            assert cancelled <= found["cancelling"] <= made  # one may have ended before
            assert set(found) <= {"cancelling", "finished", "planned", "submitting"}
            long["seconds"] = 1.0
            results = await run(comfy, 20, journal=path)
            assert all(result.error is None for result in results)
            assert statuses(server) == {"completed": 20, "cancelled": cancelled}

    async def leave(self, server: LocalServer, comfy: ComfyControl, how: str, **options: Any) -> None:
        """Begin a batch of 20, and leave it once some run."""
        batch = comfy.map(GRAPH, colors(20), key="color", on_cancel="cancel", **options)
        if how == "cancel":

            async def consume() -> None:
                async for _ in batch:
                    pass

            working = asyncio.create_task(consume())
            await eventually(lambda: len(server.workflows) >= 5)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        elif how == "close":
            async with aclosing(batch):
                await anext(batch)
        else:
            async for _ in batch:
                break

    async def test_detach(self, server: LocalServer, comfy: ComfyControl) -> None:
        """By default what runs goes on."""
        async for _ in comfy.map(GRAPH, colors(20), concurrency=6):
            break
        await asyncio.sleep(0.1)
        assert statuses(server)["cancelled"] == 0
        assert len(sent(server, "POST", "/cancel")) == 0

    async def test_nothing_to_look_for(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """What a batch that is left has sent gets its answer, and what it has not is planned: no submit is lost."""
        path = tmp_path / "batch.db"
        for turn in range(1, 4):
            count = 0
            async for _ in comfy.map(GRAPH, colors(40), key="color", concurrency=6, journal=path):
                count += 1
                if count == 4 * turn:
                    break
            await eventually(lambda: is_closed(path))
            found = summary(path)
            assert "submitting" not in found
            assert sum(found.values()) - found.get("planned", 0) == len(server.workflows)

    async def test_client_closes(self) -> None:
        """A client that is closed right after `break` waits until what runs is cancelled."""
        async with connected(duration=lambda index: 1.0 if index == 0 else 100_000.0) as (server, _):
            async with client_of(server) as comfy:
                async for _ in comfy.map(GRAPH, colors(20), concurrency=5, on_cancel="cancel"):
                    break
            assert statuses(server)["running"] == 0
            await eventually(lambda: statuses(server)["cancelled"] == len(server.workflows) - 1)

    async def test_unsent(self) -> None:
        """Rows whose create waits for the limit are dropped; one whose create has left is cancelled when it is made."""
        async with connected(limit=5, duration=100_000.0, speed=20.0) as (server, comfy):
            server.delay_next("POST", "/v1/workflow", 4.0)
            working = asyncio.create_task(run(comfy, 40, on_cancel="cancel", outputs=False))
            await eventually(lambda: len(server.requests) >= 5)
            working.cancel()
            await asyncio.wait([working])
            await eventually(lambda: statuses(server)["cancelled"] == len(server.workflows))
            assert len(sent(server, "POST", "/v1/workflow")) <= 5


class TestRetryFailed:
    """Rows whose workflow failed on its runner."""

    async def test_retried(self, tmp_path: Path) -> None:
        """They are submitted again when that is asked for, and only they."""
        outcomes = {"now": "failed"}
        async with connected(outcome=lambda index: outcomes["now"] if index < 2 else "completed") as (server, comfy):
            path, out = tmp_path / "batch.db", tmp_path / "out"
            first = await run(comfy, 6, journal=path, download_to=out, concurrency=1)
            assert [type(result.error) for result in first[:2]] == [WorkflowFailedError] * 2
            before = len(server.requests)
            again = await run(comfy, 6, journal=path, download_to=out)
            assert len(server.requests) == before
            assert [str(result.error) for result in again] == [str(result.error) for result in first]
            last = await run(comfy, 6, journal=path, download_to=out, retry_failed=True)
            assert all(result.error is None for result in last)
            assert len(server.workflows) == 8
            assert names_in(out) == [f"{number}-001.png" for number in range(6)]
            assert summary(path) == {"downloaded": 6}

    async def test_gone(self, tmp_path: Path) -> None:
        """One that does not exist any more fails at each start, until it is retried."""
        async with connected(duration=100_000.0) as (server, comfy):
            path = tmp_path / "batch.db"
            await run(comfy, 1, journal=path, timeout=0.2)
            server.forget(next(iter(server.workflows)))
            (result,) = await run(comfy, 1, journal=path)
            assert isinstance(result.error, NotFoundError)
            (result,) = await run(comfy, 1, journal=path, retry_failed=True, timeout=0.2)
            assert isinstance(result.error, WaitTimeoutError)
            assert len(server.workflows) == 1


class Outcome(BaseException):
    """What some test tools and frameworks raise: no Exception."""


class TestStray:
    """What callers' code raises that is no Exception must not look like the end of the rows."""

    async def test_rows(self, comfy: ComfyControl) -> None:
        """A GeneratorExit of the rows is an error behind the results of those before it."""

        class Broken:
            def __init__(self) -> None:
                self.left = colors(3)

            def __iter__(self) -> "Broken":
                return self

            def __next__(self) -> dict[str, Any]:
                if not self.left:
                    raise GeneratorExit
                return self.left.pop()

        async with aclosing(comfy.map(GRAPH, Broken(), outputs=False)) as results:
            assert [(await anext(results)).error for _ in range(3)] == [None] * 3
            with pytest.raises(InvalidArgumentError, match="they raised GeneratorExit"):
                await anext(results)

    @pytest.mark.parametrize("what", ["key", "params"])
    async def test_functions(self, comfy: ComfyControl, what: str) -> None:
        """A GeneratorExit of a function of the row is that row's error."""

        def function(row: dict[str, Any]) -> Any:
            if row["color"] == 1:
                raise GeneratorExit
            return row if what == "params" else row["color"]

        options: dict[str, Any] = {"key": "color", what: function, "outputs": False}
        found = {result.index: result.error async for result in comfy.map(GRAPH, colors(3), **options)}
        assert [isinstance(found[index], InvalidArgumentError) for index in range(3)] == [False, True, False]

    @pytest.mark.parametrize("waits", [pytest.param(False, id="function"), pytest.param(True, id="coroutine")])
    @pytest.mark.parametrize("raised", [GeneratorExit, Outcome, StopAsyncIteration])
    async def test_on_progress(self, comfy: ComfyControl, raised: type[BaseException], waits: bool) -> None:
        """Whatever `on_progress` raises ends the batch with an error."""

        def report(progress: object) -> None:
            raise raised

        async def report_later(progress: object) -> None:
            raise raised

        with pytest.raises(raised if raised is Outcome else InvalidArgumentError):
            await run(comfy, 3, outputs=False, on_progress=report_later if waits else report)
