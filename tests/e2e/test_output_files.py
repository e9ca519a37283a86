"""Output files: read, taken in chunks, saved and shown, each within its bound."""

import asyncio
import base64
import gzip
import tracemalloc
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import DownloadError, InvalidArgumentError, OutputFile, WorkflowNotFinishedError
from comfycontrol_async.testing import read_png_text
from support.graphs import GRAPH
from support.raw_storage import http, raw_storage, run_with, saying
from support.services import ID, SIZE, connected, finished, names_in, own_tasks
from support.waiting import eventually

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40 + b"\0\0\0\0IEND\xaeB`\x82"


async def first(url: str, **options: Any) -> OutputFile:
    """Return the file at a URL, of a run that is over."""
    async with run_with(url, **options) as (run, _):
        (file,) = await run.files()
    return file


class TestFiles:
    """The handles."""

    async def test_fields(self) -> None:
        """Each output is a file with a name, an extension and a media type, for the request that `outputs` costs."""
        async with finished(2) as (server, _, run):
            before = len(server.requests)
            files = await run.files()
            assert len(server.requests) == before
            outputs = await run.outputs()
        assert [file.id for file in files] == [output.id for output in outputs]
        assert [file.extension for file in files] == [".png", ".png"]
        assert [file.media_type for file in files] == ["image/png", "image/png"]
        assert all(file.name.endswith(".png") for file in files)
        assert len({file.name for file in files}) == 2
        assert repr(files[0]) == f"<OutputFile {files[0].name!r} image/png>"

    async def test_none(self) -> None:
        """A run without outputs has no files, and one that goes on is an error."""
        async with connected(duration=1e6) as (server, comfy):
            run = await comfy.submit(GRAPH)
            with pytest.raises(WorkflowNotFinishedError):
                await run.files()
            server.finish(run.id)
            await run.refresh()
            server.fail_next("GET", "/v1/workflow/{id}/outputs", status=404)
            assert await run.files() == []

    async def test_equal_ids(self) -> None:
        """Outputs of one id are two files."""
        async with raw_storage(saying(http(b"one", kind=""), http(b"two", kind=""))) as storage:
            async with run_with(f"{storage.url}/1.txt", f"{storage.url}/2.txt") as (run, _):
                one, two = await run.files()
                assert one.id == two.id
                assert [await one.read(), await two.read()] == [b"one", b"two"]
            assert [asked.target for asked in storage.asked] == ["/1.txt", "/2.txt"]


class TestRead:
    """Content in memory."""

    async def test_whole(self) -> None:
        """All of it comes, taken up where it broke off, without a credential."""
        async with finished() as (server, _, run):
            (file,) = await run.files()
            server.cut_download_next(after=100_000)
            content = await file.read()
            assert [request.status for request in server.storage_requests] == [200, 206]
            assert server.leaked_credentials == []
        assert len(content) == SIZE
        assert "prompt" in read_png_text(content)

    async def test_expired(self) -> None:
        """An expired URL costs one request, for all files of the call."""
        async with finished(3) as (server, _, run):
            files = await run.files()
            server.expire_urls()
            before = len(server.requests)
            contents = await asyncio.gather(*(file.read() for file in files))
            assert len(server.requests) == before + 1
        assert [len(content) for content in contents] == [SIZE] * 3

    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize(("most", "fits"), [(9_999, False), (10_000, True), (0, False), (10**9, True)])
    async def test_max_bytes(self, packed: bool, most: int, fits: bool) -> None:
        """More bytes than were allowed are an error, counted after unpacking; exactly as many are not."""
        content = bytes(10_000)
        answer = http(gzip.compress(content), "Content-Encoding: gzip") if packed else http(content)
        async with raw_storage(saying(answer)) as storage, run_with(f"{storage.url}/a.bin") as (run, _):
            (file,) = await run.files()
            if fits:
                assert await file.read(most) == content
            else:
                with pytest.raises(DownloadError, match=f"more than {most} bytes"):
                    await file.read(max_bytes=most)
            assert len(storage.asked) == 1

    @pytest.mark.parametrize("most", [-1, 1.5, "10", True])
    async def test_max_bytes_of_no_kind(self, most: Any) -> None:
        """What is no number of bytes is refused before anything is fetched."""
        async with raw_storage(saying(http(PNG))) as storage, run_with(f"{storage.url}/a.png") as (run, _):
            (file,) = await run.files()
            with pytest.raises(InvalidArgumentError, match="max_bytes"):
                await file.read(most)
            assert storage.asked == []

    async def test_empty_with_no_bytes_allowed(self) -> None:
        """Nothing fits into nothing."""
        async with (
            raw_storage(saying(http(kind="text/plain"))) as storage,
            run_with(f"{storage.url}/a.txt") as (run, _),
        ):
            assert await (await run.files())[0].read(max_bytes=0) == b""

    async def test_cancelled(self) -> None:
        """Cancelling leaves no task and no connection."""
        async with connected(output_size=30_000_000, delays=(0.0, 0.0, 0.0), duration=0.0) as (server, comfy):
            run = await comfy.run(GRAPH)
            (file,) = await run.files()
            before = own_tasks()
            task = asyncio.create_task(file.read())
            await eventually(lambda: len(server.storage_requests) > 0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: own_tasks() <= before)


