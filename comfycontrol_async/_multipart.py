"""Form: the parts of an upload, checked before anything is sent and opened anew for every attempt.

A form with an open file or a generator that is sent a second time sends an empty part without a word; so the parts
here are values and re-openable sources, and what goes on the wire is built from them for each attempt.
"""

import asyncio
import io
import mimetypes
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import attrs

from comfycontrol_async._file import File
from comfycontrol_async.errors import InvalidArgumentError

# 50 MB per request (API documentation: general, upload limit).
MAX_UPLOAD = 50_000_000
# What boundaries and part headers add to each part, generously.
_PART_OVERHEAD = 300

# (name, text) or (name, file, file name, media type)
TextPart = tuple[str, str]
FilePart = tuple[str, BinaryIO, str, str]


@attrs.frozen
class Form:
    """The fields of a multipart form, in order: names with texts or files."""

    fields: Sequence[tuple[str, str | File]]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[list[TextPart | FilePart]]:
        """Open every file in a thread and give the parts to send; close the files at the end.

        Raises:
            InvalidArgumentError: a file cannot be read.
        """
        with ExitStack() as files:
            yield await asyncio.to_thread(self._open_parts, files)

    def _open_parts(self, files: ExitStack) -> list[TextPart | FilePart]:
        parts: list[TextPart | FilePart] = []
        for name, value in self.fields:
            if isinstance(value, str):
                parts.append((name, value))
                continue
            try:
                stream = files.enter_context(value.open())
            except OSError as error:
                raise _unreadable(name, value, error) from error
            filename, content_type = describe(name, value)
            parts.append((name, stream, filename, content_type))
        return parts


def prepare(fields: Sequence[tuple[str, str | File]]) -> Form:
    """Make a form whose files can all be read, any number of times, and whose size the API accepts.

    Blocking: call it in a thread. Streams are read here, once: what was read is sent in every attempt.

    Raises:
        InvalidArgumentError: a file cannot be read, or the whole is over 50 MB.
    """
    ready: list[tuple[str, str | File]] = []
    total = 0
    for name, value in fields:
        if isinstance(value, File):
            value = _reopenable(name, value)
            total += _size(name, value)
        else:
            total += len(value.encode())
        total += len(name.encode()) + _PART_OVERHEAD
        ready.append((name, value))
    if total > MAX_UPLOAD:
        raise InvalidArgumentError(
            f"the upload has {total:,} bytes, but the API takes at most {MAX_UPLOAD:,} (50 MB) in one request"
        )
    return Form(ready)


def _reopenable(name: str, file: File) -> File:
    """Return a file that can be opened any number of times: a stream's rest as bytes, anything else as it is."""
    source = file.source
    if isinstance(source, (str, bytes, Path)) or callable(source):
        return file
    try:
        content = source.read(MAX_UPLOAD + 1)
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(name, file, error) from error
    if not isinstance(content, bytes):
        raise InvalidArgumentError(f"the file for {name!r} is a text stream: open it in binary mode ('rb')")
    filename = file.filename or os.path.basename(str(getattr(source, "name", ""))) or None
    return attrs.evolve(file, source=content, filename=filename)


def _size(name: str, file: File) -> int:
    try:
        with file.open() as stream:
            return stream.seek(0, io.SEEK_END)
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(name, file, error) from error


def describe(name: str, file: File) -> tuple[str, str]:
    """Return the file name and media type that a file is sent with."""
    filename = file.filename or (file.path.name if file.path else name.lstrip("$"))
    content_type = file.content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return filename, content_type


def _unreadable(name: str, file: File, error: Exception) -> InvalidArgumentError:
    what = f"file {str(file.path)!r}" if file.path else "source"
    reason = getattr(error, "strerror", None) or error
    return InvalidArgumentError(f"the {what} for {name!r} cannot be read: {reason}")
