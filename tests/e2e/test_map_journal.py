"""Batches that are taken up again: nothing is submitted twice, and nothing is lost."""

import asyncio
import random
import signal
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ComfyControl,
    ConfigurationError,
    InvalidArgumentError,
    MapResult,
    SubmitOutcomeUnknownError,
    WaitTimeoutError,
    WorkflowFailedError,
)
from comfycontrol_async.batch._journal import Journal
from comfycontrol_async.batch._journal_entry import JournalEntry
from comfycontrol_async.batch._journal_file import JournalFile
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.kill_batch import Killer, kill_and_resume
from support.services import client_of, connected, names_in, sent, serving
from support.waiting import eventually

CREATE = ("POST", "/v1/workflow")


def colors(count: int) -> list[dict[str, Any]]:
    """Make rows."""
    return [{"color": number} for number in range(count)]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Name a journal that is not there yet."""
    return tmp_path / "batch.db"


async def run(comfy: ComfyControl, journal: Path, rows: Any = 10, **options: Any) -> list[MapResult]:
    """Run a batch to its end, and return its results by index."""
    given = colors(rows) if isinstance(rows, int) else rows
    chosen: dict[str, Any] = {"key": "color", "journal": journal} | options
    results = [result async for result in comfy.map(GRAPH, given, **chosen)]
    return sorted(results, key=lambda result: result.index)


async def break_off(comfy: ComfyControl, journal: Path, rows: int, *, after: int, **options: Any) -> None:
    """Run a batch until so many results are there, then leave it."""
    async with aclosing(comfy.map(GRAPH, colors(rows), key="color", journal=journal, **options)) as results:
        async for _ in results:
            after -= 1
            if not after:
                break


def entries(journal: Path, state: str) -> list[JournalEntry]:
    """Return what a journal has in one state."""
    with Journal.open(journal) as opened:
        return list(opened.rows(state))


def made(server: LocalServer) -> list[str]:
    """Return the color of every workflow there is, in order."""
    return sorted((record.values["$color"] for record in server.workflows.values()), key=int)


class TestResume:
    """A batch that is started again with its journal."""

    async def test_done(self, server: LocalServer, comfy: ComfyControl, journal: Path, tmp_path: Path) -> None:
        """What is done and on the disk costs no request, and comes with its paths."""
        first = await run(comfy, journal, download_to=tmp_path / "out")
        before = len(server.requests)
        again = await run(comfy, journal, download_to=tmp_path / "out")
        assert len(server.requests) == before
        assert [result.paths for result in again] == [result.paths for result in first]
        assert [result.run.id for result in again if result.run] == [result.run.id for result in first if result.run]
        assert all(result.error is None and result.run and result.run.status == "completed" for result in again)
        assert names_in(tmp_path / "out") == [f"{number}-001.png" for number in range(10)]

    async def test_done_without_files(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """Where no files are wanted, the outputs, whose URLs have expired, are asked for again, and nothing else."""
        await run(comfy, journal)
        before = len(server.requests)
        again = await run(comfy, journal)
        assert all(len(result.outputs) == 1 for result in again)
        assert len(server.requests) - before == 10
        await run(comfy, journal, outputs=False)
        assert len(server.requests) - before == 10

    @pytest.mark.parametrize("after", [1, 5, 15])
    async def test_broken_off(self, server: LocalServer, comfy: ComfyControl, journal: Path, after: int) -> None:
        """A batch that was left goes on: what runs is waited for, what was not begun is begun."""
        await break_off(comfy, journal, 16, after=after, concurrency=5)
        async with client_of(server) as fresh:
            results = await run(fresh, journal, 16, concurrency=5)
        assert [result.key for result in results] == [str(number) for number in range(16)]
        assert all(result.error is None for result in results)
        assert made(server) == [str(number) for number in range(16)]

    async def test_more_rows(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """More rows, in another order, may follow under the same journal."""
        await run(comfy, journal, 5)
        await run(comfy, journal, list(reversed(colors(12))))
        assert made(server) == [str(number) for number in range(12)]

    async def test_changed_row(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A row that is not the one of the journal under this key is refused instead of passed over."""
        rows: list[dict[str, Any]] = [{"id": "a", "color": "1"}, {"id": "b", "color": "2"}]
        await run(comfy, journal, rows, key="id")
        rows[0]["color"] = 1  # the text that is sent is the same
        rows[1]["color"] = 3
        results = await run(comfy, journal, rows, key="id")
        assert results[0].error is None
        assert isinstance(results[1].error, InvalidArgumentError)
        assert made(server) == ["1", "2"]

    async def test_failed_workflow(self, journal: Path) -> None:
        """A workflow that failed is not submitted again: its error comes from the journal, without a request."""
        async with connected(outcome=lambda index: "failed") as (server, comfy):
            first = await run(comfy, journal, 3)
            before = len(server.requests)
            again = await run(comfy, journal, 3)
            assert len(server.requests) == before
        assert [type(result.error) for result in again] == [WorkflowFailedError] * 3
        assert [str(result.error) for result in again] == [str(result.error) for result in first]

    async def test_refused_row(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A row that could not be submitted is tried again."""
        server.fail_next(*CREATE, status=400, times=2)
        results = await run(comfy, journal)
        assert sum(isinstance(result.error, BadRequestError) for result in results) == 2
        assert len(server.workflows) == 8
        again = await run(comfy, journal)
        assert all(result.error is None for result in again)
        assert made(server) == [str(number) for number in range(10)]

    async def test_timeout(self, journal: Path) -> None:
        """A workflow that was not waited for long enough is waited for again."""
        async with connected(duration=20.0) as (server, comfy):
            results = await run(comfy, journal, 3, timeout=0.1)
            assert {type(result.error) for result in results} == {WaitTimeoutError}
            assert all(result.error is None for result in await run(comfy, journal, 3))
            assert len(server.workflows) == 3

    async def test_token_refused(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A token that is refused in the middle ends the batch; with another one it goes on."""

        def expire(progress: Any) -> None:
            if progress.done == 4:
                server.expire_token()

        with pytest.raises(AuthenticationError):
            await run(comfy, journal, 40, concurrency=4, on_progress=expire)
        assert 4 <= len(server.workflows) < 40
        server._api.expired = False
        assert all(result.error is None for result in await run(comfy, journal, 40))
        assert made(server) == [str(number) for number in range(40)]


class TestSubmitting:
    """Rows of which the journal says that they were being submitted."""

    async def interrupt(self, server: LocalServer, journal: Path, *, effect: bool) -> list[JournalEntry]:
        """Leave a batch in the middle of three submits, which took effect or did not; return what it had written."""
        async with client_of(server) as comfy:
            await comfy.user.get()
            working = asyncio.create_task(run(comfy, journal, 3))
            if effect:
                server.delay_next(*CREATE, 1000.0, times=3)
                await eventually(lambda: len(server.workflows) == 3)
            else:
                server.drop_next(*CREATE, times=3)
                await eventually(lambda: len(sent(server, *CREATE)) == 3)
            working.cancel()
            await asyncio.wait([working])
        return entries(journal, "submitting")

    @pytest.mark.parametrize("effect", [True, False])
    async def test_found(self, server: LocalServer, comfy: ComfyControl, journal: Path, effect: bool) -> None:
        """Those that were made are found by their names; the others are sent again under the same ones."""
        left = await self.interrupt(server, journal, effect=effect)
        assert len(left) == 3
        before = len(sent(server, *CREATE))
        results = await run(comfy, journal, 3)
        assert all(result.error is None for result in results)
        assert len(sent(server, *CREATE)) - before == (0 if effect else 3)
        assert {record.name for record in server.workflows.values()} == {entry.name for entry in left}

    async def test_several(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A row of which several are found fails with all of them; the others go on."""
        await self.interrupt(server, journal, effect=True)
        # The newest: three that are made at once come in any order.
        twice = list(server.workflows.values())[-1]
        async with client_of(server) as other:  # what this client makes it knows
            await other.workflows.create(GRAPH, name=twice.name)
        results = await run(comfy, journal, 3)
        errors = {result.key: result.error for result in results if result.error is not None}
        assert list(errors) == [twice.values["$color"]]
        error = errors[twice.values["$color"]]
        assert isinstance(error, SubmitOutcomeUnknownError)
        assert len(error.candidates) == 2
        assert len(server.workflows) == 4

    @pytest.mark.parametrize("effect", [True, False], ids=["took-effect", "no-effect"])
    async def test_redirected(self, server: LocalServer, comfy: ComfyControl, journal: Path, effect: bool) -> None:
        """A create that is redirected is its row's error, and looked for at the next start: it may have acted."""
        server.fail_next(*CREATE, status=307, effect=effect)
        assert [type(result.error) for result in await run(comfy, journal, 1)] == [APIError]
        assert [result.error for result in await run(comfy, journal, 1)] == [None]
        assert made(server) == ["0"]

    async def test_in_the_same_process(
        self, server: LocalServer, comfy: ComfyControl, journal: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a client made itself is found again by it, when a full disk kept that from being written down."""
        put = JournalFile.put

        def full(self: JournalFile, entry: JournalEntry) -> None:
            if entry.state == "submitted":
                raise ConfigurationError("the journal cannot be used: database or disk is full")
            put(self, entry)

        with monkeypatch.context() as patch:
            patch.setattr(JournalFile, "put", full)
            with pytest.raises(ConfigurationError, match="disk is full"):
                await run(comfy, journal, 3)
        before = made(server)
        assert before
        assert [result.error for result in await run(comfy, journal, 3)] == [None] * 3
        assert made(server) == ["0", "1", "2"]

    async def test_looking_fails(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """When they cannot be looked for, the batch does not begin, and says why; the next start does it."""
        await self.interrupt(server, journal, effect=True)
        server.expire_token()
        with pytest.raises(AuthenticationError):
            await run(comfy, journal, 3)
        server._api.expired = False
        await run(comfy, journal, 3)
        assert len(server.workflows) == 3

    async def test_outcome_unknown(self, server: LocalServer, journal: Path) -> None:
        """A row whose outcome could not be told is looked for at the next start."""
        server.drop_next(*CREATE, after=True)
        server.fail_next("GET", "/v1/workflow", status=400, times=5)
        async with client_of(server) as comfy:
            results = await run(comfy, journal, 1, outputs=False)
            assert isinstance(results[0].error, SubmitOutcomeUnknownError)
        async with client_of(server) as comfy:
            results = await run(comfy, journal, 1)
        assert results[0].error is None
        assert len(server.workflows) == 1


class TestRefused:
    """Journals that are not for this batch: nothing is sent."""

    async def test_in_use(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A second batch on the same journal is refused, and the first goes on."""
        working = asyncio.create_task(run(comfy, journal, 20, concurrency=2))
        await eventually(lambda: len(server.workflows) > 2)
        with pytest.raises(ConfigurationError, match="is in use"):
            await run(comfy, journal, 20)
        assert all(result.error is None for result in await working)
        assert len(server.workflows) == 20

    async def test_other_graph(self, server: LocalServer, comfy: ComfyControl, journal: Path) -> None:
        """A journal of another graph, or of another API address."""
        await run(comfy, journal, 1)
        before = len(server.requests)
        other = {**GRAPH, "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
        with pytest.raises(ConfigurationError, match="belongs to another graph"):
            await anext(comfy.map(other, colors(1), key="color", journal=journal))
        assert len(server.requests) == before
        async with serving() as elsewhere, client_of(elsewhere) as stranger:
            with pytest.raises(ConfigurationError, match="belongs to another API address"):
                await run(stranger, journal, 1)
            assert len(elsewhere.requests) == 0

    async def test_foreign(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A file that is something else, and a path that no file can be at."""
        (tmp_path / "notes.txt").write_text("buy milk\n" * 500)
        for path in (tmp_path / "notes.txt", tmp_path, tmp_path / "notes.txt" / "batch.db"):
            with pytest.raises(ConfigurationError):
                await run(comfy, path, 1)
        assert len(server.requests) == 0


class TestProcesses:
    """A batch in a process of its own that comes to a sudden end."""

    async def test_interrupted(self, tmp_path: Path) -> None:
        """Ctrl-C leaves a journal that resumes, closed and without a log beside it."""
        async with serving(speed=10.0, duration=1.0, delays=(0.1, 0.1, 0.1)) as server:
            killer = Killer(server, tmp_path, 12)
            child = await killer.start()
            await eventually(lambda: len(server.workflows) >= 5)
            assert await killer.end(child, signal.SIGINT) != 0
            assert [name for name in names_in(tmp_path) if name.startswith("batch")] == ["batch.db"]
            assert len(server.workflows) < 12
            assert await killer.end(await killer.start()) == 0
            killer.check()

    @pytest.mark.slow
    async def test_killed(self, tmp_path: Path) -> None:
        """`kill -9` at three random moments loses and doubles nothing."""
        await kill_and_resume(tmp_path, kills=3, rows=20, draw=random.Random(), tell=lambda text: None)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    async def test_killed_sixty_times(self, tmp_path: Path) -> None:
        """`kill -9` at sixty random moments of 200 rows loses and doubles nothing."""
        await kill_and_resume(tmp_path, kills=60, rows=200, draw=random.Random())
