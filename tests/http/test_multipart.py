"""Uploads: checked before anything is sent, read off the loop, and whole in every attempt."""

import asyncio
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pytest

from comfycontrol_async import File, InvalidArgumentError
from comfycontrol_async._http._multipart import MAX_UPLOAD, Form, describe, prepare
from support.waiting import eventually

SECRET = "hunter2"


class Source:
    """A function that opens a stream, and counts."""

    def __init__(self, content: bytes = b"content") -> None:
        self.content = content
        self.opened: list[BinaryIO] = []
        self.threads: set[int] = set()

    def __call__(self) -> BinaryIO:
        """Open it once more."""
        self.threads.add(threading.get_ident())
        self.opened.append(io.BytesIO(self.content))
        return self.opened[-1]


class Once(io.BytesIO):
    """A stream that does not seek and counts how often it is read to its end."""

    ends = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read on."""
        content = super().read(size)
        self.ends += not content
        return content

    def seekable(self) -> bool:
        """Say no."""
        return False

    def seek(self, offset: int, whence: int = 0) -> int:
        """Refuse."""
        raise io.UnsupportedOperation("not seekable")


class Dribble(io.RawIOBase):
    """A raw stream that gives three bytes at a time, whatever it is asked for."""

    def __init__(self, content: bytes) -> None:
        self._rest = content

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Give a little."""
        piece, self._rest = self._rest[:3], self._rest[3:]
        buffer[: len(piece)] = piece
        return len(piece)


async def sent(form: Form) -> list[tuple[Any, ...]]:
    """Open a form as an attempt does, and read its parts."""
    async with form.open() as parts:
        return [part if len(part) == 2 else (part[0], part[1].read(), *part[2:]) for part in parts]


async def test_texts_and_files_in_order(tmp_path: Path) -> None:
    """A form has its fields in order, with the signs of their names as they are."""
    path = tmp_path / "input.png"
    path.write_bytes(b"png")
    form = prepare(
        [
            ("name", "ünï"),
            ("$image", File(path)),
            ("#sampler", "euler"),
            ("$mask", File(b"mask", filename="m.webp", content_type="image/webp")),
        ]
    )
    assert await sent(form) == [
        ("name", "ünï"),
        ("$image", b"png", "input.png", "image/png"),
        ("#sampler", "euler"),
        ("$mask", b"mask", "m.webp", "image/webp"),
    ]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path, id="path"),
        pytest.param(str, id="str"),
        pytest.param(lambda path: path.read_bytes(), id="bytes"),
        pytest.param(lambda path: lambda: path.open("rb"), id="function"),
        pytest.param(lambda path: io.BytesIO(path.read_bytes()), id="stream"),
        pytest.param(lambda path: Once(path.read_bytes()), id="stream-that-cannot-be-read-twice"),
        pytest.param(lambda path: io.BufferedReader(Dribble(path.read_bytes())), id="pipe"),
        pytest.param(lambda path: Dribble(path.read_bytes()), id="raw-stream"),
    ],
)
async def test_every_attempt_sends_the_whole(make: Callable[[Path], Any], tmp_path: Path) -> None:
    """Whatever the source is, the first attempt and the third send the same bytes."""
    path = tmp_path / "input.png"
    path.write_bytes(bytes(range(256)))
    form = prepare([("$image", File(make(path), filename="input.png"))])
    expected = [("$image", bytes(range(256)), "input.png", "image/png")]
    assert [await sent(form) for _ in range(3)] == [expected] * 3


async def test_a_stream_is_read_once_from_where_it_stands() -> None:
    """A stream is read when the form is made, to its end, and then never again."""
    stream = Once(b"headercontent")
    stream.read(6)
    form = prepare([("$image", File(stream))])
    assert stream.ends == 1
    assert [(await sent(form))[0][1] for _ in range(2)] == [b"content"] * 2
    assert stream.ends == 1
    assert not stream.closed


async def test_a_function_is_called_for_every_attempt() -> None:
    """A function opens a stream of its own for each attempt, in a thread, and each is closed."""
    source = Source()
    form = prepare([("$image", File(source))])
    before = len(source.opened)
    source.threads.clear()
    for attempt in (1, 2):
        assert (await sent(form))[0][1] == b"content"
        assert len(source.opened) == before + attempt
    assert all(stream.closed for stream in source.opened)
    assert threading.get_ident() not in source.threads


