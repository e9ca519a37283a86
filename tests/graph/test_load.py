"""Graphs in pictures: what ComfyUI saved is found, and a damaged or hostile file is one clear error."""

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import Graph

NODES = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "été"}, "is_changed": [float("nan")]}}
TEXT = json.dumps(NODES).encode()
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    """Write a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
PIXELS = chunk(b"IDAT", zlib.compress(b"\0\0\0\0"))
END = chunk(b"IEND", b"")
PLAIN = chunk(b"tEXt", b"prompt\0" + TEXT)
PACKED = zlib.compress(TEXT)


def picture(*texts: bytes, tail: Sequence[bytes] = (PIXELS, END)) -> bytes:
    """Write a PNG with these chunks before its pixels."""
    return b"".join([SIGNATURE, HEADER, *texts, *tail])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(picture(PLAIN), id="tEXt"),
        pytest.param(picture(chunk(b"tEXt", b"workflow\0{}"), PLAIN), id="second"),
        pytest.param(picture(tail=[PIXELS, PLAIN, END]), id="behind-pixels"),
        pytest.param(picture(chunk(b"zTXt", b"prompt\0\0" + PACKED)), id="zTXt"),
        pytest.param(picture(chunk(b"iTXt", b"prompt\0\0\0\0\0" + TEXT)), id="iTXt"),
        pytest.param(picture(chunk(b"iTXt", b"prompt\0\1\0en\0Graph\0" + PACKED)), id="iTXt-packed"),
        pytest.param(picture(chunk(b"iTXt", b"prompt\0\0\0\0\0" + json.dumps(NODES).encode())), id="iTXt-utf8"),
        pytest.param(
            picture(chunk(b"tEXt", b"prompt\0" + json.dumps(NODES, ensure_ascii=False).encode("latin-1"))), id="latin-1"
        ),
        pytest.param(
            picture(chunk(b"tEXt", b"prompt\0" + json.dumps(NODES, ensure_ascii=False).encode())), id="utf8-in-tEXt"
        ),
        pytest.param(picture(PLAIN, tail=[PIXELS[:5]]), id="cut-behind-the-graph"),
    ],
)
def test_a_picture_gives_its_graph(tmp_path: Path, data: bytes) -> None:
    """Whatever kind of text chunk it is in; the NaN that ComfyUI leaves there hinders nothing."""
    path = tmp_path / "ComfyUI_00001_.png"
    path.write_bytes(data)
    graph = Graph.load(path)
    assert graph.nodes["1"]["inputs"]["filename_prefix"] == "été"
    assert graph.nodes["1"]["is_changed"] == [None]
    assert graph == Graph.coerce(str(path)) == Graph(json.loads(graph.to_json()))
    assert graph.check() == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(picture(), "is a PNG without a graph", id="none"),
        pytest.param(picture(chunk(b"tEXt", b"parameters\0a cat")), "is a PNG without a graph", id="other-program"),
        pytest.param(picture(chunk(b"tEXt", b"workflow\0{}")), "with the UI format only", id="workflow-only"),
        pytest.param(picture(tail=[]), "ends before a graph was found", id="cut"),
        pytest.param(picture(tail=[PIXELS[:-6]]), "ends before a graph was found", id="cut-in-pixels"),
        pytest.param(picture(PLAIN[:-20], tail=[]), "is cut in its tEXt chunk", id="cut-in-text"),
        pytest.param(picture(PLAIN[:-1] + b"x"), "is damaged in its tEXt chunk", id="checksum"),
        pytest.param(picture(b"\xff\xff\xff\xfftEXtprompt\0{}"), "over 64 MB", id="lies-about-length"),
        pytest.param(picture(chunk(b"zTXt", b"prompt\0\0junk")), "cannot be unpacked", id="not-packed"),
        pytest.param(picture(chunk(b"zTXt", b"prompt\0\0" + PACKED[:-9])), "graph is cut", id="cut-packed"),
        pytest.param(picture(chunk(b"zTXt", b"prompt\0\7" + PACKED)), "unknown way", id="unknown-packing"),
        pytest.param(picture(chunk(b"iTXt", b"prompt\0\0")), "damaged in its iTXt", id="short-iTXt"),
        pytest.param(picture(chunk(b"iTXt", b"prompt\0\0\0\0\0\xff")), "is not UTF-8", id="iTXt-not-utf8"),
        pytest.param(picture(chunk(b"tEXt", b"prompt\0{not")), "is not JSON", id="not-json"),
        pytest.param(picture(chunk(b"tEXt", b"prompt\0[1]")), "holds a list", id="not-an-object"),
        pytest.param(b"\xff\xd8\xff\xe0 a JPEG", "nor a PNG made by ComfyUI", id="jpeg"),
        pytest.param(SIGNATURE, "ends before", id="signature-only"),
        pytest.param(b"\x89PNG", "is not UTF-8", id="cut-signature"),
        pytest.param(picture(*[chunk(b"junk", b"")] * 200_001), "too many parts", id="chunks"),
    ],
)
def test_a_picture_without_a_graph_says_why(tmp_path: Path, data: bytes, text: str) -> None:
    """One sentence that names the file, whatever it claims to hold."""
    refused(tmp_path / "cat.png", data, text)


@pytest.mark.parametrize(
    ("kind", "head"), [(b"zTXt", b"prompt\0\0"), (b"iTXt", b"prompt\0\1\0\0\0")], ids=["zTXt", "iTXt"]
)
def test_a_bomb_is_not_unpacked(tmp_path: Path, kind: bytes, head: bytes) -> None:
    """A text that unpacks to more than a graph may have is given up at that size."""
    bomb = zlib.compress(bytes(80 * 1024 * 1024), 1)
    refused(tmp_path / "cat.png", picture(chunk(kind, head + bomb)), "over 64 MB")


def refused(path: Path, data: bytes, text: str) -> None:
    """Assert that a picture of these bytes is refused with one sentence, which holds `text` and the file's name."""
    path.write_bytes(data)
    with pytest.raises(GraphError) as caught:
        Graph.load(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A video passed by mistake is not read into memory, and a large picture is skipped through."""
    path = tmp_path / "movie.json"
    with path.open("wb") as stream:
        stream.truncate(64 * 1024**2 + 1)
    with pytest.raises(GraphError, match="is larger than 64 MB"):
        Graph.load(path)
    with path.open("r+b") as stream:
        stream.write(SIGNATURE + HEADER + struct.pack(">I", 2**27) + b"IDAT")
        stream.seek(2**27 + 4, 1)
        stream.write(PLAIN)
    assert Graph.load(path).check() == []