class TestChunks:
    """Content as it comes."""

    async def test_all(self) -> None:
        """The chunks make up the content, also when the transfer broke off on the way."""
        async with finished() as (server, _, run):
            (file,) = await run.files()
            server.cut_download_next(after=100_000)
            chunks = [chunk async for chunk in file.chunks()]
            assert len(server.storage_requests) == 2
            assert b"".join(chunks) == await file.read()
        assert all(chunks)

    async def test_stopped_early(self) -> None:
        """A consumer that has seen enough leaves no connection behind."""
        async with finished(output_size=5_000_000) as (_, _, run):
            (file,) = await run.files()
            async with aclosing(file.chunks()) as chunks:
                async for chunk in chunks:
                    assert chunk.startswith(b"\x89PNG")
                    break
            assert len(await file.read()) == 5_000_000

    async def test_cannot_be_taken_up(self) -> None:
        """What was given cannot be taken back: without an ETag a broken transfer is an error that says what to do."""
        answers = [http(bytes(5_000), length=9_000, kind=""), http(bytes(9_000), kind="")]
        async with raw_storage(saying(*answers)) as storage, run_with(f"{storage.url}/a.bin") as (run, _):
            (file,) = await run.files()
            chunks = file.chunks()
            assert len(await anext(chunks)) == 5_000
            with pytest.raises(DownloadError, match=r"read\(\) or save\(\)"):
                await anext(chunks)
            assert len(await file.read()) == 9_000


class TestSave:
    """Files on the disk."""

    async def test_saved(self, tmp_path: Path) -> None:
        """The file is where it was wanted, in directories that are made, and its path comes back."""
        async with finished() as (_, _, run):
            (file,) = await run.files()
            saved = await file.save(str(tmp_path / "a" / "b.png"))
            assert saved == tmp_path / "a" / "b.png"
            assert saved.read_bytes() == await file.read()
        assert names_in(tmp_path) == ["a", "a/b.png"]

    async def test_exists(self, tmp_path: Path) -> None:
        """A file that is there is kept, for no transfer, unless it may be replaced."""
        (tmp_path / "a.png").write_text("mine")
        async with finished() as (server, _, run):
            (file,) = await run.files()
            with pytest.raises(DownloadError, match="overwrite=True") as caught:
                await file.save(tmp_path / "a.png")
            assert caught.value.path == str(tmp_path / "a.png")
            assert len(server.storage_requests) == 0
            await file.save(tmp_path / "a.png", overwrite=True)
        assert (tmp_path / "a.png").stat().st_size == SIZE

    async def test_again_from_the_beginning(self, tmp_path: Path) -> None:
        """A transfer that cannot be taken up is begun again, and what came first is gone."""
        answers = [http(b"x" * 50_000, length=90_000, kind=""), http(b"y" * 90_000, kind="")]
        async with raw_storage(saying(*answers)) as storage, run_with(f"{storage.url}/a.bin") as (run, _):
            path = await (await run.files())[0].save(tmp_path / "a.bin")
        assert path.read_bytes() == b"y" * 90_000

    @pytest.mark.parametrize("path", [None, 5, b"a.png"])
    async def test_no_path(self, path: Any) -> None:
        """What is no path is refused."""
        async with finished() as (_, _, run):
            with pytest.raises(InvalidArgumentError, match="path"):
                await (await run.files())[0].save(path)

    @pytest.mark.parametrize("path", ["", "/", "half\ud800", "zero\0"])
    @pytest.mark.parametrize("overwrite", [False, True])
    async def test_bad_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, overwrite: bool) -> None:
        """A path that no file can have is our own error."""
        monkeypatch.chdir(tmp_path)
        async with finished() as (_, _, run):
            with pytest.raises(DownloadError):
                await (await run.files())[0].save(path, overwrite=overwrite)
        assert names_in(tmp_path) == []


