"""PNG files: writing a plain one with text chunks, and reading the text chunks of any."""

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OVERHEAD = 12  # length, type and checksum of a chunk
_PADDING = b"pdPd"  # ancillary, private, safe to copy


def write_png(width: int, height: int, color: tuple[int, int, int], text: dict[str, str]) -> bytes:
    """Return a PNG of one colour that carries `text`; a text outside Latin-1 goes into an iTXt chunk."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\x00" + bytes(color) * width) * height
    chunks = [_chunk(b"IHDR", header)]
    chunks += [_text_chunk(key, value) for key, value in text.items()]
    chunks += [_chunk(b"IDAT", zlib.compress(rows, 1)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def pad(data: bytes, size: int) -> bytes:
    """Return `data` grown to `size` bytes, a PNG by a chunk that viewers skip; no byte of it is constant filler."""
    png = data.startswith(_SIGNATURE)
    room = size - len(data) - (_OVERHEAD if png else 0)
    if room < 0:
        return data
    pattern = bytes(range(251))  # a prime length, so that a wrong offset of a resumed download shows
    filler = (pattern * (room // len(pattern) + 1))[:room]
    if not png:
        return data + filler
    end = len(data) - _OVERHEAD
    return data[:end] + _chunk(_PADDING, filler) + data[end:]


def read_png_text(data: bytes) -> dict[str, str]:
    """Return the text chunks of a PNG by keyword; ComfyUI keeps the graph it ran under `prompt`.

    Raises:
        ValueError: `data` is no PNG, or is cut or damaged.
    """
    if not data.startswith(_SIGNATURE):
        raise ValueError("not a PNG file")
    found: dict[str, str] = {}
    at = len(_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        kind, body = _read_chunk(data, at)
        at += _OVERHEAD + len(body)
        if kind in _TEXT_READERS:
            keyword, _, rest = body.partition(b"\0")
            found[keyword.decode("latin-1")] = _TEXT_READERS[kind](rest)
    return found


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(kind))
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def _text_chunk(key: str, value: str) -> bytes:
    keyword = key.encode("latin-1") + b"\0"
    try:
        return _chunk(b"tEXt", keyword + value.encode("latin-1"))
    except UnicodeEncodeError:
        return _chunk(b"iTXt", keyword + b"\0\0\0\0" + value.encode())


def _read_chunk(data: bytes, at: int) -> tuple[bytes, bytes]:
    start = at + 8
    if len(data) < start:
        raise ValueError("the PNG file is cut short")
    (length,) = struct.unpack_from(">I", data, at)
    kind, body, checksum = data[at + 4 : start], data[start : start + length], data[start + length : start + length + 4]
    if len(checksum) < 4:
        raise ValueError("the PNG file is cut short")
    if checksum != struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))):
        raise ValueError(f"the PNG file is damaged in its {kind.decode('latin-1')} chunk")
    return kind, body


def _read_plain(rest: bytes) -> str:
    return rest.decode("latin-1")


def _read_compressed(rest: bytes) -> str:
    return zlib.decompress(rest[1:]).decode("latin-1")


def _read_international(rest: bytes) -> str:
    compressed = rest[:1] == b"\1"
    value = rest[2:].split(b"\0", 2)[2]
    return (zlib.decompress(value) if compressed else value).decode()


_TEXT_READERS = {b"tEXt": _read_plain, b"zTXt": _read_compressed, b"iTXt": _read_international}
