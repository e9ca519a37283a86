"""PNG files with text chunks."""

import struct
import zlib

import pytest

from comfycontrol_async.testing import read_png_text
from comfycontrol_async.testing._png import pad, write_png

TEXTS = {"prompt": '{"1": "plain"}', "latin": "caf\u00e9", "wide": "\u732b \U0001f408", "empty": ""}


def test_round_trip() -> None:
    """What is written as text is read back, whatever its characters."""
    data = write_png(3, 2, (255, 0, 128), TEXTS)
    assert read_png_text(data) == TEXTS
    assert b"tEXtprompt\0" in data
    assert b"iTXtwide\0" in data


def test_image_is_a_real_one() -> None:
    """Header and pixel rows are what the PNG format asks for."""
    data = write_png(3, 2, (255, 0, 128), {})
    assert struct.unpack(">IIBBBBB", data[16:29]) == (3, 2, 8, 2, 0, 0, 0)
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    assert zlib.decompress(data[at + 4 : at + 4 + length]) == (b"\0" + b"\xff\x00\x80" * 3) * 2


@pytest.mark.parametrize("extra", [12, 13, 5000])
def test_padding(extra: int) -> None:
    """Padding gives the exact size and leaves the texts readable."""
    data = write_png(3, 2, (0, 0, 0), TEXTS)
    padded = pad(data, len(data) + extra)
    assert len(padded) == len(data) + extra
    assert read_png_text(padded) == TEXTS


def test_no_room_for_padding() -> None:
    """A size that leaves no room for a chunk changes nothing."""
    data = write_png(3, 2, (0, 0, 0), {})
    assert pad(data, len(data) + 11) is data


def test_compressed_texts() -> None:
    """The compressed kinds of text chunks are read too."""
    bodies = {
        b"zTXt": b"z\0\0" + zlib.compress("caf\u00e9".encode("latin-1")),
        b"iTXt": b"i\0\1\0en\0word\0" + zlib.compress("\u732b".encode()),
    }
    data = write_png(1, 1, (0, 0, 0), {})
    for kind, body in bodies.items():
        chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        data = data[:33] + chunk + data[33:]
    assert read_png_text(data) == {"z": "caf\u00e9", "i": "\u732b"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda data: b"GIF89a", "not a PNG", id="other-format"),
        pytest.param(lambda data: data[:40], "cut short", id="cut-in-chunk"),
        pytest.param(lambda data: data[:-12], "cut short", id="no-end"),
        pytest.param(lambda data: data.replace(b"plain", b"PLAIN"), "damaged in its tEXt", id="changed"),
    ],
)
def test_damage(damage: object, message: str) -> None:
    """A file that is no PNG, or not a whole one, is refused."""
    assert callable(damage)
    with pytest.raises(ValueError, match=message):
        read_png_text(damage(write_png(3, 2, (0, 0, 0), TEXTS)))
