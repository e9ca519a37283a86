"""Assembly: the bytes received of one stored object, and whether a response continues them; no I/O.

Two responses are combined only when they have the same strong ETag (RFC 9110, 15.3.7.3). Without one the transfer
starts over, and so does the consumer. A different ETag or length is an error: the file changed during the transfer.

Example: 60 bytes of 100 came with the ETag "a". The host is asked for what follows byte 60 if that is still its ETag
(If-Range). 206 with `bytes 60-99/100` and "a" continues; 200 with "a" does too, its first 60 bytes aside; 200 with "b"
is an error; 206 with `bytes 0-39/100` is not what was asked for: all of it is asked for again.
"""

import re
from collections.abc import Iterator, Mapping

from comfycontrol_async.errors import DownloadError, ResponseLostError
from comfycontrol_async.runs._content import Decoder, Inspection, decoder_of

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)")
_NUMBER = re.compile(r"\d{1,18}")
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')


class Assembly:
    """The bytes of one file, from one response or several.

    Args:
        extension: the file's, such as ".png".
        media_type: what the file is expected to be.
    """

    def __init__(self, extension: str, media_type: str) -> None:
        self._extension = extension
        self._media_type = media_type
        # How many bytes of the object are here, packed as they are stored; how many it has, where that is known.
        self.received = 0
        self._size: int | None = None
        self._etag = ""
        self._skip = 0
        self._given = False
        self._decoder: Decoder = decoder_of("", extension)
        self._inspection = Inspection("", media_type)

    @property
    def wanted(self) -> tuple[int, str]:
        """What to ask for: from which byte on, of the object with which strong ETag; (0, "") is all of it."""
        return (self.received, self._etag) if self._etag else (0, "")

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Take the headers of a 200, 206 or 416; return whether the file begins again.

        Raises:
            DownloadError: it changed, or cannot be unpacked.
            ResponseLostError: it is not what was asked for; ask again.
        """
        etag = headers.get("ETag", "")
        etag = etag if _STRONG_ETAG.fullmatch(etag) else ""
        asked = self.wanted[0]
        start, total = _content_range(headers)
        if status == 200:
            length = headers.get("Content-Length", "")
            return self._begin_whole(etag, int(length) if _NUMBER.fullmatch(length) else None, headers)
        if status == 206 and not asked and start == 0:
            return self._begin_whole(etag, total, headers)  # a first part that was not asked for
        if asked and (total not in (None, self._size or total) or (etag or self._etag) != self._etag):
            raise DownloadError("it changed while it was fetched")
        if status == 416 and asked and total == asked:
            self._size = total
        elif status == 206 and asked and start == asked and etag:
            self._size = total or self._size
        else:
            self._forget()
            raise ResponseLostError("the storage host does not take up the transfer where it broke off")
        self._skip = 0
        return False

    def _begin_whole(self, etag: str, size: int | None, headers: Mapping[str, str]) -> bool:
        if self.received:
            other_etag = etag and self._etag and etag != self._etag
            other_size = size is not None and self._size is not None and size != self._size
            if other_etag or other_size:
                raise DownloadError("it changed while it was fetched")
        if self.received and etag and etag == self._etag:
            self._skip = self.received  # the host knows no ranges
            return False
        again = self._given
        self._forget()
        self._given = False
        self._etag, self._size = etag, size
        self._decoder = decoder_of(headers.get("Content-Encoding", ""), self._extension)
        self._inspection = Inspection(headers.get("Content-Type", ""), self._media_type)
        return again

    def _forget(self) -> None:
        self.received, self._size, self._etag, self._skip = 0, None, "", 0

    def take(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the answer, and give what they hold of the file, a piece at a time.

        Raises:
            DownloadError: they are a page instead of the file, or cannot be unpacked.
        """
        if self._skip:
            data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        self.received += len(data)
        for piece in self._decoder.decode(data) if data else ():
            for seen in self._inspection.see(piece):
                self._given = True
                yield seen

    def finish(self, *, has_length: bool) -> list[bytes]:
        """Return the last of the file, at the end of an answer.

        Args:
            has_length: whether HTTP gave the end of the body.

        Raises:
            ResponseLostError: the end is missing.
            DownloadError: this is not the file.
        """
        if self._size is not None and self.received != self._size:
            text = f"{self.received} bytes came of {self._size}"
            if self.received > self._size:
                self._forget()
            raise ResponseLostError(text)
        self._decoder.finish()
        return self._inspection.finish(has_length=has_length or self._size is not None)


def _content_range(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the offset of a part and the size of the whole, each None if unknown."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None:
        return None, None
    return int(found[1]) if found[1] else None, int(found[2]) if found[2] != "*" else None
