"""File: something to upload."""

import io
from pathlib import Path

import pytest

from comfycontrol_async import File


def read(file: File) -> bytes:
    """Open a file, read it and close it."""
    with file.open() as stream:
        return stream.read()


def test_reopens(tmp_path: Path) -> None:
    """Paths, bytes and functions give their content each time that they are opened."""
    path = tmp_path / "a.png"
    path.write_bytes(b"png")
    for file in (File(path), File(str(path)), File(b"png"), File(lambda: path.open("rb"))):
        assert [read(file), read(file)] == [b"png", b"png"]


def test_open_gives_a_stream_as_it_is() -> None:
    """A stream is not copied or rewound: it is read from where it stands."""
    stream = io.BytesIO(b"abc")
    stream.seek(1)
    assert File(stream).open() is stream
    assert stream.tell() == 1


def test_open_a_missing_file(tmp_path: Path) -> None:
    """A path that is not there is the caller's to report."""
    with pytest.raises(FileNotFoundError):
        File(tmp_path / "absent").open()


@pytest.mark.parametrize(
    ("file", "path"),
    [
        pytest.param(File("in/a.png"), Path("in/a.png"), id="str"),
        pytest.param(File(Path("in/a.png")), Path("in/a.png"), id="path"),
        pytest.param(File(b"png", filename="a.png"), None, id="bytes"),
        pytest.param(File(io.BytesIO()), None, id="stream"),
        pytest.param(File(io.BytesIO), None, id="function"),
    ],
)
def test_path(file: File, path: Path | None) -> None:
    """Only what is read from a path has one."""
    assert file.path == path


def test_repr_shows_no_content() -> None:
    """Bytes are shown by their number, a path by itself."""
    assert repr(File(b"secret", filename="a.png")) == "File(<6 bytes>, filename='a.png')"
    assert repr(File("in/a.png")) == "File('in/a.png', filename=None)"


def test_frozen() -> None:
    """A file never changes once made, so that one can be used for many workflows."""
    with pytest.raises(AttributeError):
        File(b"png").filename = "other.png"  # type: ignore[misc]
