"""Digests: equal for the same work, different for different work, and refused where they cannot be true."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph import File, Graph

NODES: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}, "_meta": {"title": "Input"}},
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "width": "$text(width, 512)", "height": 512}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "$text(prefix, cat)"}},
}
SAME: dict[str, Any] = {
    "3": {"inputs": {"filename_prefix": "$text(prefix, cat)", "images": ["2", 0]}, "class_type": "SaveImage"},
    "2": {"class_type": "ImageScale", "inputs": {"height": 512, "width": "$text(width, 512)", "image": ["1", 0]}},
    "1": {"class_type": "LoadImage", "inputs": {"image": "$file(image)"}, "_meta": {"title": "Picture"}},
}


def digest(nodes: Any = NODES, **params: object) -> str:
    """Return the digest of a graph with these values and a picture."""
    return Graph(nodes).bind({"image": b"png", **params}).digest()


def test_order_titles_and_defaults_do_not_count() -> None:
    """A graph exported again, with other titles and its nodes in another order, is the same content."""
    assert Graph(NODES).digest() == Graph(SAME).digest()
    assert digest() == digest(SAME) == digest(width=512, prefix="cat") == digest(SAME, width="512")
    assert digest(width=512.0) == digest()
    assert len(digest()) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"params": {"width": 513}},
        {"params": {"width": "0512"}},
        {"params": {"image": b"other"}},
        {"params": {"prefix": ""}},
        {"nodes": {**NODES, "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}},
        {"nodes": {**NODES, "2": {**NODES["2"], "class_type": "ImageCrop"}}},
        {"nodes": {**NODES, "2": {**NODES["2"], "inputs": {**NODES["2"]["inputs"], "height": 512.5}}}},
        {"nodes": {**NODES, "2": {**NODES["2"], "inputs": {**NODES["2"]["inputs"], "image": ["1", 1]}}}},
    ],
    ids=["value", "text", "file", "empty", "node", "class", "input", "link"],
)
def test_other_content_has_another_digest(other: dict[str, Any]) -> None:
    """Whatever can change the result changes the digest."""
    assert digest(other.get("nodes", NODES), **other.get("params", {})) != digest()


def test_a_text_is_no_file() -> None:
    """A text and a file never have one digest, whatever the text says."""
    text = Graph({"1": {"class_type": "SaveImage", "inputs": {"a": "$text(x)"}}})
    file = Graph({"1": {"class_type": "SaveImage", "inputs": {"a": "$file(x)"}}})
    assert text.bind({"x": "png"}).digest() != file.bind({"x": b"png"}).digest()


def test_files_count_by_content(tmp_path: Path) -> None:
    """A path, bytes, a function and a stream of the same bytes are the same, whatever their names; twice the same."""
    path = tmp_path / "a.png"
    path.write_bytes(b"png")
    stream = io.BytesIO(b"xpng")
    stream.seek(1)
    values = [path, File(str(path), filename="b.png"), b"png", File(lambda: path.open("rb")), File(stream)]
    assert {digest(image=value) for value in [*values, *values]} == {digest()}
    assert stream.tell() == 1
    path.write_bytes(b"other")
    assert digest(image=path) != digest()


class Once(io.RawIOBase):
    """A stream that can be read only once, like a pipe."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("it must not be read")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param(Once(), "can be read only once", id="pipe"),
        pytest.param(io.StringIO("text"), "open as text", id="text"),
        pytest.param(Path("no/such").open, "cannot be read: No such file", id="absent"),
        pytest.param(lambda: None, "cannot be read", id="nothing"),
        pytest.param(object(), "cannot be read", id="no-stream"),
    ],
)
def test_what_cannot_be_digested_is_refused(source: Any, text: str) -> None:
    """One clear error of ours, which names the field, and nothing of a stream is used up."""
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        digest(image=File(source))
    assert "'$image'" in str(caught.value)


def test_digests_outlive_the_process() -> None:
    """Marks and journals are read by later processes: the form is pinned, and no hash seed gets in."""
    assert Graph(NODES).digest() == "9f4fcfdcb91e9c6a53f05d9147b133a5f8400dfe0462bd6ac1621ca8ecaf7029"
    code = f"from comfycontrol_async.graph import Graph; print(Graph({NODES!r}).digest())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Graph(SAME).digest()
