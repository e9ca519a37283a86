"""Files that hold a graph: JSON, and PNG pictures made by ComfyUI, which keeps the graph that it ran in a text chunk.

A picture's pixels are skipped, not read, and its checksums hold only for the texts. Nothing in a file makes us take
more memory than `_LARGEST`: chunks that are cut or lie about their length, texts that unpack to gigabytes.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph._format import EXPORT

# Bytes of a graph's text. The largest graphs that people share have 2 MB.
_LARGEST = 64 * 1024 * 1024
_MOST_CHUNKS = 200_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class _PictureError(Exception):
    """A picture that no graph can be read from; the text says why."""


def read_graph(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in a file, or under `prompt` in a PNG; blocking.

    Raises:
        GraphError: it cannot be read, or holds no JSON object in UTF-8.
    """
    name = repr(str(path))
    try:
        data = json.loads(_read_text(Path(path)))
    except OSError as error:
        raise GraphError(f"cannot read {name}: {error.strerror or error}; check the path") from error
    except _PictureError as error:
        raise GraphError(f"{name} {error}") from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{name} is not UTF-8 text, nor a PNG made by ComfyUI; {EXPORT}") from error
    except (ValueError, RecursionError) as error:
        raise GraphError(f"{name} is not JSON: {error}; {EXPORT}") from error
    if not isinstance(data, dict):
        raise GraphError(f"{name} holds a {type(data).__name__}, not a JSON object; {EXPORT}")
    return data


def _read_text(path: Path) -> str:
    with path.open("rb") as stream:
        begin = stream.read(len(_SIGNATURE))
        if begin == _SIGNATURE:
            return _read_prompt(stream)
        data = begin + stream.read(_LARGEST)
    if len(data) > _LARGEST:
        raise _PictureError(f"is larger than {_LARGEST // 1024**2} MB, which no graph is; check the path")
    return data.decode("utf-8-sig")


def _read_prompt(stream: BinaryIO) -> str:
    """Return the text that a PNG keeps under `prompt`; the stream stands behind the signature."""
    keys = []
    for kind, body in _text_chunks(stream):
        key, _, rest = body.partition(b"\0")
        keys.append(key)
        if key == b"prompt":
            return _READERS[kind](rest)
    if b"workflow" in keys:
        raise _PictureError(f'is a PNG with the UI format only, under "workflow": open it in ComfyUI; {EXPORT}')
    raise _PictureError(
        "is a PNG without a graph: ComfyUI keeps it in the pictures that it saves, unless it runs with "
        "--disable-metadata, and most programs drop it when they save a picture anew"
    )


def _text_chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the body of every text chunk of a PNG, wherever it stands, and skip the rest."""
    for _ in range(_MOST_CHUNKS):
        header = stream.read(8)
        length, kind = int.from_bytes(header[:4]), header[4:]
        if len(header) < 8:
            raise _PictureError("is a PNG that is cut: it ends before a graph was found; fetch it again")
        if kind == b"IEND":
            return
        if kind not in _READERS:
            stream.seek(length + 4, 1)
            continue
        if length > _LARGEST:
            raise _too_large()
        body, checksum = stream.read(length), stream.read(4)
        if len(checksum) < 4:
            raise _PictureError(f"is a PNG that is cut in its {kind.decode()} chunk; fetch it again")
        if zlib.crc32(kind + body) != int.from_bytes(checksum):
            raise _PictureError(f"is a PNG that is damaged in its {kind.decode()} chunk; fetch it again")
        yield kind, body
    raise _PictureError("is a PNG of too many parts")


def _read_plain(rest: bytes) -> str:
    try:
        return rest.decode()
    except UnicodeDecodeError:
        return rest.decode("latin-1")  # what the PNG standard says of tEXt and zTXt


def _read_compressed(rest: bytes) -> str:
    if rest[:1] != b"\0":
        raise _PictureError("is a PNG whose graph is compressed in an unknown way")
    return _read_plain(_unpack(rest[1:]))


def _read_international(rest: bytes) -> str:
    """Read iTXt: whether it is compressed and how, a language and a translated keyword, each ended by 0, the text."""
    flags, texts = rest[:2], rest[2:].split(b"\0", 2)
    if len(texts) < 3 or flags[:1] not in (b"\0", b"\1") or flags[1:] != b"\0":
        raise _PictureError("is a PNG that is damaged in its iTXt chunk; fetch it again")
    return (_unpack(texts[2]) if flags[0] else texts[2]).decode()


def _unpack(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, _LARGEST)
    except zlib.error as error:
        raise _PictureError(f"is a PNG whose graph cannot be unpacked: {error}; fetch it again") from error
    if unpacker.unconsumed_tail:
        raise _too_large()
    if not unpacker.eof:
        raise _PictureError("is a PNG whose graph is cut; fetch it again")
    return text


def _too_large() -> _PictureError:
    return _PictureError(f"is a PNG with a text over {_LARGEST // 1024**2} MB, which no graph is")


_READERS = {b"tEXt": _read_plain, b"zTXt": _read_compressed, b"iTXt": _read_international}
