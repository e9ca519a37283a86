"""Server-sent events from bytes, in any chunking (HTML spec, 9.2.6: interpreting an event stream).

`data` lines of one event are joined by newlines, comments and other fields are passed over, lines end with LF, CR or
CRLF, and a byte order mark at the beginning is dropped. An event that the stream breaks off in is not given.
"""

# A single event that is larger than this is no workflow update: refuse to hoard it.
MAX_EVENT = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Collects chunks and gives the data of every event that is complete."""

    __slots__ = ("_after_cr", "_at_start", "_data", "_line", "_size")

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._size = 0
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes of the stream and return the data of the events that end in them.

        Raises:
            ValueError: an event is larger than 8 MiB, or is not UTF-8.
        """
        if not chunk:
            return []
        if self._after_cr:
            # A CR ended the line already; an LF after it belongs to it.
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, self._line = (self._line + chunk).split(b"\n")
        events: list[str] = []
        for line in lines:
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)
            self._take(line, events)
        self._bound(len(self._line))
        return events

    def _take(self, line: bytes, events: list[str]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data).decode())
                self._data.clear()
                self._size = 0
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            self._bound(0)

    def _bound(self, unread: int) -> None:
        """Refuse an event that is too large already, with `unread` bytes of a line that has not ended."""
        if self._size + unread > MAX_EVENT:
            raise ValueError("an event of the stream is larger than 8 MiB")
