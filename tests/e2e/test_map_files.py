"""Outputs of batches on the disk: names, sizes, disks that are full, and transfers that break."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import ComfyControl, DownloadError, InvalidArgumentError, MapResult
from comfycontrol_async.models import Output
from comfycontrol_async.runs._part_file import PartFile
from comfycontrol_async.testing import LocalServer, read_png_text
from comfycontrol_async.testing.server._signing import UrlSigner
from support.graphs import GRAPH, several
from support.services import Received, connected, names_in, recording

DATA = bytes(range(256)) * 400

ETAG = '"v1"'

Answer = Callable[[Received], web.Response]


def colors(count: int) -> list[dict[str, Any]]:
    """Make rows."""
    return [{"color": number} for number in range(count)]


async def run(comfy: ComfyControl, directory: Path, rows: Any, **options: Any) -> list[MapResult]:
    """Run a batch into a directory, and return its results by index."""
    given: dict[str, Any] = {"key": "color", "download_to": directory} | options
    results = [result async for result in comfy.map(GRAPH, rows, **given)]
    return sorted(results, key=lambda result: result.index)


class TestFiles:
    """What lies on the disk."""

    async def test_names(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """Files are named by key and index, in a directory that is made if need be, and hold what was made."""
        results = await run(comfy, tmp_path / "a" / "b", colors(12))
        assert names_in(tmp_path / "a" / "b") == sorted(f"{number}-001.png" for number in range(12))
        for result in results:
            assert result.paths == [tmp_path / "a" / "b" / f"{result.key}-001.png"]
            assert f'"color": "{result.key}"' in read_png_text(result.paths[0].read_bytes())["prompt"]
        assert server.leaked_credentials == []

    async def test_several_outputs(self, comfy: ComfyControl, tmp_path: Path) -> None:
        """A workflow with several outputs fills as many files."""
        results = [result async for result in comfy.map(several(3), [{}, {}], download_to=tmp_path)]
        assert all(len(result.paths) == len(result.outputs) == 3 for result in results)
        assert names_in(tmp_path) == [f"{row}-{index:03}.png" for row in (0, 1) for index in (1, 2, 3)]

    async def test_unsafe_keys(self, comfy: ComfyControl, tmp_path: Path) -> None:
        """Keys that are not safe file names stay in the directory, and no two get one file."""
        keys = ["../../up", "a/b", "a:b", "/etc/passwd", "..", "CON", "{name}", "x" * 250, "x" * 251, "猫" * 90]
        rows = [{"color": number, "name": key} for number, key in enumerate(keys)]
        graph = {**GRAPH, "3": {"class_type": "PrimitiveString", "inputs": {"value": "$text(name)"}}}
        out = tmp_path / "deep" / "out"
        results = [result async for result in comfy.map(graph, rows, key="name", download_to=out)]
        assert [result.error for result in results if result.error] == []
        paths = {path for result in results for path in result.paths}
        assert len(paths) == len(keys)
        assert {path.parent for path in paths} == {out}
        assert len([name for name in names_in(tmp_path) if name.endswith(".png")]) == len(keys)

    async def test_broken_transfers(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """Transfers that break off are taken up where they did."""
        server.cut_download_next(after=30, times=5)
        results = await run(comfy, tmp_path, colors(6))
        assert [result.error for result in results if result.error] == []
        assert {"bytes=30-"} <= {record.headers.get("Range") for record in server.storage_requests}
        assert len(names_in(tmp_path)) == 6

    async def test_bounded(self, tmp_path: Path) -> None:
        """However many outputs there are, no more than 32 files are written at once."""
        most = 0
        async with connected(output_size=200_000, delays=(0.0, 0.0, 0.0), duration=0.0) as (_, comfy):

            async def count() -> None:
                nonlocal most
                while True:
                    most = max(most, sum(name.endswith(".part") for name in names_in(tmp_path)))
                    await asyncio.sleep(0.005)

            counting = asyncio.create_task(count())
            results = [result async for result in comfy.map(several(8), [{}] * 12, download_to=tmp_path)]
            counting.cancel()
            assert sum(len(result.paths) for result in results) == 96
            assert 1 <= most <= 32


class TestUrls:
    """Outputs whose URL cannot be called."""

    @pytest.mark.parametrize(
        "url",
        ["", "//storage/x.png", "file:///etc/passwd", "http://[::1/x.png", "http://127.0.0.1:abc/x", "http:///x.png"],
    )
    async def test_one_of_five(
        self, comfy: ComfyControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        """One row fails with an error of ours, and the files of the other four are there."""
        sign = UrlSigner.sign
        bad: list[str] = []

        def sign_all_but_one(signer: UrlSigner, path: str) -> str:
            workflow = path.split("/")[2]
            bad.extend([workflow] * (not bad))
            return url if workflow in bad else sign(signer, path)

        monkeypatch.setattr(UrlSigner, "sign", sign_all_but_one)
        results = await run(comfy, tmp_path, colors(5))
        failed = [result for result in results if result.error is not None]
        assert [type(result.error) for result in failed] == [DownloadError]
        assert [result.run.id for result in failed if result.run] == bad
        assert sorted(names_in(tmp_path)) == sorted(
            f"{result.key}-001.png" for result in results if result.error is None
        )
        assert len(names_in(tmp_path)) == 4


class TestDisks:
    """Disks that take nothing."""

    @pytest.mark.parametrize("below", ["", "deeper"])
    async def test_no_directory(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path, below: str) -> None:
        """A `download_to` that is a file, or lies below one, is refused before anything is sent."""
        (tmp_path / "file").touch()
        with pytest.raises(InvalidArgumentError, match="download_to must be a directory"):
            await run(comfy, tmp_path / "file" / below, colors(3))
        assert len(server.requests) == 0

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    @pytest.mark.parametrize("size", [100, 300_000])
    async def test_full(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        """A disk that is full fails the row with the path of its file; the others are kept."""
        open_part = PartFile.open

        def open_there(part: PartFile) -> None:
            open_part(part)
            if part.target.name == "1-001.png":
                assert part._file is not None
                part._file.close()
                part._file = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb", buffering=0)

        monkeypatch.setattr(PartFile, "open", open_there)
        async with connected(output_size=size) as (_, comfy):
            results = await run(comfy, tmp_path, colors(3))
        error = results[1].error
        assert isinstance(error, DownloadError)
        assert str(error) == f"cannot write {str(tmp_path / '1-001.png')!r}: the disk is full"
        assert error.path == str(tmp_path / "1-001.png")
        assert results[1].run is not None
        assert len(results[1].outputs) == 1
        assert names_in(tmp_path) == ["0-001.png", "2-001.png"]

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that takes no files")
    async def test_read_only(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A directory that takes no files is refused before anything is sent."""
        with pytest.raises(InvalidArgumentError, match="no file can be written in '/proc/comfycontrol'"):
            await run(comfy, Path("/proc/comfycontrol"), colors(3))
        assert len(server.requests) == 0

    async def test_file_exists(self, comfy: ComfyControl, tmp_path: Path) -> None:
        """A file that was there before is not overwritten by a row that is new."""
        (tmp_path / "1-001.png").write_text("mine")
        results = await run(comfy, tmp_path, colors(3))
        assert [type(result.error) for result in results] == [type(None), DownloadError, type(None)]
        assert (tmp_path / "1-001.png").read_text() == "mine"

    async def test_resumed(self, comfy: ComfyControl, tmp_path: Path) -> None:
        """A row whose files could not be written is fetched again at the next start, and submitted never again."""
        out = tmp_path / "out"
        out.mkdir()
        (out / "1-001.png").mkdir()
        (out / "1-001.png" / "in-the-way").touch()
        results = await run(comfy, out, colors(3), journal=tmp_path / "batch.db")
        assert isinstance(results[1].error, DownloadError)
        (out / "1-001.png" / "in-the-way").unlink()
        (out / "1-001.png").rmdir()
        again = await run(comfy, out, colors(3), journal=tmp_path / "batch.db")
        assert [result.error for result in again] == [None] * 3
        assert [result.run.id for result in again if result.run] == [it.run.id for it in results if it.run]


