"""OutputFile: one file that a workflow made: read it, stream it, save it, or show it in a notebook."""

import base64
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

from comfycontrol_async.errors import DownloadError, InvalidArgumentError
from comfycontrol_async.models import Output
from comfycontrol_async.runs._error_context import naming
from comfycontrol_async.runs._file_names import extension, name_of
from comfycontrol_async.runs._media_types import media_type
from comfycontrol_async.runs._part_file import exists_error, in_thread, written_aside

# Larger pictures are not kept for display in a notebook.
_LARGEST_SHOWN = 8 * 2**20
# Formats that notebooks display, by signature. No SVG: it may hold scripts.
_SHOWN = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


class OutputFile:
    """One file that a workflow made; made by `WorkflowRun.files`.

    It is fetched from the storage host without any credential and without spending a request of the rate limit. Its
    signed URL works for about five minutes; when it has expired, fresh ones for all files of that call cost one request
    (API documentation: endpoints/workflows/outputs). A transfer that breaks off is taken up again.

    Attributes:
        id: as the service names it; two outputs may have one.
        name: a file name that is safe on every system, from the end of its URL's path.
        extension: such as ".png"; "" when the URL has none.
        media_type: such as "image/png", from the extension; "application/octet-stream" when that is not known.
    """

    __slots__ = ("_picture", "_pieces", "_workflow_id", "extension", "id", "media_type", "name")

    def __init__(
        self, output: Output, place: int, pieces: Callable[["OutputFile", str], AsyncGenerator[bytes | None, None]]
    ) -> None:
        self.id: str = output.id
        self.name: str = name_of(output.src, place)
        self.extension: str = extension(output.src)
        self.media_type: str = media_type(self.extension)
        self._workflow_id = output.workflow_id
        self._pieces = pieces
        self._picture: tuple[str, bytes] | None = None

    def __repr__(self) -> str:
        return f"<OutputFile {self.name!r} {self.media_type}>"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give its content in pieces as they arrive, of any size; close it with `contextlib.aclosing` to stop early.

        Raises:
            DownloadError: it could not be fetched; or the transfer broke off and the storage host gives no ETag to
                resume by. `read` and `save` start over then, but chunks that were yielded cannot be taken back.
        """
        given = False
        with naming(self._workflow_id):
            async with aclosing(self._pieces(self, self.name)) as pieces:
                async for piece in pieces:
                    if piece is not None:
                        given = True
                        yield piece
                    elif given:
                        raise DownloadError(
                            f"{self.name} broke off, and the storage host gives no ETag by which it could be taken up: "
                            "use read() or save(), which begin again"
                        )

    async def read(self, max_bytes: int | None = None) -> bytes:
        """Return its whole content.

        Args:
            max_bytes: the most that is accepted, after unpacking; None reads as much as it has.

        Raises:
            DownloadError: it could not be fetched, or has more than `max_bytes` bytes.
            InvalidArgumentError: `max_bytes` is no whole number from 0.
        """
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 0):
            raise InvalidArgumentError(f"max_bytes must be a whole number from 0, not {max_bytes!r}")
        with naming(self._workflow_id):
            content = await self._collect(max_bytes)
        self._keep(content)
        return content

    async def _collect(self, max_bytes: int | None) -> bytes:
        parts: list[bytes] = []
        size = 0
        async with aclosing(self._pieces(self, self.name)) as pieces:
            async for piece in pieces:
                if piece is None:
                    parts, size = [], 0
                    continue
                parts.append(piece)
                size += len(piece)
                if max_bytes is not None and size > max_bytes:
                    raise DownloadError(f"{self.name} has more than {max_bytes} bytes")
        return b"".join(parts)

    async def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write it to a file and return the file's path; directories on the way are made.

        It is written beside the path under a random name, made durable, and then given its name in one step: after a
        crash, and whatever other programs write there, a file under that name is whole or absent.

        Args:
            path: the file's.
            overwrite: whether a file that exists is replaced; a link is replaced itself, not followed.

        Raises:
            DownloadError: it could not be fetched or written, or the file exists; `path` of the error is the file's.
            InvalidArgumentError: `path` is none.
        """
        target = path_of(path)
        with naming(self._workflow_id):
            try:
                await self._write(target, overwrite)
            except DownloadError as error:
                error.path = str(target)
                raise
        return target

    async def _write(self, target: Path, overwrite: bool) -> None:
        if not target.name:
            raise DownloadError(f"the path {str(target)!r} names no file")
        if not overwrite and await in_thread(target, os.path.lexists, target):
            raise exists_error(str(target))
        async with (
            written_aside(target, overwrite=overwrite) as part,
            aclosing(self._pieces(self, target.name)) as pieces,
        ):
            async for piece in pieces:
                if piece is None:
                    await part.rewind()
                else:
                    await part.write(piece)

    def _keep(self, content: bytes) -> None:
        """Keep a picture for the notebook, when it is small and of a kind that notebooks show."""
        kinds = [kind for start, kind in _SHOWN if content.startswith(start)]
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            kinds.append("image/webp")
        self._picture = (kinds[0], content) if kinds and len(content) <= _LARGEST_SHOWN else None

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Show a picture that was read, in a notebook."""
        shown = {"text/plain": repr(self)}
        if self._picture is not None:
            kind, content = self._picture
            shown[kind] = base64.b64encode(content).decode()
        return shown


def path_of(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file or directory that a caller gave.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        return Path(path)
    except TypeError:
        raise InvalidArgumentError(f"the path must be text or a Path, not {type(path).__name__}") from None
