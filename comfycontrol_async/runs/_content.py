"""Decoding and checking of the bytes of an output: unpacked, complete, and not an HTML page.

A storage host sends an object that is stored with `Content-Encoding: gzip` packed, whatever the client accepts. A body
without a length ends when the connection ends, so a lost connection looks like a normal end; then the file format
itself decides whether the file is complete.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

from comfycontrol_async.errors import DownloadError, ResponseLostError

# How much of a packed body is unpacked at a time: a small body may hold a thousand times its size.
_STEP = 1 << 20
# Encodings that change nothing; some hosts store the last one by mistake, from the upload.
_PLAIN = frozenset({"", "identity", "aws-chunked"})
# Packed file formats: here hosts declare the file's own compression as its encoding.
_PACKED_FILES = frozenset({".gz", ".svgz", ".tgz"})

_HEAD = 512
_TAIL = 1024

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# Types of error messages that a host may send instead of a picture or video.
_MESSAGE_TYPES = frozenset({"application/xml", "text/xml", "application/json", "application/problem+json"})
# Kinds of pictures that say where they end.
_ENDING = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})
_MEDIA = ("image/", "video/", "audio/")


class Decoder(Protocol):
    """Unpacks a body as it comes."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Give what the next bytes unpack to, in pieces of at most 1 MiB, none before it is asked for."""
        ...

    def finish(self) -> None:
        """Check that the body ended where its encoding ends.

        Raises:
            ResponseLostError: it did not.
        """
        ...


class _Plain:
    def decode(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Gzip:
    """gzip (RFC 1952): one or more members, one behind the other."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._begun = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                data = data.lstrip(b"\0")  # padding behind a member
                if not data:
                    break
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            self._begun = True
            try:
                piece = self._member.decompress(data, _STEP)
            except zlib.error:
                raise DownloadError("it is stored as gzip, but cannot be unpacked") from None
            if piece:
                yield piece
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def finish(self) -> None:
        if self._begun and not self._member.eof:
            raise ResponseLostError("the answer was cut short: its gzip has no end")


def decoder_of(encoding: str, extension: str) -> Decoder:
    """Return what unpacks a body with this `Content-Encoding` for a file with this extension.

    Raises:
        DownloadError: it cannot be unpacked here.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    packed = [name for name in names if name not in _PLAIN]
    if not packed or (len(packed) == 1 and extension.lower() in _PACKED_FILES):
        return _Plain()
    if packed in (["gzip"], ["x-gzip"]):
        return _Gzip()
    raise DownloadError(f"it is stored with the encoding {encoding!r}, which cannot be unpacked here")


class _Boxes:
    """Walks the boxes that an MP4 or MOV is made of (ISO 14496-12, 4.2): a whole one ends where a box ends.

    For what is no MP4 this ends at the first box.
    """

    def __init__(self) -> None:
        self._next: int | None = 0  # offset of the next box; None once it is unknown
        self._head = b""
        self._kinds: set[bytes] = set()

    def see(self, data: bytes, position: int) -> None:
        """Take the bytes that stand at `position` of the file."""
        end = position + len(data)
        while self._next is not None and (start := self._next + len(self._head)) < end:
            # Eight bytes, or sixteen where a size of 1 says that the real one follows.
            wanted = 16 if self._head[:4] == b"\0\0\0\1" else 8
            self._head += data[start - position : start - position + wanted - len(self._head)]
            wanted = 16 if self._head[:4] == b"\0\0\0\1" else 8
            if len(self._head) == wanted:
                self._step(self._head)

    def _step(self, head: bytes) -> None:
        size = int.from_bytes(head[8:] or head[:4], "big")
        known = (self._next == 0 and head[4:8] == b"ftyp") or bool(self._kinds)
        self._kinds.add(head[4:8])
        self._head = b""
        self._next = self._next + size if known and self._next is not None and size >= len(head) else None

    def whole(self, size: int) -> bool:
        """Return whether a file of this size is whole, or ends with a box that says nothing of its end."""
        return self._next is None or (self._next == size and bool(self._kinds & {b"moov", b"moof"}))


class Inspection:
    """Looks at the unpacked bytes of one transfer as they pass: their beginning, their end and their number."""

    def __init__(self, content_type: str, media_type: str) -> None:
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._media_type = media_type
        self._head = bytearray()
        self._tail = b""
        self._size = 0
        self._boxes = _Boxes()
        self._held: list[bytes] = []

    def see(self, data: bytes) -> list[bytes]:
        """Take the next bytes, and return those that may be passed on: none before the beginning is known.

        Raises:
            DownloadError: this is a page, not the file.
        """
        self._boxes.see(data, self._size)
        self._size += len(data)
        self._tail = (self._tail + data)[-_TAIL:] if len(data) < _TAIL else data[-_TAIL:]
        if len(self._head) >= _HEAD:
            return [data]
        self._head += data[: _HEAD - len(self._head)]
        self._held.append(data)
        return self._release() if len(self._head) >= _HEAD else []

    def finish(self, *, has_length: bool) -> list[bytes]:
        """Return what was held back, at the end of the body.

        Args:
            has_length: whether HTTP gave the end of the body.

        Raises:
            DownloadError: this is a page, or nothing in place of a picture or film.
            ResponseLostError: the format says that the end is missing.
        """
        held = self._release() if self._held else []
        if not self._size and self._media_type.startswith(_MEDIA):
            raise DownloadError("the storage host sent nothing for it")
        if not has_length and not self._has_end():
            raise ResponseLostError("the answer was cut short: the file has no end")
        return held

    def _release(self) -> list[bytes]:
        if self._is_page():
            what = "page" if self._content_type not in _MESSAGE_TYPES else "message"
            raise DownloadError(f"the storage host sent a {what} ({self._content_type or 'HTML'}) in place of the file")
        held, self._held = self._held, []
        return held

    def _is_page(self) -> bool:
        """Return whether this is a page for people, or an error in the host's words, where a file was asked for."""
        if self._media_type in _PAGE_TYPES:
            return False
        start = bytes(self._head).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        if start.startswith(_PAGES):
            # A text may be written in HTML, and then nothing but the host's word says that it is a page.
            return self._content_type in _PAGE_TYPES or not self._media_type.startswith("text/")
        if self._content_type in _PAGE_TYPES:
            return start.startswith(b"<")
        media = self._media_type.startswith(_MEDIA) and self._media_type != "image/svg+xml"
        return media and self._content_type in _MESSAGE_TYPES and start.startswith((b"<", b"{", b"["))

    def _has_end(self) -> bool:
        """Return whether the file is complete by its format; True for a format without an end marker."""
        head, tail = bytes(self._head), self._tail
        if head.startswith(_PNG) or (self._size < len(_PNG) and _PNG.startswith(head)):
            return _PNG_END in tail
        if head.startswith(b"\xff\xd8\xff"):  # JPEG; this marker cannot stand inside of its data
            return b"\xff\xd9" in tail
        if head.startswith((b"GIF87a", b"GIF89a")):
            return tail.rstrip(b"\0").endswith(b";")
        if head.startswith(b"RIFF") and len(head) >= 8:  # WebP, WAV, AVI
            declared = int.from_bytes(head[4:8], "little")
            return declared in (0, 0xFFFFFFFF) or self._size >= declared + 8
        if head[4:8] == b"ftyp":
            return self._boxes.whole(self._size)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # ZIP: its directory stands at the end
            return b"PK\x05\x06" in tail
        # Named as a picture of these formats, but without its signature: no complete picture.
        return self._media_type not in _ENDING
