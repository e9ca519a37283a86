"""Watching over the wire: streams, pages and single requests against the server's schedule."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from comfycontrol_async import (
    ClientClosedError,
    ComfyControl,
    InvalidArgumentError,
    NotFoundError,
    WatchPolicy,
    WorkflowInvalidError,
    WorkflowRun,
    WorkflowUpdate,
)
from comfycontrol_async.limits import LocalLimiter, Permit, Priority, Stage
from comfycontrol_async.runs._run import follow_to_end
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import client_of, connected, own_tasks, sent, serving
from support.waiting import eventually


def watch(server: LocalServer, streams: int) -> WatchPolicy:
    """Make a policy in the server's time."""
    return WatchPolicy(min_interval=1 / server.speed, max_interval=10 / server.speed, max_streams=streams)


def watcher_tasks() -> set[str]:
    """Name the tasks that watch."""
    return {task.get_name() for task in own_tasks() if task.get_name().startswith("comfycontrol")}


async def wait_for(run: WorkflowRun, server: LocalServer) -> float:
    """Wait for a run; how late it was told, in server seconds."""
    await follow_to_end(run, None, outputs=False)
    return server.now - server.workflows[run.id].life.ended


class NotingLimiter(LocalLimiter):
    """A limiter that remembers in which lanes it was asked."""

    lanes: set[Priority]

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: Stage = Stage.OTHER
    ) -> Permit:
        """Remember the lane."""
        self.lanes.add(priority)
        return await super().acquire(priority, max_wait=max_wait, stage=stage)


async def test_lane_of_a_sibling() -> None:
    """What is done for a sibling's caller goes in the sibling's lane: looks for its key, streams, late polls."""
    limiter = NotingLimiter(1000, 1.0)
    async with serving(duration=1.0, speed=20.0) as server, client_of(server, limiter=limiter) as comfy:
        limiter.lanes = set()
        sibling = comfy.with_options(priority=Priority.INTERACTIVE)
        run = await sibling.submit(GRAPH, key="k")
        await run.wait()
        await run.outputs()
    assert limiter.lanes == {Priority.INTERACTIVE}


class TestUpdates:
    """What `updates` and `on_update` tell."""

    async def test_facts(self) -> None:
        """Updates tell the queue place, the time since the creation, and how long it was queued; only changes."""
        async with connected(delays=(2.0, 4.0, 30.0), duration=20.0, speed=100.0) as (_, comfy):
            updates = [update async for update in (await comfy.submit(GRAPH)).updates()]
        assert len(updates) == len({repr((it.status, it.queue_number, it.started_at)) for it in updates})
        queued = [update for update in updates if update.status == "queued"]
        places = [update.queue_number or 0 for update in queued]  # one that was not seen in time is left out
        assert places == sorted({3, 2, 1} & set(places), reverse=True)
        assert all(update.queued_for is None for update in queued)
        times = [update.elapsed for update in updates[:-1]]
        assert times == sorted(times, key=lambda seconds: seconds or 0.0)
        last = updates[-1]
        assert (last.status, len(last.outputs)) == ("completed", 1)
        assert last.queued_for == pytest.approx(36.0, abs=1.0)
        assert last.elapsed == pytest.approx(56.0, abs=1.0)

    async def test_known_run(self, comfy: ComfyControl) -> None:
        """The only update of a run that is over tells the same."""
        run = await comfy.run(GRAPH)
        again = [update async for update in comfy.get_run(run.id).updates()]
        assert len(again) == 1
        assert again[0].elapsed == pytest.approx(3.0, abs=1.0)
        assert again[0].queued_for == pytest.approx(1.0, abs=1.0)

    async def test_on_update(self, comfy: ComfyControl) -> None:
        """The callback of `run` gets the same facts."""
        updates: list[WorkflowUpdate] = []
        await comfy.run(GRAPH, on_update=updates.append)
        assert updates[-1].queued_for is not None
        assert all(update.created_at is not None for update in updates)

    async def test_min_interval(self) -> None:
        """Who asks for an interval gets the latest state only, no more often than that, and the last one surely."""
        async with connected(delays=(2.0, 4.0, 30.0), duration=60.0, speed=100.0) as (_, comfy):
            run = await comfy.submit(GRAPH)
            loop = asyncio.get_running_loop()
            begun, moments, updates = loop.time(), [], []
            async for update in run.updates(min_interval=0.3):
                moments.append(loop.time())
                updates.append(update)
        # Counted from the begin: what holds this test up between two updates makes one late, and the next no sooner.
        assert all(moment - begun >= 0.3 * number - 0.01 for number, moment in enumerate(moments))
        assert updates[-1].status == run.status == "completed"
        assert len(updates[-1].outputs) == 1

    @pytest.mark.parametrize("value", [-1.0, "1", None, True])
    async def test_bad_interval(self, comfy: ComfyControl, value: Any) -> None:
        """An interval that is no number of seconds is refused before anything is asked."""
        run = comfy.get_run("00000000-0000-4000-a000-000000000000")
        with pytest.raises(InvalidArgumentError, match="min_interval"):
            await anext(run.updates(min_interval=value))