async def test_files_are_closed_when_an_attempt_fails() -> None:
    """Files do not stay open when sending them fails."""
    source = Source()
    form = prepare([("$image", File(source)), ("$mask", File(source))])
    with pytest.raises(RuntimeError, match="cut off"):
        async with form.open():
            raise RuntimeError("cut off")
    assert all(stream.closed for stream in source.opened)


async def test_files_are_closed_when_one_cannot_be_opened(tmp_path: Path) -> None:
    """When a file has gone since the check, the attempt fails with its name, and the others are closed."""
    source, path = Source(), tmp_path / "input.png"
    path.touch()
    form = prepare([("$mask", File(source)), ("$image", File(path))])
    path.unlink()
    with pytest.raises(InvalidArgumentError, match=r"input\.png' for '\$image' cannot be read: No such file"):
        await sent(form)
    assert all(stream.closed for stream in source.opened)


async def test_cancelled_while_a_file_is_opened() -> None:
    """A file that a thread opens after its attempt was cancelled is closed too."""
    source, entered, go_on = Source(), threading.Event(), threading.Event()
    slow = False

    def slowly() -> BinaryIO:
        if slow:
            entered.set()
            go_on.wait(5.0)
        return source()

    form = prepare([("$image", File(slowly))])
    slow = True
    task = asyncio.ensure_future(sent(form))
    await asyncio.to_thread(entered.wait, 5.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await eventually(lambda: len(source.opened) == 2 and source.opened[-1].closed)


# Names and types


@pytest.mark.parametrize(
    ("name", "file", "described"),
    [
        pytest.param("$image", File(Path("in/a.png")), ("a.png", "image/png"), id="of-the-path"),
        pytest.param("$image", File("in/a.b.JPG"), ("a.b.JPG", "image/jpeg"), id="upper-case"),
        pytest.param("$image", File(b""), ("image", "application/octet-stream"), id="of-the-field"),
        pytest.param("$image", File(b"", filename="ü ñ.png"), ("ü ñ.png", "image/png"), id="given"),
        pytest.param("$image", File("a.png", filename="b.jpg"), ("b.jpg", "image/jpeg"), id="given-before-path"),
        pytest.param("$image", File("a.png", content_type="x/y"), ("a.png", "x/y"), id="given-type"),
        pytest.param("$image", File("a.nonsense"), ("a.nonsense", "application/octet-stream"), id="unknown-type"),
        pytest.param("$image", File("noextension"), ("noextension", "application/octet-stream"), id="no-extension"),
    ],
)
def test_describe(name: str, file: File, described: tuple[str, str]) -> None:
    """The server sees the name that was given, or else the path's own, and a type to go with it."""
    assert describe(name, file) == described


async def test_a_stream_has_its_files_name(tmp_path: Path) -> None:
    """An open file is sent under its own name, a stream without one under the field's."""
    path = tmp_path / "input.png"
    path.write_bytes(b"png")
    with path.open("rb") as stream, os.fdopen(os.open(path, os.O_RDONLY), "rb") as numbered:
        form = prepare([("$image", File(stream)), ("$other", File(io.BytesIO(b"x"))), ("$third", File(numbered))])
    names = [part[2] for part in await sent(form)]
    assert names[:2] == ["input.png", "other"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(File(b"", filename='a"\r\nX-Header: b'), "file name", id="newline-in-a-name"),
        pytest.param(File(b"", filename="a\x00b"), "file name", id="nul-in-a-name"),
        pytest.param(File(b"", filename=5), "file name", id="number-for-a-name"),  # type: ignore[arg-type]
        pytest.param(File(b"", content_type="image/png\r\nX: y"), "media type", id="newline-in-a-type"),
        pytest.param(File(b"", content_type=5), "media type", id="number-for-a-type"),  # type: ignore[arg-type]
    ],
)
def test_labels_refused(file: File, message: str) -> None:
    """A name or type that cannot stand in a part's header is refused, before aiohttp does in its own way."""
    with pytest.raises(InvalidArgumentError, match=f"the {message} .* for .* must be printable text"):
        prepare([("$image", file)])


def test_path_that_cannot_be_a_name(tmp_path: Path) -> None:
    """A path with a newline in its name needs another name to be sent under."""
    path = tmp_path / "two\nlines.png"
    path.write_bytes(b"png")
    with pytest.raises(InvalidArgumentError, match="filename="):
        prepare([("$image", File(path))])
    prepare([("$image", File(path, filename="lines.png"))])


# What is refused


