"""Outputs into object stores: obstore's in memory and on the disk, and a real S3 server."""

import asyncio
import json
import os
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import DownloadError, InvalidArgumentError
from support.services import finished, names_in
from support.waiting import eventually

pytest.importorskip("obstore")

NAMES = ["pic-001.png", "pic-002.png", "pic-003.png"]
BUCKET = "outputs"


async def in_a_process(*arguments: str) -> dict[str, Any]:
    """Download into a store from a process of its own, and return how it ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "support.store_download", *arguments),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(printed)
    return found


def check(found: dict[str, Any]) -> None:
    """Check what every store must give."""
    assert found["first"] == found["replaced"] == NAMES
    assert found["whole"]
    assert found["odd whole"]
    assert "exists" in found["again"]["error"]
    assert found["again"]["path"] == "pic-001.png"
    assert found["again"]["saved"] == []
    assert found["kept"] == "mine"
    assert found["whole again"]
    assert {*found["races"]} == {"race-1.png", "race-2.png", "race-3.png"}
    assert "cut-1.png could not be fetched" in found["cut"]["error"]
    assert found["listed"] == sorted([*NAMES, *found["odd"], *{*found["races"]}])
    assert not found["again"]["leak"]


@pytest.mark.parametrize("kind", [pytest.param("memory", marks=pytest.mark.slow), "local"])
async def test_stores(tmp_path: Path, kind: str) -> None:
    """Objects are whole under their paths, none is overwritten unasked, and a broken transfer leaves nothing."""
    found = await in_a_process(kind, *([str(tmp_path)] if kind == "local" else []))
    check(found)
    # Two fetched three outputs under the same names at once: each name was given once.
    assert len(found["races"]) == 3


@asynccontextmanager
async def s3_server() -> AsyncIterator[str]:
    """Run a real S3 server with a bucket."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"), stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        address = ""
        async with asyncio.timeout(60):
            while "Running on http" not in address:
                address = (await process.stderr.readline()).decode()
        url = address.split("Running on ")[1].split()[0].strip()
        create = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        await asyncio.to_thread(lambda: urllib.request.urlopen(create).close())
        yield url
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.examples
@pytest.mark.timeout(180)
async def test_s3() -> None:
    """The same holds for S3; a bucket that does not exist is an error of ours, which holds no secret.

    Two that race are told apart by S3 itself (If-None-Match); moto looks and writes in two steps, so that is not tried.
    """
    pytest.importorskip("moto")
    async with s3_server() as url:
        check(await in_a_process("s3", url, BUCKET))
        refused = (await in_a_process("s3", url, "no-such-bucket", "--refuses"))["refused"]
    assert "'pic-001.png' could not be put into the store" in refused["error"]
    assert refused["path"] == "pic-001.png"
    assert not refused["leak"]


class FakeStore:
    """A store that fails, or takes for ever."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun = 0
        self.seen: list[Path] = []

    async def put_async(self, path: str, file: Path, *, mode: str | None = None) -> None:
        """Fail, or wait."""
        self.seen.append(file)
        self.begun += 1
        if self.error is not None:
            raise self.error
        await asyncio.sleep(60)


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("bad path"), RuntimeError(""), Exception("a\nDebug: b")])
async def test_store_fails(error: Exception) -> None:
    """Whatever a store raises is an error of ours with its cause, and the file for it is gone."""
    store = FakeStore(error)
    async with finished() as (_, _, run):
        with pytest.raises(DownloadError, match="could not be put into the store") as caught:
            await run.download(store)
    assert caught.value.__cause__ is error
    assert "Debug" not in str(caught.value)
    assert not store.seen[0].exists()


async def test_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelling while the store takes an object leaves no file behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = FakeStore()
    async with finished(2) as (_, _, run):
        task = asyncio.create_task(run.download(store))
        await eventually(lambda: store.begun == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("target", [None, 5, b"out", ["out"], object()])
async def test_no_target(target: Any) -> None:
    """What is neither a directory nor a store is refused, before a request is spent."""
    async with finished() as (server, _, run):
        before = len(server.requests)
        with pytest.raises(InvalidArgumentError, match="a directory or an obstore store"):
            await run.download(target)
        assert len(server.requests) == before
        assert len(server.storage_requests) == 0
