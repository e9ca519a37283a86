"""JournalLog: the write-ahead log beside a journal, and whether it is as SQLite wrote it; blocking.

SQLite reads a log up to the first frame whose checksum is wrong, and takes what follows for a write that a power cut
broke off. That is right for the last transaction, which no caller was told to be durable. But the log is synced after
each transaction: where others follow, the frame was damaged later, and rows that were acted on would be lost.

The file (sqlite.org/fileformat2.html, section 4): a header of 32 bytes, then frames of 24 bytes and one page each. Both
end in a running checksum, and each frame repeats the header's salts; those with other salts are from before the log was
last begun again. A frame that ends a transaction says how many pages the database has.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEADER, _FRAME = 32, 24
_MAGIC = {b"\x37\x7f\x06\x82": "<", b"\x37\x7f\x06\x83": ">"}
# A log is moved into the file every few rows: one that is longer was never ours.
_LONGEST = 64 * 1024 * 1024


class _Frame(NamedTuple):
    sound: bool
    ends: bool


def has_log(path: Path) -> bool:
    """Tell whether a log with content lies beside a journal, whole but for a last transaction that was cut."""
    try:
        with open(f"{path}-wal", "rb") as log:
            data = log.read(_LONGEST)
    except OSError:
        return False
    order = _MAGIC.get(data[:4])
    if order is None or len(data) <= _HEADER or _sum(order, data[:24], (0, 0)) != _pair(">", data, 24):
        return False
    frames = list(_frames(order, data))
    bad = next((number for number, frame in enumerate(frames) if not frame.sound), len(frames))
    # The transaction that the bad frame belongs to may have been cut; none may follow it.
    return sum(frame.ends for frame in frames[bad:]) <= 1


def _frames(order: str, data: bytes) -> Iterator[_Frame]:
    """Yield the frames with the header's salts; after the first that is not sound none is."""
    size = struct.unpack_from(">I", data, 8)[0] + _FRAME
    salts = data[16:24]
    running, sound = _pair(">", data, 24), True
    for start in range(_HEADER, len(data) - _FRAME, max(size, _FRAME)):
        frame = data[start : start + size]
        if sound:
            running = _sum(order, frame[:8] + frame[_FRAME:], running)
            sound = len(frame) == size and frame[8:16] == salts and running == _pair(">", frame, 16)
        if sound or frame[8:16] == salts:
            yield _Frame(sound, frame[4:8] != bytes(4))


def _pair(order: str, data: bytes, start: int) -> tuple[int, int]:
    first, second = struct.unpack_from(f"{order}II", data, start)
    return first, second


def _sum(order: str, data: bytes, running: tuple[int, int]) -> tuple[int, int]:
    """Return the checksum of SQLite's logs after more data."""
    one, two = running
    words = iter(struct.unpack(f"{order}{len(data) // 8 * 2}I", data[: len(data) // 8 * 8]))
    for first, second in zip(words, words, strict=True):
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two
