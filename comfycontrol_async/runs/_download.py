"""Downloader: the outputs of workflows as `OutputFile`s, and many of them at once to a directory or a store."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs

from comfycontrol_async.errors import DownloadError
from comfycontrol_async.models import Output
from comfycontrol_async.runs._output_file import OutputFile
from comfycontrol_async.runs._part_file import exists_error, in_thread
from comfycontrol_async.runs._stores import ObjectStore, put
from comfycontrol_async.runs._transfer import Refresh, SignedUrls, Transfer, TransferTools

T = TypeVar("T", Path, str)

# How many transfers of one workflow run at once; the storage host is not under the API's limit.
_AT_ONCE = 4


@attrs.frozen(eq=False, repr=False, kw_only=True)
class Downloader(TransferTools):
    """Fetches outputs, for a client."""

    def files(self, outputs: Sequence[Output], refresh: Refresh) -> list[OutputFile]:
        """Return a handle of each output, in their order; `refresh` gets all of them again, with fresh URLs."""
        urls = SignedUrls(outputs, refresh, self.clock)

        def handle(place: int, output: Output) -> OutputFile:
            def pieces(file: OutputFile, label: str) -> AsyncGenerator[bytes | None, None]:
                kind = {"extension": file.extension, "media_type": file.media_type}
                return Transfer(self, urls, place, label=label, **kind).pieces()

            return OutputFile(output, place, pieces)

        return [handle(place, output) for place, output in enumerate(outputs)]

    async def save(self, files: Sequence[OutputFile], targets: Sequence[Path], *, overwrite: bool) -> list[Path]:
        """Save every file to its target, a few at a time.

        Raises:
            DownloadError: the first that failed; the others were finished all the same, and stay. Or a target exists
                (unless `overwrite`): nothing was fetched.
        """
        if targets and not overwrite:
            there = await in_thread(targets[0], lambda: [target for target in targets if os.path.lexists(target)])
            if there:
                raise exists_error(str(there[0]))
        return await _all([partial(file.save, target, overwrite) for file, target in zip(files, targets, strict=True)])

    async def put(
        self, files: Sequence[OutputFile], store: ObjectStore, paths: Sequence[str], *, overwrite: bool
    ) -> list[str]:
        """Put every file into a store under its path, a few at a time.

        Raises:
            DownloadError: the first that failed; the others were finished all the same, and stay.
        """
        pairs = zip(files, paths, strict=True)
        return await _all([partial(put, file, store, path, overwrite=overwrite) for file, path in pairs])


async def _all(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do all of it, a few at a time, and raise the first error in their order with what was finished."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with turn:
            return await work()

    tasks = [asyncio.ensure_future(one(work)) for work in works]
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    saved = [result for result in results if not isinstance(result, BaseException)]
    for error in results:
        if isinstance(error, DownloadError):
            error.saved = tuple(saved)
        if isinstance(error, BaseException):
            raise error
    return saved
