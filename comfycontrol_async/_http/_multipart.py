"""Form: the parts of an upload, checked before anything is sent and opened again for every attempt.

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

from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._file import File

# 50 MB per request (API documentation: general, upload limit).
MAX_UPLOAD = 50_000_000
# What boundaries and part headers add to each part, generously.
_PART_OVERHEAD = 300

# (name, text) or (name, file, file name, media type)
TextPart = tuple[str, str]
FilePart = tuple[str, BinaryIO, str, str]


@attrs.frozen(eq=False, repr=False)
class Form:
    """The fields of a multipart form, in order: names with texts or files."""

    fields: Sequence[tuple[str, str | File]]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[list[TextPart | FilePart]]:
        """Open every file in a thread and give the parts to send; close the files at the end.

        Raises:
            InvalidArgumentError: a file cannot be read.
        """
        files = ExitStack()
        opening = asyncio.ensure_future(asyncio.to_thread(self._open_parts, files))
        try:
            yield await asyncio.shield(opening)
        finally:
            if opening.done():
                files.close()
            else:  # cancelled: the thread goes on opening files that no task would close
                opening.add_done_callback(lambda _: files.close())

    def _open_parts(self, files: ExitStack) -> list[TextPart | FilePart]:
        parts: list[TextPart | FilePart] = []
        for name, value in self.fields:
            if isinstance(value, str):
                parts.append((name, value))
                continue
            try:
                stream = files.enter_context(value.open())
            except (OSError, ValueError, AttributeError, TypeError) as error:
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
            _check_labels(name, value)
        else:
            total += _text_size(name, value)
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
        pieces = _read_rest(source)
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(name, file, error) from error
    if not isinstance(pieces[-1], bytes):
        raise _text_stream(name)
    filename = file.filename or os.path.basename(str(getattr(source, "name", ""))) or None
    return attrs.evolve(file, source=b"".join(pieces), filename=filename)


def _read_rest(stream: BinaryIO) -> list[bytes]:
    """Read a stream to its end, or to what is too much; a raw one may give less than it is asked for."""
    pieces = [stream.read(MAX_UPLOAD + 1)]
    size = len(pieces[0])
    while size <= MAX_UPLOAD and pieces[-1]:
        pieces.append(stream.read(MAX_UPLOAD + 1 - size))
        size += len(pieces[-1])
    return pieces


def _size(name: str, file: File) -> int:
    try:
        with file.open() as stream:
            binary = isinstance(stream.read(0), bytes)
            size = stream.seek(0, io.SEEK_END)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise _unreadable(name, file, error) from error
    if not binary:
        raise _text_stream(name)
    return size


def _text_size(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidArgumentError(f"the text for {name!r} holds half a surrogate pair, which is no text") from None


def _check_labels(name: str, file: File) -> None:
    """Refuse a file name or media type that cannot stand in the header of a part."""
    for what, label in (("file name", file.filename), ("media type", file.content_type)):
        if label is not None and not (isinstance(label, str) and label.isprintable()):
            raise InvalidArgumentError(f"the {what} {label!r} for {name!r} must be printable text")
    if not describe(name, file)[0].isprintable():
        raise InvalidArgumentError(f"the file {str(file.path)!r} for {name!r} needs File(..., filename=...) to be sent")


def describe(name: str, file: File) -> tuple[str, str]:
    """Return the file name and media type that a file is sent with."""
    filename = file.filename or (file.path.name if file.path else name.lstrip("$"))
    content_type = file.content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return filename, content_type


def _text_stream(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"the file for {name!r} is a text stream: open it in binary mode ('rb')")


def _unreadable(name: str, file: File, error: Exception) -> InvalidArgumentError:
    what = f"file {str(file.path)!r}" if file.path else "source"
    reason = getattr(error, "strerror", None) or error
    return InvalidArgumentError(f"the {what} for {name!r} cannot be read: {reason}")
