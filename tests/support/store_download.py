"""A process that downloads outputs into a store of obstore, and prints what came of it as JSON.

    python -m support.store_download memory | local DIRECTORY | s3 ENDPOINT BUCKET

A process of its own: obstore 0.12.1 may abort the interpreter at exit after it has talked to S3, so this one leaves
without the interpreter's exit.
"""

import asyncio
import json
import os
import sys
import traceback
from typing import Any

from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store

from comfycontrol_async import DownloadError, RetryPolicy, WorkflowRun
from support.services import finished

SIZE = 6_000_000  # more than one part of a multipart upload
SECRET = "s3cretKey"


def open_store(kind: str, *where: str) -> ObjectStore:
    """Open the store that the command line names."""
    if kind == "memory":
        return MemoryStore()
    if kind == "local":
        return LocalStore(where[0])
    endpoint, bucket = where
    return S3Store(
        bucket,
        endpoint=endpoint,
        access_key_id="key",
        secret_access_key=SECRET,
        region="us-east-1",
        client_options={"allow_http": True},
    )


async def attempt(run: WorkflowRun, store: ObjectStore, **options: Any) -> Any:
    """Download, and return the paths or what the error says."""
    try:
        return await run.download(store, **options)
    except DownloadError as error:
        text = "".join(traceback.format_exception(error))
        return {"error": error.message, "path": error.path, "saved": list(error.saved), "leak": SECRET in text}


async def content(store: ObjectStore, path: str) -> bytes:
    """Return what the store has under a path."""
    return bytes(await (await store.get_async(path)).bytes_async())


async def whole(store: ObjectStore, paths: list[str], files: list[bytes]) -> bool:
    """Return whether the store has these files under these paths."""
    return [await content(store, path) for path in paths] == files


async def check(store: ObjectStore) -> dict[str, Any]:
    """Do everything that can be done with a store, and return how it ended."""
    async with finished(3, output_size=SIZE, retry=RetryPolicy(attempts=2, base_delay=0.001)) as (server, _, run):
        files = [await file.read() for file in await run.files()]
        found: dict[str, Any] = {"first": await attempt(run, store)}
        found["whole"] = await whole(store, found["first"], files)
        await store.put_async("pic-002.png", b"mine")
        found["again"] = await attempt(run, store)
        found["kept"] = (await content(store, "pic-002.png")).decode()
        found["replaced"] = await attempt(run, store, overwrite=True)
        found["whole again"] = await content(store, "pic-002.png") == files[1]
        found["odd"] = await attempt(run, store, template="\u732b #{index} %41+&~\u00e9{ext}")
        found["odd whole"] = [
            await content(store, path) == file for path, file in zip(found["odd"], files, strict=True)
        ]
        races = await asyncio.gather(*(attempt(run, store, template="race-{index}{ext}") for _ in range(2)))
        found["races"] = sorted(path for race in races for path in (race if isinstance(race, list) else race["saved"]))
        server.cut_download_next(after=1000, times=100)
        found["cut"] = await attempt(run, store, template="cut-{index}{ext}")
        found["listed"] = sorted([item["path"] for item in await store.list().collect_async()])
    return found


async def fail(store: ObjectStore) -> dict[str, Any]:
    """Download into a store that refuses everything."""
    async with finished(1) as (_, _, run):
        return {"refused": await attempt(run, store)}


if __name__ == "__main__":
    opened = open_store(*[argument for argument in sys.argv[1:] if argument != "--refuses"])
    print(json.dumps(asyncio.run(fail(opened) if "--refuses" in sys.argv else check(opened))), flush=True)
    os._exit(0)