class TestMany:
    """Many that wait at once."""

    async def test_hundred(self) -> None:
        """A hundred are told their ends for few requests, and nothing is left running."""
        async with serving(speed=50.0, duration=lambda index: 15.0 + index * 37 % 100 * 0.3) as server:
            async with client_of(server) as comfy:
                runs = [await comfy.submit(GRAPH) for _ in range(100)]
                late = await asyncio.gather(*(wait_for(run, server) for run in runs))
                assert watcher_tasks() == set()
            assert len(late) == 100  # how late: tests/test_watch.py, where no other load of the machine counts
            assert len(server.requests) <= 160

    async def test_others_submit(self) -> None:
        """Another client that pushes them down the listing meanwhile costs some more looks and loses no workflow."""
        async with serving(duration=30.0) as server:
            async with client_of(server, watch=watch(server, 0)) as comfy, client_of(server) as other:
                runs = [await comfy.submit(GRAPH) for _ in range(30)]
                before = len(sent(server, "GET"))

                async def disturb() -> None:
                    for _ in range(120):
                        await other.workflows.create(GRAPH, name="other")

                disturbing = asyncio.create_task(disturb())
                late = await asyncio.gather(*(wait_for(run, server) for run in runs))
                await disturbing
            assert len(late) == 30
            assert len(sent(server, "GET")) - before <= 60

    async def test_two_clients(self) -> None:
        """Two clients of one process watch for themselves, and each only what it waits for."""
        async with serving(duration=20.0) as server:
            async with client_of(server) as one, client_of(server) as other:
                mine = [await one.submit(GRAPH) for _ in range(3)]
                others = [await other.submit(GRAPH) for _ in range(3)]
                await asyncio.gather(*(run.wait() for run in (*mine, *others)))
            assert len(sent(server, "GET", "/subscribe")) == 6
            assert len(server.requests) == 12

    async def test_siblings(self) -> None:
        """A client and its siblings share one watcher: one stream for one workflow, and eight at the most."""
        async with connected(duration=1e6) as (server, comfy):
            siblings = [comfy, comfy.with_options(), comfy.with_options()]
            runs = [await sibling.submit(GRAPH) for sibling in siblings for _ in range(4)]
            waiting = [asyncio.create_task(wait_for(run, server)) for run in runs]
            again = asyncio.create_task(siblings[1].get_run(runs[0].id).wait())
            await eventually(lambda: server.open_streams == 8 and len(watcher_tasks()) == 9)
            assert len(sent(server, "GET", f"{runs[0].id}/subscribe")) == 1
            for run in runs:
                server.finish(run.id)
            await asyncio.gather(*waiting, again)

    async def test_streams_are_cut(self) -> None:
        """Eight streams that are cut again and again, and a server that loses requests: every caller learns the end."""
        async with serving(duration=40.0, loss=0.05, seed=3) as server, client_of(server) as comfy:
            runs = await asyncio.gather(*(comfy.submit(GRAPH) for _ in range(20)))
            waiting = asyncio.gather(*(wait_for(run, server) for run in runs))
            while not waiting.done():
                await asyncio.sleep(0.05)
                server.cut_streams()
            assert len(await waiting) == 20


class TestEnds:
    """How waits end."""

    async def test_vanished(self) -> None:
        """Workflows that are deleted end their waits with NotFoundError; the others are told their ends."""
        async with serving(duration=40.0) as server, client_of(server, watch=watch(server, 2)) as comfy:
            runs = [await comfy.submit(GRAPH) for _ in range(12)]
            waiting = [asyncio.create_task(run.wait()) for run in runs]
            await eventually(lambda: server.now > 5)
            for run in runs[:4]:
                server.forget(run.id)
            server.cut_streams()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(result) is NotFoundError for result in results] == [True] * 4 + [False] * 8
            assert {run.status for run in runs[4:]} == {"completed"}
            assert watcher_tasks() == set()

    async def test_invalid_on_a_page(self) -> None:
        """Workflows found invalid, seen by page, end with the error that says so."""
        async with serving(outcome=lambda index: "invalid") as server:
            async with client_of(server, watch=watch(server, 0)) as comfy:
                runs = [await comfy.submit(GRAPH) for _ in range(12)]
                results = await asyncio.gather(*(run.wait() for run in runs), return_exceptions=True)
            assert {type(result) for result in results} == {WorkflowInvalidError}

    async def test_closed(self) -> None:
        """Closing the client ends all waits with ClientClosedError and all connections."""
        async with serving(duration=1000.0) as server:
            comfy = client_of(server)
            runs = [await comfy.submit(GRAPH) for _ in range(12)]
            waiting = [asyncio.create_task(run.wait()) for run in runs]
            await eventually(lambda: server.open_streams == 8)
            await comfy.aclose()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(result) for result in results} == {ClientClosedError}
            assert watcher_tasks() == set()
            await eventually(lambda: server.open_streams == 0)

    async def test_left(self) -> None:
        """When all who wait are cancelled, nothing is left running and no stream open."""
        async with connected(duration=1000.0) as (server, comfy):
            runs = [await comfy.submit(GRAPH) for _ in range(12)]
            waiting = [asyncio.create_task(run.wait()) for run in runs]
            await eventually(lambda: server.open_streams == 8)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            assert watcher_tasks() == set()
            await eventually(lambda: server.open_streams == 0)
            async with aclosing(runs[0].updates()) as updates:
                assert (await anext(updates)).status == "running"
            assert watcher_tasks() == set()
