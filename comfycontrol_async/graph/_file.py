"""File: something to upload, that can be opened again for every attempt."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import attrs

FileSource = str | Path | bytes | BinaryIO | Callable[[], BinaryIO]


@attrs.frozen(slots=True, repr=False, eq=False)
class File:
    """A file parameter of a workflow.

    Args:
        source: a path, the bytes themselves, an open binary stream, or a function that opens one. A path or a
            function is opened again for every attempt. A stream is read once, from where it stands, and what was
            read is sent in every attempt: a stream that cannot be read twice is never read twice.
        filename: the name the server sees; default: the path's own name, or the parameter's name.
        content_type: the part's media type; default: guessed from the name.
    """

    source: FileSource
    filename: str | None = attrs.field(default=None, kw_only=True)
    content_type: str | None = attrs.field(default=None, kw_only=True)

    def __repr__(self) -> str:
        source = self.source
        shown = f"<{len(source)} bytes>" if isinstance(source, bytes) else repr(source)
        return f"File({shown}, filename={self.filename!r})"

    @property
    def path(self) -> Path | None:
        """The path it is read from, None for bytes, streams and functions."""
        return Path(self.source) if isinstance(self.source, (str, Path)) else None

    def open(self) -> BinaryIO:
        """Open it for reading; blocking, so call it in a thread. The caller closes it.

        Raises:
            OSError: the path cannot be opened.
        """
        source = self.source
        if isinstance(source, bytes):
            return io.BytesIO(source)
        if isinstance(source, (str, Path)):
            return Path(source).open("rb")
        if callable(source):
            return source()
        return source