class TestShown:
    """What a notebook shows."""

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            pytest.param(PNG, "image/png", id="png"),
            pytest.param(b"\xff\xd8\xff\xe0" + bytes(900), "image/jpeg", id="jpeg"),
            pytest.param(b"GIF89a" + bytes(900), "image/gif", id="gif"),
            pytest.param(b"RIFF" + bytes(4) + b"WEBP" + bytes(900), "image/webp", id="webp"),
            pytest.param(b"<svg onload='alert(1)'/>", None, id="svg"),
            pytest.param(b"RIFF" + bytes(4) + b"WAVE" + bytes(900), None, id="sound"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(8 * 2**20 - 8), "image/png", id="eight-megabytes"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(8 * 2**20 - 7), None, id="larger"),
        ],
    )
    async def test_picture(self, content: bytes, kind: str | None) -> None:
        """A picture that was read is shown as what it is, up to 8 MB; nothing else is, nor before it was read."""
        reply = saying(http(content, kind=""))
        async with raw_storage(reply) as storage, run_with(f"{storage.url}/a.bin") as (run, _):
            (file,) = await run.files()
            assert file._repr_mimebundle_() == {"text/plain": repr(file)}
            await file.read()
        shown = file._repr_mimebundle_(include=None, exclude=None)
        assert shown.pop("text/plain") == repr(file)
        assert shown == ({} if kind is None else {kind: base64.b64encode(content).decode()})


@pytest.mark.parametrize("way", ["read", "save", "chunks", "download", "exists", "cancelled"])
async def test_errors_name_the_workflow(tmp_path: Path, way: str) -> None:
    """Every error that leaves a file or a download says which workflow it was."""
    (tmp_path / "there").touch()
    async with raw_storage(saying(http(status=404))) as storage, run_with(f"{storage.url}/a.png") as (run, _):
        (file,) = await run.files()
        works: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "read": file.read,
            "save": lambda: file.save(tmp_path / "a.png"),
            "chunks": lambda: anext(file.chunks()),
            "download": lambda: run.download(tmp_path),
            "exists": lambda: file.save(tmp_path / "there"),
            "cancelled": file.read,
        }

        async def work() -> None:
            await works[way]()

        task = asyncio.create_task(work())
        if way == "cancelled":
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError if way == "cancelled" else DownloadError) as caught:
            await task
    assert f"the workflow was {ID}" in caught.value.__notes__
    assert getattr(caught.value, "workflow_id", ID) == ID


async def test_after_the_client_is_closed() -> None:
    """A file outlives its client only as a name: reading it says that the client is closed."""
    async with raw_storage(saying(http(PNG))) as storage:
        file = await first(f"{storage.url}/a.png")
        with pytest.raises(Exception, match="closed"):
            await file.read()
    assert file.name == "a.png"


async def test_bomb() -> None:
    """A small body that holds a thousand times its size is unpacked piece by piece, and stopped at the bound."""
    reply = saying(http(gzip.compress(bytes(100_000_000)), "Content-Encoding: gzip"))
    async with raw_storage(reply) as storage, run_with(f"{storage.url}/a.bin") as (run, _):
        (file,) = await run.files()
        tracemalloc.start()
        try:
            with pytest.raises(DownloadError, match="more than 1000000 bytes"):
                await file.read(max_bytes=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 20_000_000
        finally:
            tracemalloc.stop()