def whole(received: Received) -> web.Response:
    """Answer with all of the file."""
    return web.Response(body=DATA, headers={"ETag": ETAG})


def untold(answer: Answer) -> Answer:
    """Answer the same without an ETag."""

    def bare(received: Received) -> web.Response:
        response = answer(received)
        del response.headers["ETag"]
        return response

    return bare


def part(first: int, last: int, size: str, body: bytes | None = None) -> Answer:
    """Answer with a part of the file, whatever was asked for."""

    def answer(received: Received) -> web.Response:
        headers = {"Content-Range": f"bytes {first}-{last}/{size}", "ETag": ETAG}
        return web.Response(status=206, headers=headers, body=DATA[first : last + 1] if body is None else body)

    return answer


def nonsense(received: Received) -> web.Response:
    """Answer with a part without saying which."""
    return web.Response(status=206, body=b"something")


class TestSizes:
    """What a storage host may say of sizes and ranges; a file is whole or not there."""

    @pytest.mark.parametrize(
        "answers",
        [
            pytest.param([whole], id="whole"),
            pytest.param([part(0, 99, "102400"), part(100, 102399, "102400")], id="two-parts"),
            pytest.param([part(0, 99, "102400"), part(100, 200, "102400"), whole], id="rest-cut-short"),
            pytest.param([part(0, 99, "102400"), part(50, 102399, "102400"), whole], id="another-part"),
            pytest.param([part(0, 99, "102400"), whole], id="no-ranges"),
            pytest.param([part(0, 99, "102400"), nonsense, whole], id="no-content-range"),
            pytest.param([nonsense, whole], id="part-without-being-asked"),
            pytest.param([part(0, 99, "50", b"x" * 100), whole], id="more-than-there-is"),
            pytest.param([untold(part(0, 99, "102400")), part(100, 102399, "102400"), whole], id="part-without-etag"),
            pytest.param([part(0, 99, "102400"), untold(part(100, 102399, "102400")), whole], id="rest-without-etag"),
            pytest.param([untold(part(0, 99, "102400")), untold(whole)], id="no-etag-at-all"),
        ],
    )
    async def test_whole_at_last(self, comfy: ComfyControl, tmp_path: Path, answers: list[Answer]) -> None:
        """Whatever comes, the file is put together rightly, or begun again."""
        left = iter(answers)
        async with recording(lambda received: next(left)(received)) as storage:
            paths = await fetch(comfy, storage.url, tmp_path)
        assert paths[0].read_bytes() == DATA
        assert len(storage.received) == len(answers)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(part(0, 99, "102400"), id="always-the-beginning"),
            pytest.param(part(7, 99, "102400"), id="never-the-beginning"),
            pytest.param(nonsense, id="no-content-range"),
        ],
    )
    async def test_never_whole(self, comfy: ComfyControl, tmp_path: Path, answer: Answer) -> None:
        """A host that never gives the whole file ends in an error, and in no file."""
        async with recording(answer) as storage:
            with pytest.raises(DownloadError, match="could not be fetched"):
                await fetch(comfy, storage.url, tmp_path)
        assert names_in(tmp_path) == []
        assert len(storage.received) < 12

    async def test_unknown_size(self, comfy: ComfyControl, tmp_path: Path) -> None:
        """Where the size of the whole is not told, what comes is the file."""
        async with recording(part(0, 102399, "*")) as storage:
            assert (await fetch(comfy, storage.url, tmp_path))[0].read_bytes() == DATA


async def fetch(comfy: ComfyControl, url: str, directory: Path) -> list[Path]:
    """Download one output from a storage host."""
    outputs = [Output(id="output-1", workflow_id="w", src=f"{url}/1.png?signature=x")]

    async def renew() -> list[Output]:
        return outputs

    downloader = comfy._tools.downloader
    return await downloader.save(downloader.files(outputs, renew), [directory / "1.png"], overwrite=False)
