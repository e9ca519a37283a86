"""PartFile: a temporary file beside its target, renamed to the target once it is complete.

Its name is random, so the bytes of two transfers never mix, in this process or in another. It is created exclusively
and follows no link, so that another user of the directory cannot redirect the bytes. It is renamed in one step, after
its bytes are on the disk: after a crash the target is complete or absent. Without `overwrite` that step is a hard link,
which fails when the target exists, even if it was created after the transfer began.

A process that is killed leaves such a file behind. It is locked while it is written, so `sweep` removes only dead ones.
"""

import asyncio
import errno
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from comfycontrol_async._loop import stay_until_done
from comfycontrol_async.errors import DownloadError

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")

_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_PART_NAME = re.compile(r"\.[0-9a-f]{16}\.part")
# More pieces than this are put together first: a copy is dearer than a few calls, and cheaper than many.
_MOST_WRITES = 64
# What a file system without hard links says to one.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


class PartFile:
    """The file beside `target`; every method blocks, and belongs in a thread."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._path = _part_path(target)
        self._file: BinaryIO | None = None
        self._written = 0

    def open(self) -> None:
        """Make the file, and the directory if need be."""
        with suppress(FileNotFoundError, NotADirectoryError):
            mode = os.lstat(self.target).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError(errno.EISDIR, "it is a directory")
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                # Renaming over it would take /dev/null, or another program's pipe, out of the system.
                raise FileExistsError(errno.EEXIST, "it is a device, a pipe or a socket")
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, "its directory is a file") from None
        while not self._create():
            self._path = _part_path(self.target)

    def _create(self) -> bool:
        """Create the file and lock it; return False if `sweep` took it for a dead one in between."""
        self._file = os.fdopen(os.open(self._path, _NEW_FILE, 0o666), "wb", buffering=0)
        try:
            _lock(self._file.fileno())
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks: `sweep` does nothing there either
            mine = True
        else:
            mine = self._path.exists()
        if not mine:
            self._file.close()
        return mine

    def write(self, pieces: list[bytes]) -> None:
        """Append the pieces."""
        for piece in pieces if len(pieces) <= _MOST_WRITES else [b"".join(pieces)]:
            view = memoryview(piece)
            while view:
                view = view[self._opened.write(view) :]
        size = sum(map(len, pieces))
        if hasattr(os, "posix_fadvise"):
            # Starts writing to the disk now, so that the fsync at the end has little left to do.
            with suppress(OSError):
                os.posix_fadvise(self._opened.fileno(), self._written, size, os.POSIX_FADV_DONTNEED)
        self._written += size

    def rewind(self) -> None:
        """Drop what was written."""
        self._opened.seek(0)
        self._opened.truncate()
        self._written = 0

    def finish(self, overwrite: bool) -> None:
        """Make the bytes durable, then give the file its name.

        Raises:
            DownloadError: something has that name, and `overwrite` is false.
        """
        os.fsync(self._opened.fileno())
        if sys.platform == "win32":
            self._opened.close()  # what is open cannot be renamed there; elsewhere the lock goes last
        if overwrite:
            os.replace(self._path, self.target)
        else:
            try:
                _rename_to_new(self._path, self.target)
            except FileExistsError as error:
                raise exists_error(str(self.target)) from error
        self._opened.close()
        _sync_directory(self.target.parent)

    def discard(self) -> None:
        """Remove what was written; harmless when it was never opened, or has its name."""
        if self._file is None:
            return
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None  # `open` comes first
        return self._file


def _part_path(target: Path) -> Path:
    # Not derived from the target's name, which may already have the maximum length.
    return target.with_name(f".{os.urandom(8).hex()}.part")


def sweep(directory: Path) -> None:
    """Remove what killed processes left behind in a directory and below it; what is being written stays. Blocking."""
    for folder, _, names in os.walk(directory):
        for path in (Path(folder, name) for name in names if _PART_NAME.fullmatch(name)):
            with suppress(OSError):  # it is being written, is another user's, or has just become whole
                descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    _lock(descriptor)
                    path.unlink()
                finally:
                    os.close(descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "files are not locked here")
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _rename_to_new(part: Path, target: Path) -> None:
    """Rename a file to a name that must be free; two processes may try at once, and one of them fails."""
    if sys.platform == "win32":
        os.rename(part, target)  # refuses a name that is taken
        return
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # An empty file reserves the name. A crash before the next line leaves it behind.
        os.close(os.open(target, _NEW_FILE, 0o666))
        os.replace(part, target)
    else:
        with suppress(OSError):  # the target is complete, even if the temporary name stays
            part.unlink()


def _sync_directory(directory: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        with suppress(OSError):  # some file systems know no such thing, and the file is there already
            descriptor = os.open(directory, os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@asynccontextmanager
async def written_aside(target: Path, *, overwrite: bool) -> AsyncIterator["PartFileWriter"]:
    """Open a file beside `target` to write to; at the end it takes the target's name, after an error it is removed.

    Raises:
        DownloadError: it cannot be written, or the target exists and `overwrite` is false.
    """
    part = PartFile(target)
    writer = PartFileWriter(part)
    try:
        await in_thread(target, part.open)
        yield writer
        await writer.flush()
        await in_thread(target, part.finish, overwrite)
    except BaseException:
        await asyncio.shield(writer.discard())
        raise


class PartFileWriter:
    """Writes a `PartFile` from the event loop: what comes in small pieces is written in large ones, in a thread.

    One lot is gathered while the one before it is written.
    """

    # Bytes of a lot.
    LOT = 1 << 22

    def __init__(self, part: PartFile) -> None:
        self._part = part
        self._pieces: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def write(self, piece: bytes) -> None:
        """Append bytes."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size >= self.LOT:
            await self._begin_lot()

    async def flush(self) -> None:
        """Wait until everything was handed to the file."""
        await self._begin_lot()
        await self._end_lot()

    async def rewind(self) -> None:
        """Drop what was written."""
        self._pieces, self._size = [], 0
        await self._end_lot()
        await in_thread(self._part.target, self._part.rewind)

    async def discard(self) -> None:
        """Remove the file, once no thread writes to it."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
            if not self._writing.cancelled():
                self._writing.exception()  # looked at, so that asyncio does not log it: the first error goes first
        await asyncio.to_thread(self._part.discard)

    async def _begin_lot(self) -> None:
        await self._end_lot()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._writing = asyncio.ensure_future(in_thread(self._part.target, self._part.write, pieces))

    async def _end_lot(self) -> None:
        if self._writing is not None:
            await self._writing
            self._writing = None


async def in_thread(target: Path, work: Callable[..., T], *args: object) -> T:
    """Run file work in a thread, and stay until it has ended even when cancelled; its errors name `target`.

    Raises:
        DownloadError: the work raised an OSError, or the path cannot be one (a zero byte, half a surrogate pair).
    """
    try:
        return await stay_until_done(asyncio.ensure_future(asyncio.to_thread(work, *args)))
    except (OSError, ValueError) as error:
        raise DownloadError(f"cannot write {str(target)!r}: {_reason(error)}", path=str(target)) from error


def exists_error(path: str) -> DownloadError:
    """Return the error for a target that is there already."""
    return DownloadError(f"{path!r} exists: pass overwrite=True, or another directory or template", path=path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
    return str(error)
