"""Signed URLs to files on disk: written aside, made durable, then renamed; never half a file under a final name.

Names come from URLs and templates that a stranger may have chosen, so they are reduced to one harmless component and
cannot leave the directory. Broken transfers are taken up where they broke off (RFC 9110, 14: range requests).
"""

import asyncio
import errno
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from io import IOBase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._retry import RetryPolicy, backoff
from comfycontrol_async._http._storage import Storage
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import DownloadError, InvalidArgumentError, ResponseLostError, TransportError
from comfycontrol_async.models import Output

T = TypeVar("T")

# What the storage host answers to a signed URL that is not good any more.
_EXPIRED = frozenset({400, 401, 403, 404, 410})
# What is no verdict on the file: the host was slow, or asked too often.
_PASSING = frozenset({408, 429})
# How many transfers of one workflow run at once; the storage host is not under the API's limit.
_AT_ONCE = 4

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# In bytes: what file systems count.
_LONGEST_NAME = 200


@attrs.frozen(kw_only=True)
class Downloader:
    """Fetches outputs; `chance` gives random numbers in [0, 1) for the jitter."""

    storage: Storage
    timeouts: Timeouts
    retry: RetryPolicy
    clock: Clock
    chance: Callable[[], float]
    # Files that are being written now: two transfers to one name would mix their bytes.
    _busy: set[Path] = attrs.field(factory=set, init=False)

    async def fetch_all(
        self,
        outputs: Sequence[Output],
        targets: Sequence[Path],
        refresh: Callable[[], Awaitable[Sequence[Output]]],
        *,
        overwrite: bool,
    ) -> list[Path]:
        """Fetch every output to its target, a few at a time; `refresh` gets fresh URLs when one has expired.

        Raises:
            DownloadError: the first that failed; the others were finished all the same, and stay. Or a target exists
                (unless `overwrite`) or is being written by somebody else: nothing was fetched.
        """
        await self._claim(targets, overwrite)
        try:
            return await self._fetch_claimed(outputs, targets, refresh)
        finally:
            self._busy.difference_update(targets)

    async def _claim(self, targets: Sequence[Path], overwrite: bool) -> None:
        existing = () if overwrite else await asyncio.to_thread(lambda: [t for t in targets if os.path.lexists(t)])
        for target in targets:
            if target in self._busy:
                raise DownloadError(
                    f"{str(target)!r} is being written by another download: give each its own name or directory",
                    path=str(target),
                )
            if target in existing:
                raise DownloadError(
                    f"{str(target)!r} exists: pass overwrite=True, or another directory or template", path=str(target)
                )
        self._busy.update(targets)

    async def _fetch_claimed(
        self,
        outputs: Sequence[Output],
        targets: Sequence[Path],
        refresh: Callable[[], Awaitable[Sequence[Output]]],
    ) -> list[Path]:
        turn = asyncio.Semaphore(_AT_ONCE)
        fresh: dict[str, str] = {output.id: output.src for output in outputs}
        lock = asyncio.Lock()

        async def renew(output: Output, stale: str) -> str:
            async with lock:
                if fresh.get(output.id) == stale:
                    fresh.update({new.id: new.src for new in await refresh()})
                return fresh.get(output.id, stale)

        async def one(output: Output, target: Path) -> Path:
            async with turn:
                await self._fetch(fresh[output.id], target, lambda stale: renew(output, stale))
                return target

        tasks = [asyncio.ensure_future(one(o, t)) for o, t in zip(outputs, targets, strict=True)]
        try:
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        saved = [result for result in results if isinstance(result, Path)]
        for error in results:
            if isinstance(error, DownloadError):
                error.saved = tuple(saved)
            if isinstance(error, BaseException):
                raise error
        return saved

    async def _fetch(self, url: str, target: Path, renew: Callable[[str], Awaitable[str]]) -> None:
        part = target.with_name(target.name + ".part")
        file: BinaryIO | None = None
        try:
            file = await _in_thread(target, _open_part, part)
            await self._fill(file, url, target, renew)
            await _in_thread(target, _finish, file, part, target)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(_discard, file, part))
            raise

    async def _fill(self, file: BinaryIO, url: str, target: Path, renew: Callable[[str], Awaitable[str]]) -> None:
        """Transfer until the file is whole, from where the last transfer broke off each time."""
        attempt, renewed, furthest = 0, False, 0
        while True:
            try:
                status = await self._transfer(url, file, target)
            except TransportError as error:
                attempt = 1 if file.tell() > furthest else attempt + 1
                furthest = max(furthest, file.tell())
                if attempt >= self.retry.attempts:
                    raise DownloadError(f"{target.name} could not be fetched: {error}", path=str(target)) from error
            else:
                if status < 300:
                    return
                if status in _EXPIRED and not renewed:
                    url, renewed = await renew(url), True
                    continue
                attempt += 1
                if (status < 500 and status not in _PASSING) or attempt >= self.retry.attempts:
                    text = f"{target.name} could not be fetched: the storage host answers {status}"
                    raise DownloadError(text, path=str(target))
            await self.clock.sleep(backoff(self.retry, attempt, self.chance()))

    async def _transfer(self, url: str, file: BinaryIO, target: Path) -> int:
        """Append what is missing of the file and return the status; 2xx means that it is whole."""
        offset = file.tell()
        async with self.storage.download(url, offset=offset, timeouts=self.timeouts) as stream:
            if stream.status >= 300 and not (offset and stream.status == 416):
                return stream.status
            begin, size = _extent(stream)
            if begin != offset:
                # Not the rest of what is here: all of it, another part, or (416) a file that is no longer as long.
                await _in_thread(target, _rewind, file)
            if begin not in (0, offset) or stream.status == 416:
                raise ResponseLostError("the storage host does not take up the transfer where it broke off")
            async for chunk in stream.chunks():
                await _in_thread(target, file.write, chunk)
            if size is not None and file.tell() != size:
                whole = f"{file.tell()} bytes came of a file of {size}"
                if file.tell() > size:
                    await _in_thread(target, _rewind, file)
                raise ResponseLostError(whole)
            return stream.status


