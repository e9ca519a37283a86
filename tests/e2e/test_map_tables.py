"""Batches as people have them: tables with columns of their own, files beside them, folders by a column."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import (
    ComfyControl,
    ComfyControlError,
    File,
    GraphError,
    InvalidArgumentError,
    MapProgress,
    MapResult,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH, GRAPH
from support.services import connected, names_in, sent
from support.waiting import eventually

COLOR_GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": "$text(color)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}


async def run(comfy: ComfyControl, graph: Any, rows: Any, **options: Any) -> list[MapResult]:
    """Run a batch to its end, and return its results by index."""
    results = [result async for result in comfy.map(graph, rows, **options)]
    return sorted(results, key=lambda result: result.index)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table with an id, a note, an empty cell and a text over two lines."""
    path = tmp_path / "colors.csv"
    path.write_text('id,color,album,note\na,1,red/blue,first\nb,,green,"two\nlines"\nc,3,green,\n')
    return path


class TestTables:
    """Rows from a file."""

    async def test_columns(self, server: LocalServer, comfy: ComfyControl, table: Path, tmp_path: Path) -> None:
        """Columns that are no parameter ride along, and make keys, names, tags and folders."""
        results = await run(
            comfy,
            GRAPH,
            table,
            key="id",
            name="{album}-{key}",
            tags=["{album}", "gpu"],
            download_to=tmp_path / "out",
            template="{album}/{id}{ext}",
        )
        assert [(result.key, result.row["note"], result.error) for result in results] == [
            ("a", "first", None),
            ("b", "two\nlines", None),
            ("c", None, None),
        ]
        assert names_in(tmp_path / "out") == ["green", "green/b.png", "green/c.png", "red_blue", "red_blue/a.png"]
        records = {record.name.partition("-")[2][0]: record for record in server.workflows.values()}
        assert {key: (record.values["$color"], record.tags) for key, record in records.items()} == {
            "a": ("1", ["red/blue", "gpu"]),
            "b": ("3368601", ["green", "gpu"]),  # an empty cell is left out: the default counts
            "c": ("3", ["green", "gpu"]),
        }

    async def test_files(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A text for a file is a path beside the table, whatever the working directory is."""
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "a.gif").write_bytes(b"GIF89a")
        (tmp_path / "rows.jsonl").write_text(
            '{"image": "pictures/a.gif", "prefix": "p"}\n{"image": "absent.gif", "prefix": "p"}\n'
        )
        good, bad = await run(comfy, FILE_GRAPH, str(tmp_path / "rows.jsonl"))
        assert good.error is None
        assert isinstance(bad.error, GraphError)
        assert "absent.gif" in str(bad.error)
        (record,) = server.workflows.values()
        assert (record.files["image"].data, record.files["image"].filename) == (b"GIF89a", "a.gif")

    async def test_faulty_line(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A line that is no row fails alone."""
        (tmp_path / "rows.csv").write_text("id,color\na,1\nb,2,3\nc,3\n")
        results = await run(comfy, GRAPH, tmp_path / "rows.csv", key="id")
        assert [type(result.error) for result in results] == [type(None), InvalidArgumentError, type(None)]
        assert "line 3 has 3 cells" in str(results[1].error)
        assert len(server.workflows) == 2

    async def test_cut(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A table that was cut within a quote never looks complete: the rows before are given, then the error."""
        (tmp_path / "rows.csv").write_text('id,color\na,1\nb,2\nc,"3')
        batch = comfy.map(GRAPH, tmp_path / "rows.csv", key="id")
        results = [await anext(batch) for _ in range(2)]
        with pytest.raises(InvalidArgumentError, match="line 4"):
            await anext(batch)
        assert {result.key for result in results} == {"a", "b"}

    async def test_eta(self, comfy: ComfyControl, table: Path) -> None:
        """The rows of a table are counted, so that the time left is known as soon as a row is done."""
        seen: list[MapProgress] = []
        await run(comfy, GRAPH, table, key="id", concurrency=1, on_progress=seen.append)
        assert [progress.eta is None for progress in seen if progress.done == 0] == [True] * sum(
            progress.done == 0 for progress in seen
        )
        assert all(progress.eta is not None and progress.eta > 0 for progress in seen if 0 < progress.done < 3)
        assert seen[-1].eta == 0


EVERY_ROW: dict[str, tuple[Any, dict[str, Any], str]] = {
    "near-name": ([{"colour": 1}] * 20, {}, "a column 'colour', the graph a parameter 'color'"),
    "near-name-once": ([{"colour": 1}, {"color": 2}], {}, "a column 'colour', the graph a parameter 'color'"),
    "no-column": ([{"shade": 1}] * 20, {}, "no column 'color'"),
    "one-row": ([{"shade": 1}], {}, "no column 'color'"),
    "no-key": ([{"color": 1}] * 20, {"key": "id"}, "no column 'id' .it is the key"),
    "no-name": ([{"color": 1}] * 20, {"name": "{title}"}, "no column 'title' .name uses it"),
    "no-tag": ([{"color": 1}] * 20, {"tags": ["{title}"]}, "no column 'title' .tags uses it"),
    "no-folder": ([{"color": 1}] * 20, {"template": "{title}/{key}{ext}"}, "no column 'title' .template uses it"),
    "no-parameter": ([{"color": 1}] * 20, {"params": ["shade"]}, "params: the graph has no parameter 'shade'"),
}


class TestEveryRow:
    """What would fail every row ends the batch at the first, before anything is sent."""

    @pytest.mark.parametrize("kind", EVERY_ROW)
    async def test_ends(self, server: LocalServer, comfy: ComfyControl, kind: str) -> None:
        """One error says it, and nothing was sent."""
        rows, options, text = EVERY_ROW[kind]
        with pytest.raises(InvalidArgumentError, match=text):
            await run(comfy, COLOR_GRAPH, rows, **options)
        assert len(server.requests) == 0

    @pytest.mark.parametrize("suffix", ["csv", "jsonl"])
    async def test_table(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path, suffix: str) -> None:
        """Of a table too; one that is empty or absent is named."""
        path = tmp_path / f"rows.{suffix}"
        path.write_text("shade\n1\n2\n" if suffix == "csv" else '{"shade": 1}\n{"shade": 2}\n')
        with pytest.raises(InvalidArgumentError, match="no column 'color'"):
            await run(comfy, COLOR_GRAPH, path)
        path.write_text("")
        with pytest.raises(InvalidArgumentError, match=f"rows.{suffix}' is empty"):
            await run(comfy, COLOR_GRAPH, path)
        path.unlink()
        with pytest.raises(InvalidArgumentError, match=f"rows.{suffix}' cannot be read"):
            await run(comfy, COLOR_GRAPH, path)
        assert len(server.requests) == 0

    async def test_one_row_alone(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A first row that lacks what the second has fails alone."""
        rows: list[Any] = [{"shade": 1}, {"color": 2}, {"shade": 3}]
        results = await run(comfy, COLOR_GRAPH, rows)
        assert [type(result.error) for result in results] == [GraphError, type(None), GraphError]
        rows = [None, {"color": 2}, {"colour": 3}]
        results = await run(comfy, COLOR_GRAPH, rows)
        assert [type(it.error) for it in results] == [InvalidArgumentError, type(None), InvalidArgumentError]
        assert len(server.workflows) == 2


async def foreign_cancel() -> None:
    """Wait for something of one's own that was cancelled."""
    task = asyncio.ensure_future(asyncio.Event().wait())
    task.cancel()
    await task


class TestHonest:
    """Whatever rows and callbacks do, each row has its result, and a source that was cut has an error."""

    @pytest.mark.parametrize("kind", ["async", "sync"])
    async def test_cancelled_rows(self, server: LocalServer, comfy: ComfyControl, kind: str) -> None:
        """Rows that are cancelled by something else end the batch with an error, after those that were read."""

        async def slowly() -> AsyncIterator[dict[str, Any]]:
            for number in range(3):
                yield {"color": number}
            await foreign_cancel()

        def quickly() -> Iterator[dict[str, Any]]:
            for number in range(3):
                yield {"color": number}
            raise asyncio.CancelledError

        batch = comfy.map(GRAPH, slowly() if kind == "async" else quickly())
        results = [await anext(batch) for _ in range(3)]
        with pytest.raises(InvalidArgumentError, match="the rows ended early"):
            await anext(batch)
        assert all(result.error is None for result in results)
        assert len(server.workflows) == 3

    async def test_cancelled_callbacks(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Callbacks that are cancelled by something else fail the row that they are about, and no other."""

        def key(row: Any) -> str:
            if row["color"] == 1:
                raise asyncio.CancelledError
            return f"k{row['color']}"

        fourth = iter([True])

        async def progress(now: MapProgress) -> None:
            if now.done == 4 and next(fourth, False):
                await foreign_cancel()

        rows = [{"color": number} for number in range(6)]
        results = await run(comfy, GRAPH, rows, key=key, concurrency=1, on_progress=progress)
        assert len(results) == 6
        failed = [result for result in results if result.error is not None]
        assert len(failed) == 2
        assert "the function for key failed" in str(failed[0].error)
        assert "on_progress was cancelled" in str(failed[1].error)

    async def test_unexpected(self, comfy: ComfyControl) -> None:
        """A value that breaks what handles it fails its row, with its own error as the cause."""

        def no_source() -> Any:
            raise LookupError("no such source")

        rows: list[Any] = [{"image": image, "prefix": "p"} for image in (b"x", File(no_source), b"y")]
        results = await run(comfy, FILE_GRAPH, rows)
        assert [result.error is None for result in results] == [True, False, True]
        error = results[1].error
        assert "no such source" in str(error)
        assert isinstance(error, ComfyControlError)
        assert isinstance(error.__cause__, LookupError)

    async def test_journal_again(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """After `break` the same journal can be used at once: the batch that is closing is waited for."""
        path = tmp_path / "batch.db"
        counts = []
        for turn in range(3):
            count = 0
            async for _ in comfy.map(
                GRAPH, ({"color": n} for n in range(12)), key="color", journal=path, concurrency=3
            ):
                count += 1
                if count == 4 * (turn + 1) and turn < 2:
                    break
            counts.append(count)
        assert counts == [4, 8, 12]
        assert len(server.workflows) == 12

    async def test_digests(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A row whose file, stream or number is another one is not taken for the one of the journal."""
        import numpy  # only here

        picture = tmp_path / "a.gif"
        picture.write_bytes(b"GIF89a-one")
        values: list[tuple[Any, Any, bool]] = [
            (File(io.BytesIO(b"one")), File(io.BytesIO(b"one")), True),
            (File(io.BytesIO(b"one")), File(io.BytesIO(b"two")), False),
            (File(lambda: io.BytesIO(b"one")), File(lambda: io.BytesIO(b"two")), False),
            (picture, b"GIF89a-one", True),
            (b"one", File(b"one", filename="other.gif"), True),
        ]
        for number, (first, second, same) in enumerate(values):
            errors = []
            for value in (first, second):
                row = {"image": value, "prefix": numpy.int64(2**62)}
                (result,) = await run(comfy, FILE_GRAPH, [row], journal=tmp_path / f"{number}.db")
                errors.append(result.error is None)
            assert errors == [True, same]
        for number in (2**53, 2**53 + 1):
            row = {"image": b"x", "prefix": numpy.uint64(number)}
            (result,) = await run(comfy, FILE_GRAPH, [row], journal=tmp_path / "seeds.db")
        assert isinstance(result.error, InvalidArgumentError)

    async def test_equal_graphs(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A graph with its nodes in another order, or other titles, goes on with the journal."""
        turned = {id: {**node, "_meta": {"title": "x"}} for id, node in reversed(GRAPH.items())}
        for graph in (GRAPH, turned):
            (result,) = await run(comfy, graph, [{"color": 1}], journal=tmp_path / "batch.db")
            assert result.error is None
        assert len(server.workflows) == 1


class TestLimit:
    """What a batch says while it waits for the limit."""

    async def test_waiting(self) -> None:
        """The progress tells for how long the next request waits, and counts all requests."""
        async with connected(limit=5, speed=20.0, duration=1.0) as (server, comfy):
            seen: list[MapProgress] = []
            await run(comfy, GRAPH, [{"color": n} for n in range(7)], on_progress=seen.append)
            assert max(progress.waiting_for_limit for progress in seen) > 0
            assert seen[-1].waiting_for_limit == 0
            assert seen[-1].requests == len(sent(server))
            assert [progress.running for progress in seen if progress.done == 7] == [0]


async def test_lost_submits_in_the_progress(tmp_path: Path) -> None:
    """While lost submits are looked for, the progress shows the requests of it."""
    async with connected(duration=2.0) as (server, comfy):
        rows = [{"color": n} for n in range(3)]
        path = tmp_path / "batch.db"
        server.delay_next("POST", "/v1/workflow", 1000.0, times=3)
        working = asyncio.create_task(run(comfy, GRAPH, rows, key="color", journal=path))
        await eventually(lambda: len(server.workflows) == 3)
        working.cancel()
        await asyncio.wait([working])
        seen: list[MapProgress] = []
        results = await run(comfy, GRAPH, rows, key="color", journal=path, on_progress=seen.append)
        assert all(result.error is None for result in results)
        assert max(progress.requests for progress in seen if progress.read == 0) >= 1
        assert len(server.workflows) == 3
