"""The parser of server-sent events: the same events, however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async._http import _sse
from comfycontrol_async._http._sse import EventParser

# Everything at once: a byte order mark, comments, other fields, data of several lines and of none, text beyond ASCII,
# and at the end an event that is broken off.
SAMPLE = (
    b"\xef\xbb\xbfdata: first\n\n"
    b": a comment\n\n"
    b"event: update\nid: 7\nretry: 1000\ndata:no blank\ndata:  two blanks\n\n"
    b"\n\n"
    b"data\n\n"
    b"data: a: colon\nwithout a field\n\n"
    b'data: {"text": "\xc3\xbcn\xc3\xaf \xf0\x9f\x98\x80"}\n\n'
    b"data: \xef\xbb\xbfmark inside\n\n"
    b"data: broken off\n"
)
EVENTS = [
    "first",
    "no blank\n two blanks",
    "",
    "a: colon",
    '{"text": "ünï \U0001f600"}',
    "\ufeffmark inside",
]
ENDINGS = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}

ending = pytest.mark.parametrize("end", ENDINGS.values(), ids=ENDINGS)


def parse(*chunks: bytes) -> list[str]:
    """Parse a stream that arrives in these pieces."""
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@ending
def test_whole(end: bytes) -> None:
    """A stream in one piece gives its events, whichever way its lines end."""
    assert parse(SAMPLE.replace(b"\n", end)) == EVENTS


@ending
def test_byte_by_byte(end: bytes) -> None:
    """A stream in single bytes gives the same events."""
    stream = SAMPLE.replace(b"\n", end)
    assert parse(*(stream[index : index + 1] for index in range(len(stream)))) == EVENTS


@ending
def test_every_cut(end: bytes) -> None:
    """A stream that is cut anywhere gives the same events, with nothing arriving in between too."""
    stream = SAMPLE.replace(b"\n", end)
    for cut in range(len(stream) + 1):
        assert parse(stream[:cut], b"", stream[cut:]) == EVENTS, cut


@ending
@pytest.mark.parametrize("size", [2, 3, 5, 7, 16, 64])
def test_chunks_of_one_size(end: bytes, size: int) -> None:
    """A stream in chunks of any size gives the same events."""
    stream = SAMPLE.replace(b"\n", end)
    assert parse(*(stream[index : index + size] for index in range(0, len(stream), size))) == EVENTS


def test_events_are_given_when_they_are_complete() -> None:
    """An event is given with the bytes that end it, not later."""
    parser = EventParser()
    assert parser.feed(b"data: a\n") == []
    assert parser.feed(b"\ndata: b\r\n\r") == ["a", "b"]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: c\r\r") == ["c"]


def test_only_a_line_feed_right_behind_a_return_belongs_to_it() -> None:
    """A return that ended a chunk swallows the line feed that comes next, and none that comes later."""
    assert parse(b"data: a\r", b"data: b", b"\n\n") == ["a\nb"]
    assert parse(b"data: a\r", b"\n", b"\ndata: b\n\n") == ["a", "b"]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"", [], id="nothing"),
        pytest.param(b"\n\n\n", [], id="blank-lines"),
        pytest.param(b"data: a\n", [], id="not-ended"),
        pytest.param(b"data: a", [], id="line-not-ended"),
        pytest.param(b":\n\n", [], id="comment-alone"),
        pytest.param(b"event: ping\n\n", [], id="no-data"),
        pytest.param(b"data:\ndata:\n\n", ["\n"], id="empty-lines"),
        pytest.param(b"data: a\n: keep-alive\ndata: b\n\n", ["a\nb"], id="comment-inside"),
        pytest.param(b"Data: a\nDATA: b\n data: c\ndatax: d\n\n", [], id="other-fields"),
        pytest.param(b"data: a\r\r\rdata: b\n\r", ["a", "b"], id="mixed-ends"),
        pytest.param(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", ["b"], id="only-one-mark-is-dropped"),
        pytest.param(b"\n\xef\xbb\xbfdata: a\n\n", [], id="a-mark-that-is-not-first"),
    ],
)
def test_details(stream: bytes, events: list[str]) -> None:
    """The rules of the HTML specification, one by one."""
    assert parse(stream) == events


LINES = st.lists(
    st.sampled_from([b"data: a", b"data:b", b"data", b"", b"", b": c", b"id: 1", b"\xef\xbb\xbf", b"data: \xc3\xbc"]),
    max_size=12,
)


@given(lines=LINES, ends=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=12, max_size=12), data=st.data())
def test_any_split_gives_the_same_events(lines: list[bytes], ends: list[bytes], data: st.DataObject) -> None:
    """However lines end and bytes are cut, the events are those of the whole."""
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    chunks = [stream[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert parse(*chunks) == parse(stream)


def test_not_utf_8() -> None:
    """An event that is no UTF-8 is refused, and the bytes are not guessed at."""
    with pytest.raises(ValueError, match="utf-8"):
        parse(b"data: \xff\n\n")


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make the limit small: what is tested is where it is drawn."""
    monkeypatch.setattr(_sse, "MAX_EVENT", 1000)
    return 1000


@pytest.mark.parametrize("size", [1, 7, 100, 5000], ids="chunks-of-{}".format)
@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: " + b"x" * 1500, id="line-without-end"),
        pytest.param(b"data: " + b"x" * 1500 + b"\n\n", id="line"),
        pytest.param(b"data: xxxxxxxxx\n" * 150 + b"\n", id="lines"),
        pytest.param(b"data:\n" * 1500, id="empty-lines"),
        pytest.param(b": " + b"x" * 1500, id="comment-without-end"),
    ],
)
def test_too_large(limit: int, stream: bytes, size: int) -> None:
    """An event that is larger than the limit is refused however it comes, and not hoarded."""
    with pytest.raises(ValueError, match="larger than 8 MiB"):
        parse(*(stream[index : index + size] for index in range(0, len(stream), size)))


@pytest.mark.parametrize("size", [1, 900, 1700, 5000], ids="chunks-of-{}".format)
def test_many_events_below_the_limit(limit: int, size: int) -> None:
    """The limit is for one event: many that are as large as it allows pass, with their beginnings and ends mixed."""
    stream = (b"data: " + b"x" * (limit - 10) + b"\n\n") * 5
    assert parse(*(stream[index : index + size] for index in range(0, len(stream), size))) == ["x" * (limit - 10)] * 5


def test_exact_limit(limit: int) -> None:
    """The lines of an event, each with its end, may have as many bytes as the limit, and not one more."""
    assert parse(b"data:" + b"x" * 499 + b"\ndata:" + b"y" * 499 + b"\n\n") == ["x" * 499 + "\n" + "y" * 499]
    with pytest.raises(ValueError, match="larger than 8 MiB"):
        parse(b"data:" + b"x" * 499 + b"\ndata:" + b"y" * 500 + b"\n\n")


def test_real_limit() -> None:
    """An event of 7 MiB passes, for the limit is as its text says."""
    assert _sse.MAX_EVENT == 8 * 2**20
    event = b"x" * (7 * 1024 * 1024)
    assert parse(b"data: ", event, b"\n", b"\n") == [event.decode()]