def broken() -> BinaryIO:
    """Fail to open."""
    raise PermissionError(13, "Permission denied")


def as_text() -> TextIO:
    """Open a file in the wrong mode."""
    return Path(__file__).open(encoding="utf-8")


def closed() -> BinaryIO:
    """Open a stream that is closed already."""
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("file", "message"),
    [
        pytest.param(File("absent/input.png"), r"the file 'absent/input\.png' .*: No such file", id="missing"),
        pytest.param(File(Path(__file__).parent), "the file .* cannot be read: Is a directory", id="directory"),
        pytest.param(File("nul\x00.png"), "cannot be read: embedded null byte", id="no-path"),
        pytest.param(File(broken), "the source .*: Permission denied", id="function-fails"),
        pytest.param(File(closed), "the source .*: I/O operation on closed file", id="function-gives-a-closed-one"),
        pytest.param(File(lambda: b"bytes"), "the source .* cannot be read", id="function-gives-bytes"),  # type: ignore[arg-type, return-value]
        pytest.param(File(lambda: Once(b"x")), "the source .*: not seekable", id="function-gives-a-pipe"),
        pytest.param(File(closed()), "the source .*: I/O operation on closed file", id="closed-stream"),
        pytest.param(File(None), "the source .* cannot be read", id="none"),  # type: ignore[arg-type]
        pytest.param(File(bytearray(b"x")), "the source .* cannot be read", id="bytearray"),  # type: ignore[arg-type]
        pytest.param(File(io.StringIO("x")), r"text stream: open it in binary mode \('rb'\)", id="text-stream"),  # type: ignore[arg-type]
        pytest.param(File(io.StringIO("")), "text stream", id="empty-text-stream"),  # type: ignore[arg-type]
        pytest.param(File(lambda: io.StringIO("x")), "text stream", id="function-gives-text"),  # type: ignore[arg-type, return-value]
        pytest.param(File(as_text), "text stream", id="function-opens-as-text"),  # type: ignore[arg-type]
    ],
)
def test_unreadable(file: File, message: str) -> None:
    """What cannot be read is refused when the form is made, with the field and the reason."""
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        prepare([("name", SECRET), ("$image", file)])
    assert "'$image'" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_half_a_surrogate_pair() -> None:
    """A text that UTF-8 cannot carry is refused without being shown."""
    with pytest.raises(InvalidArgumentError, match="the text for 'name' holds half a surrogate pair") as caught:
        prepare([("name", f"{SECRET}\ud800")])
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def sparse(path: Path, size: int) -> Path:
    """Make a file of a size that takes no room."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


@pytest.mark.parametrize("over", [False, True], ids=["at-the-limit", "over-the-limit"])
def test_upload_limit(tmp_path: Path, over: bool) -> None:
    """50 MB for the whole request, with room for what stands between the parts, are sent and one byte more is not."""
    room = MAX_UPLOAD - 2 * 300 - len("$a$b")
    half = sparse(tmp_path / "half.bin", room // 2)
    rest = sparse(tmp_path / "rest.bin", room - room // 2 + over)
    fields = [("$a", File(half)), ("$b", File(rest))]
    if not over:
        assert prepare(fields).fields == fields
        return
    with pytest.raises(InvalidArgumentError, match=r"the upload has 50,000,001 bytes, .* at most 50,000,000 \(50 MB\)"):
        prepare(fields)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: "ü" * (MAX_UPLOAD // 2), id="text-counts-in-bytes"),
        pytest.param(lambda: File(b"x" * MAX_UPLOAD), id="bytes"),
        pytest.param(lambda: File(io.BytesIO(b"x" * (MAX_UPLOAD + 100))), id="stream"),
    ],
)
def test_upload_limit_of_any_source(make: Callable[[], str | File]) -> None:
    """Whatever it comes from, more than 50 MB is refused."""
    with pytest.raises(InvalidArgumentError, match="at most 50,000,000"):
        prepare([("$a", make())])


def test_endless_stream() -> None:
    """A stream that never ends is not read further than the limit."""

    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            return bytes(size)

    stream = Endless()
    with pytest.raises(InvalidArgumentError, match="at most 50,000,000"):
        prepare([("$a", File(stream))])  # type: ignore[arg-type] # a raw stream will do
    assert stream.given <= MAX_UPLOAD + 1


async def test_empty_form() -> None:
    """A form without fields is one: a rerun with nothing changed."""
    assert await sent(prepare([])) == []
