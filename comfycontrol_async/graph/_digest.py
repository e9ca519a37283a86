"""Digests: SHA-256 of a graph and of the fields sent with it, equal whenever the same work is asked for.

What cannot change the result is left out: the order of nodes and keys, `_meta` (titles), the order of the fields, and
the names of files. Numbers count as the text that is sent. A digest is stable across processes, machines and releases:
it marks content in names and journals that outlive the program, so a change of the form below needs a new `_FORM`.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._json import Json

_FORM = "comfycontrol graph 1"
_PIECE = 1 << 20


def digest_graph(nodes: Mapping[str, Json]) -> str:
    """Return the digest of a graph's nodes, in 64 hex digits; blind to node order and `_meta`."""
    kept = {
        id: {key: value for key, value in node.items() if key != "_meta"} if isinstance(node, dict) else node
        for id, node in nodes.items()
    }
    return _sha256([_FORM, kept])


def digest_content(graph: str, fields: Iterable[tuple[str, str | File]]) -> str:
    """Return the digest of a graph, given as its own digest, with its form fields; blocking, as it reads files.

    Raises:
        InvalidArgumentError: a file cannot be read, or is a stream that can be read only once.
    """
    values = [
        [name, "file", digest_file(name, value)] if isinstance(value, File) else [name, "text", value]
        for name, value in fields
    ]
    return _sha256([_FORM, graph, sorted(values)])


def digest_file(name: str, file: File) -> str:
    """Return the digest of a file's content; a stream is read from where it stands, and set back there.

    Raises:
        InvalidArgumentError: it cannot be read, or only once.
    """
    source = file.source
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        if isinstance(source, (str, Path)) or callable(source):
            with file.open() as stream:
                return _digest_stream(stream)
        if not source.seekable():
            raise InvalidArgumentError(
                f"the stream for {name!r} can be read only once, but here its content has to be read before it is "
                "sent: give bytes, a path, or a function that opens it"
            )
        start = source.tell()
        try:
            return _digest_stream(source)
        finally:
            source.seek(start)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, InvalidArgumentError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"the file for {name!r} cannot be read: {reason}") from error


def _digest_stream(stream: BinaryIO) -> str:
    if isinstance(stream, io.TextIOBase):
        raise TypeError("it is open as text: open it with mode 'rb'")
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _sha256(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