def _extent(stream: Stream) -> tuple[int, int | None]:
    """Return the byte that an answer begins with, and the size of the whole file where that is told."""
    if stream.status == 206:
        found = _CONTENT_RANGE.match(stream.headers.get("Content-Range", ""))
        return (int(found[1]), int(found[2]) if found[2].isdigit() else None) if found else (-1, None)
    length = stream.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


async def _in_thread(target: Path, work: Callable[..., T], *args: object) -> T:
    """Run file work in a thread, to its end even when the caller is cancelled; what goes wrong there names the file."""
    future = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with suppress(OSError):
            result = await future
            if isinstance(result, IOBase):
                result.close()
        raise
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise DownloadError(f"cannot write {str(target)!r}: {reason}", path=str(target)) from error


def _open_part(part: Path) -> BinaryIO:
    part.parent.mkdir(parents=True, exist_ok=True)
    return part.open("wb")


def _discard(file: BinaryIO | None, part: Path) -> None:
    with suppress(OSError):  # closing writes what is left, to a disk that may be full
        if file is not None:
            file.close()
    with suppress(OSError):
        part.unlink()


def _rewind(file: BinaryIO) -> None:
    file.seek(0)
    file.truncate()


def _finish(file: BinaryIO, part: Path, target: Path) -> None:
    """Make the file durable, then give it its name: after a crash it is whole or absent."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    os.replace(part, target)
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(target.parent, os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def extension(url: str) -> str:
    """Return the extension that a URL's path ends with, such as ".png"; "" when it has none."""
    try:
        suffix = PurePosixPath(unquote(urlsplit(url).path)).suffix
    except ValueError:
        return ""  # no URL at all, as fetching it will say
    return suffix if re.fullmatch(r"\.[0-9A-Za-z]{1,10}", suffix) else ""


def safe_name(text: str) -> str:
    """Reduce text to one path component that is harmless on every system."""
    name = _UNSAFE.sub("_", text).encode(errors="replace").decode().strip().rstrip(".")
    if not name.strip("."):
        name = "_"
    if _RESERVED.fullmatch(name):
        name = "_" + name
    stem, dot, end = name.rpartition(".")
    if len(name.encode()) > _LONGEST_NAME:
        name = (
            _cut(stem, _LONGEST_NAME - len(end) - 1) + dot + end if dot and len(end) < 12 else _cut(name, _LONGEST_NAME)
        )
    return name


def _cut(text: str, size: int) -> str:
    """Return as much of the beginning as fits in `size` bytes."""
    return text.encode()[:size].decode(errors="ignore")


def target_names(template: str, outputs: Sequence[Output], *, name: str, id: str) -> list[str]:
    """Return a file name for each output: the template with `{name}`, `{index}` (from 1), `{ext}` and `{id}` filled in.

    Raises:
        InvalidArgumentError: the template has an unknown field or gives two outputs the same name.
    """
    names = []
    for index, output in enumerate(outputs, 1):
        try:
            text = template.format(name=name, index=index, ext=extension(output.src), id=id)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(
                f"the template {template!r} cannot be filled in ({error}); its fields are name, index, ext and id"
            ) from error
        names.append(safe_name(text))
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"the template {template!r} gives several outputs one name: use {{index}} in it")
    return names
