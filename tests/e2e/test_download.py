"""Outputs on disk: whole or absent, under names that stay in their directory, without a credential to the storage."""

import asyncio
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from comfycontrol_async import (
    ComfyControl,
    DownloadError,
    LocalLimiter,
    NotFoundError,
    RetryPolicy,
    WorkflowNotFinishedError,
)
from comfycontrol_async.testing import LocalServer, read_png_text
from support.graphs import GRAPH
from support.services import ID, SIZE, Received, connected, finished, names_in, raw_server, recording, sent
from support.waiting import eventually


class TestGood:
    """When nothing goes wrong."""

    async def test_files(self, tmp_path: Path) -> None:
        """Every output is a file with its content, in order, in a directory that is made; no request is spent."""
        async with finished(3) as (server, _, run):
            before = len(server.requests)
            paths = await run.download(tmp_path / "new" / "out")
            assert len(server.requests) == before
        assert [path.name for path in paths] == ["pic-001.png", "pic-002.png", "pic-003.png"]
        assert names_in(tmp_path / "new" / "out") == [path.name for path in paths]
        for path in paths:
            assert path.stat().st_size == SIZE
            assert '"image1"' in read_png_text(path.read_bytes())["prompt"]
        assert [request.status for request in server.storage_requests] == [200] * 3

    async def test_no_credential(self, tmp_path: Path) -> None:
        """The storage host gets nothing but the signed URL and our name."""
        async with finished() as (server, _, run):
            await run.download(tmp_path)
        assert not server.leaked_credentials
        (request,) = server.storage_requests
        assert set(request.headers) <= {"Host", "User-Agent", "Accept", "Accept-Encoding"}
        assert request.headers["User-Agent"].startswith("comfycontrol-async")

    async def test_template(self, tmp_path: Path) -> None:
        """The names come from the template's fields."""
        async with finished(2) as (_, _, run):
            paths = await run.download(str(tmp_path), template="{id}_{index}{ext}")
        assert [path.name for path in paths] == [f"{run.id}_1.png", f"{run.id}_2.png"]

    async def test_no_outputs(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A run without outputs makes no file."""
        run = await comfy.submit(GRAPH)
        server.finish(run.id)
        await run.refresh()
        server.fail_next("GET", "/v1/workflow/{id}/outputs", status=404)
        assert await run.download(tmp_path / "out") == []

    async def test_not_completed(self, tmp_path: Path) -> None:
        """What still runs has nothing to fetch."""
        async with connected(duration=1e6) as (_, comfy):
            run = await comfy.submit(GRAPH)
            with pytest.raises(WorkflowNotFinishedError):
                await run.download(tmp_path / "out")
        assert names_in(tmp_path) == []

    async def test_many(self, tmp_path: Path) -> None:
        """Twenty outputs come, not all at once."""
        async with finished(20, output_size=1000) as (server, _, run):
            assert len(await run.download(tmp_path)) == 20
            assert len(server.storage_requests) == 20


class TestBroken:
    """Transfers that break off."""

    async def test_resumes(self, tmp_path: Path) -> None:
        """A cut transfer goes on where it broke off, and the file is whole."""
        async with finished() as (server, _, run):
            server.cut_download_next(after=100_000)
            (path,) = await run.download(tmp_path)
            ranges = [request.headers.get("Range") for request in server.storage_requests]
            content = path.read_bytes()
            assert len(content) == SIZE
            await run.download(tmp_path / "again")
            assert zlib.crc32(content) == zlib.crc32((tmp_path / "again" / path.name).read_bytes())
        assert ranges[0] is None
        assert len(ranges) == 2
        assert ranges[1] is not None
        start = int(ranges[1].removeprefix("bytes=").removesuffix("-"))
        assert 0 < start <= 100_000
        assert names_in(tmp_path) == ["again", f"again/{path.name}", path.name]

    async def test_cut_at_the_very_beginning(self, tmp_path: Path) -> None:
        """A transfer that never brought a byte is begun again."""
        async with finished() as (server, _, run):
            server.cut_download_next(after=0, times=2)
            (path,) = await run.download(tmp_path)
        assert path.stat().st_size == SIZE

    async def test_progress_counts(self, tmp_path: Path) -> None:
        """As long as each attempt brings something, more cuts than attempts are survived."""
        async with finished(retry=RetryPolicy(attempts=2, base_delay=0.001)) as (server, _, run):
            server.cut_download_next(after=40_000, times=5)
            (path,) = await run.download(tmp_path)
        assert path.stat().st_size == SIZE

    async def test_gives_up(self, tmp_path: Path) -> None:
        """After all attempts the error names the file, and nothing is left of it."""
        async with finished(retry=RetryPolicy(attempts=3, base_delay=0.001)) as (server, _, run):
            server.cut_download_next(after=0, times=100)
            with pytest.raises(DownloadError, match=r"pic-001\.png could not be fetched") as caught:
                await run.download(tmp_path)
            assert len(server.storage_requests) == 3
        assert caught.value.path == str(tmp_path / "pic-001.png")
        assert caught.value.saved == ()
        assert "signature" not in str(caught.value)
        assert names_in(tmp_path) == []

    @pytest.mark.parametrize("status", [500, 503, 429, 408])
    async def test_storage_in_trouble(self, tmp_path: Path, status: int) -> None:
        """What may pass is tried again."""
        async with finished() as (server, _, run):
            server.fail_download_next(status=status, times=2)
            (path,) = await run.download(tmp_path)
            assert path.stat().st_size == SIZE
            assert len(server.storage_requests) == 3

    async def test_storage_unreachable(self, tmp_path: Path) -> None:
        """A storage host that is down is our own error, with the connection's as its cause."""
        async with finished(retry=RetryPolicy(attempts=2, base_delay=0.001)) as (server, _, run):
            await server.stop()
            with pytest.raises(DownloadError) as caught:
                await run.download(tmp_path)
        assert caught.value.__cause__ is not None
        assert names_in(tmp_path) == []

    @pytest.mark.parametrize(
        ("etag", "asked"),
        [
            pytest.param(b'ETag: "v1"\r\n', ["", "bytes=10-"], id="etag"),
            pytest.param(b'ETag: W/"v1"\r\n', ["", ""], id="weak-etag"),
            pytest.param(b"", ["", ""], id="no-etag"),
        ],
    )
    async def test_without_ranges(self, tmp_path: Path, etag: bytes, asked: list[str]) -> None:
        """A host that knows no ranges sends all of it again, and nothing is doubled or mixed."""
        ranges: list[str] = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ranges.append((await reader.readuntil(b"\r\n\r\n")).decode().lower().partition("range: ")[2].split("\r")[0])
            writer.write(b"HTTP/1.1 200 OK\r\n" + etag + b"Content-Length: 50\r\nConnection: close\r\n\r\n")
            # Without an ETag nothing says that this is the same object as the next one.
            first = bytes(range(10)) if b'"v1"' in etag and b"W/" not in etag else b"x" * 10
            writer.write(first if len(ranges) == 1 else bytes(range(50)))
            await writer.drain()

        def answer(received: Received) -> web.Response:
            return web.json_response([{"id": "o", "workflow_id": ID, "src": f"http://127.0.0.1:{port}/a/b.bin?sig=s"}])

        async with raw_server(talk) as port, recording(answer) as api:
            options: dict[str, Any] = {"retry": RetryPolicy(base_delay=0.001), "limiter": LocalLimiter(10, 10.0)}
            async with ComfyControl("cfc_x", base_url=api.url, **options) as comfy:
                (path,) = await comfy.get_run(ID).download(tmp_path)
        assert path.read_bytes() == bytes(range(50))
        assert ranges == asked


class TestExpired:
    """Signed URLs that are not good any more."""

    async def test_one_more_request(self, tmp_path: Path) -> None:
        """Fresh URLs for all outputs cost exactly one request."""
        async with finished(5) as (server, _, run):
            server.expire_urls()
            before = len(server.requests)
            paths = await run.download(tmp_path)
            assert sent(server)[before:] == [f"GET /v1/workflow/{run.id}/outputs"]
        assert [path.stat().st_size for path in paths] == [SIZE] * 5

    async def test_in_the_middle(self, tmp_path: Path) -> None:
        """A URL that expires after a cut is fetched again, and the file goes on from there."""
        async with finished() as (server, _, run):
            server.cut_download_next(after=100_000)
            server.fail_download_next(status=403)
            before = len(server.requests)
            (path,) = await run.download(tmp_path)
            assert len(server.requests) == before + 1
            assert [request.status for request in server.storage_requests] == [200, 403, 206]
        assert path.stat().st_size == SIZE

    async def test_for_ever(self, tmp_path: Path) -> None:
        """When the fresh URL is refused as well, that is the end: one request, no loop."""
        async with finished() as (server, _, run):
            server.fail_download_next(status=403, times=100)
            before = len(server.requests)
            with pytest.raises(DownloadError, match="403"):
                await run.download(tmp_path)
            assert len(server.requests) == before + 1
        assert names_in(tmp_path) == []

    async def test_workflow_is_gone(self, tmp_path: Path) -> None:
        """When there are no fresh URLs because the workflow is gone, that is told, and no half file stays."""
        async with finished() as (server, _, run):
            server.forget(run.id)
            with pytest.raises((DownloadError, NotFoundError)):
                await run.download(tmp_path)
        assert names_in(tmp_path) == []


class TestExisting:
    """Files that are there already."""

    async def test_not_overwritten(self, tmp_path: Path) -> None:
        """An existing file is left as it is, and nothing is fetched."""
        (tmp_path / "pic-002.png").write_text("mine")
        async with finished(3) as (server, _, run):
            with pytest.raises(DownloadError, match="overwrite=True") as caught:
                await run.download(tmp_path)
            assert len(server.storage_requests) == 0
        assert caught.value.path == str(tmp_path / "pic-002.png")
        assert names_in(tmp_path) == ["pic-002.png"]
        assert (tmp_path / "pic-002.png").read_text() == "mine"

    async def test_overwrite(self, tmp_path: Path) -> None:
        """With `overwrite=True` it is replaced, once the new one is whole."""
        (tmp_path / "pic-001.png").write_text("mine")
        async with finished(retry=RetryPolicy(attempts=2, base_delay=0.001)) as (server, _, run):
            server.cut_download_next(after=0, times=2)
            with pytest.raises(DownloadError):
                await run.download(tmp_path, overwrite=True)
            assert (tmp_path / "pic-001.png").read_text() == "mine"
            (path,) = await run.download(tmp_path, overwrite=True)
        assert path.stat().st_size == SIZE

    async def test_an_old_part_file(self, tmp_path: Path) -> None:
        """What an earlier process left half done is neither used nor touched: it may be at work still."""
        (tmp_path / "pic-001.png.part").write_bytes(b"old" * 200_000)
        async with finished() as (_, _, run):
            (path,) = await run.download(tmp_path)
        assert path.stat().st_size == SIZE
        assert names_in(tmp_path) == [path.name, "pic-001.png.part"]
        assert (tmp_path / "pic-001.png.part").stat().st_size == 600_000

    async def test_a_link(self, tmp_path: Path) -> None:
        """A link in place of a target counts as existing, even when it points nowhere."""
        (tmp_path / "pic-001.png").symlink_to(tmp_path / "elsewhere")
        async with finished() as (_, _, run):
            with pytest.raises(DownloadError):
                await run.download(tmp_path)
        assert names_in(tmp_path) == ["pic-001.png"]

    async def test_two_at_once(self, tmp_path: Path) -> None:
        """Two downloads to one name do not mix and do not overwrite: one wins, the other is told."""
        async with finished() as (_, _, run):
            results = await asyncio.gather(run.download(tmp_path), run.download(tmp_path), return_exceptions=True)
        (error,) = [result for result in results if isinstance(result, BaseException)]
        assert isinstance(error, DownloadError)
        assert "exists" in str(error)
        assert names_in(tmp_path) == ["pic-001.png"]
        assert (tmp_path / "pic-001.png").stat().st_size == SIZE

    async def test_two_that_overwrite(self, tmp_path: Path) -> None:
        """Two that may overwrite both succeed, and the last one's file is there as a whole."""
        async with finished() as (_, _, run):
            await asyncio.gather(*(run.download(tmp_path, overwrite=True) for _ in range(2)))
        assert names_in(tmp_path) == ["pic-001.png"]
        assert (tmp_path / "pic-001.png").stat().st_size == SIZE


class TestUnwritable:
    """Directories that cannot be written (rights do not stop root, so the paths are impossible ones)."""

    async def test_parent_is_a_file(self, tmp_path: Path) -> None:
        """A directory below a file cannot be made: our own error with the path, and nothing was fetched."""
        (tmp_path / "file").write_text("mine")
        async with finished(2) as (server, _, run):
            with pytest.raises(DownloadError, match="cannot write") as caught:
                await run.download(tmp_path / "file" / "out")
            assert len(server.storage_requests) == 0
        assert caught.value.path == str(tmp_path / "file" / "out" / "pic-001.png")
        assert isinstance(caught.value.__cause__, OSError)
        assert (tmp_path / "file").read_text() == "mine"

    async def test_directory_is_a_file(self, tmp_path: Path) -> None:
        """So is a directory that is a file."""
        (tmp_path / "file").write_text("mine")
        async with finished() as (_, _, run):
            with pytest.raises(DownloadError, match="cannot write"):
                await run.download(tmp_path / "file")

    async def test_target_is_a_directory(self, tmp_path: Path) -> None:
        """A directory under the final name is not replaced, and no half file stays."""
        (tmp_path / "pic-001.png").mkdir()
        async with finished() as (_, _, run):
            with pytest.raises(DownloadError):
                await run.download(tmp_path, overwrite=True)
        assert names_in(tmp_path) == ["pic-001.png"]

    async def test_downloads_made_so_far_stay(self, tmp_path: Path) -> None:
        """One file that cannot be written does not take the others with it."""
        (tmp_path / "pic-003.png").mkdir()
        async with finished(5) as (_, _, run):
            with pytest.raises(DownloadError, match=r"pic-003\.png") as caught:
                await run.download(tmp_path, overwrite=True)
        saved = [tmp_path / f"pic-00{number}.png" for number in (1, 2, 4, 5)]
        assert sorted(caught.value.saved) == saved
        assert [path.stat().st_size for path in saved] == [SIZE] * 4
        assert names_in(tmp_path) == [
            *(path.name for path in saved[:2]),
            "pic-003.png",
            "pic-004.png",
            "pic-005.png",
        ]

    async def test_one_that_cannot_be_fetched(self, tmp_path: Path) -> None:
        """Nor does one that cannot be fetched; fresh URLs are asked for once, whatever else goes wrong."""
        async with finished(4) as (server, _, run):
            server.fail_download_next(status=403, times=5)
            before = len(server.requests)
            with pytest.raises(DownloadError, match="403") as caught:
                await run.download(tmp_path)
            assert len(server.requests) == before + 1
        assert 1 <= len(caught.value.saved) <= 3
        assert {path.name for path in caught.value.saved} == set(names_in(tmp_path))


class TestCancelled:
    """Downloads that are cancelled at any moment."""

    @pytest.mark.parametrize("turns", [*range(1, 12), 15, 20, 30, 50, 80])
    async def test_no_half_file(self, tmp_path: Path, turns: int) -> None:
        """Nothing stands under a final name that is not whole, no part file stays, and the same again succeeds."""
        async with finished(2) as (_, _, run):
            task = asyncio.create_task(run.download(tmp_path))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.sleep(0.01)  # what threads may still be doing
            assert not [name for name in names_in(tmp_path) if name.endswith(".part")]
            assert all((tmp_path / name).stat().st_size == SIZE for name in names_in(tmp_path))
            assert len(await run.download(tmp_path, overwrite=True)) == 2

    async def test_while_it_transfers(self, tmp_path: Path) -> None:
        """A transfer that hangs is let go of at once."""
        hanging = asyncio.Event()

        class Slow(web.Response):
            async def write_eof(self, data: bytes = b"") -> None:
                hanging.set()
                await asyncio.sleep(60)

        def answer(received: Received) -> web.Response:
            if received.target.startswith("/v1/"):
                return web.json_response([{"id": "o", "workflow_id": ID, "src": url[0] + "/x.png"}])
            return Slow(body=b"x" * 100)

        url: list[str] = []
        async with recording(answer) as other:
            url.append(other.url)
            async with ComfyControl("cfc_x", base_url=other.url, limiter=LocalLimiter(10, 10.0)) as comfy:
                task = asyncio.create_task(comfy.get_run(ID).download(tmp_path))
                await hanging.wait()
                await eventually(lambda: len(names_in(tmp_path)) == 1)
                assert names_in(tmp_path)[0].endswith(".part")
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert names_in(tmp_path) == []


async def test_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is synced before it gets its name, and its directory after."""
    done: list[str] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def noting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def do(*arguments: Any) -> Any:
            done.append(name)
            return work(*arguments)

        return do

    async with finished() as (_, _, run):
        monkeypatch.setattr(os, "fsync", noting("fsync", fsync))
        monkeypatch.setattr(os, "link", noting("link", link))
        monkeypatch.setattr(os, "replace", noting("replace", replace))
        await run.download(tmp_path)
        await run.download(tmp_path, overwrite=True)
    assert done == ["fsync", "link", "fsync", "fsync", "replace", "fsync"]
