"""What a storage host may send: the whole file comes out of it, or an error of ours, within its bound, and no file."""

import asyncio
import gzip
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from comfycontrol_async import DownloadError, ResponseLostError, Timeouts
from support.raw_storage import Asked, RawStorage, Reply, chunked, http, raw_storage, reset, run_with, saying
from support.services import ONCE, client_at, names_in
from support.waiting import eventually

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40 + b"\0\0\0\0IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(250)) * 40 + b"\xff\xd9"
GIF = b"GIF89a" + bytes(5000) + b";"
WEBP = b"RIFF" + (4992 + 4).to_bytes(4, "little") + b"WEBP" + bytes(4992)
TEXT = b"one line\n" * 500
ETAG = 'ETag: "v1"'
BRIEF = Timeouts(connect=0.2, read=0.2)
PACKED = gzip.compress(TEXT)


def box(kind: bytes, size: int, *, wide: bool = False) -> bytes:
    """Write a box of an MP4, its header included in its size."""
    head = b"\0\0\0\1" + kind + size.to_bytes(8, "big") if wide else size.to_bytes(4, "big") + kind
    return head + bytes(size - len(head))


MP4 = box(b"ftyp", 24) + box(b"mdat", 3000, wide=True) + box(b"free", 8) + box(b"moov", 40)
# More often than any timer of silence.
INTERIM: list[bytes | float] = [b"HTTP/1.1 100 Continue\r\n\r\n", 0.05]
MP4_RAW = http(MP4, length=None, kind="video/mp4")


def part(body: bytes, first: int, total: int | str, *headers: str) -> bytes:
    """Write a 206 with everything from a byte on."""
    told = f"Content-Range: bytes {first}-{len(body) - 1}/{total}"
    return http(body[first:], told, *(headers or (ETAG,)), status=206)


def cut(body: bytes, size: int, *headers: str) -> bytes:
    """Write an answer that breaks off after so many bytes of its body."""
    return http(body[:size], *headers, length=len(body))


def after(*parts: bytes | float, end: Callable[[asyncio.StreamWriter], None] | None = None) -> Reply:
    """Reply with pieces of an answer; a number waits so many seconds."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for piece in parts:
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            else:
                await asyncio.sleep(piece)
        if end is not None:
            end(writer)

    return reply


def then(first: Reply, *answers: bytes) -> Reply:
    """Reply with `first` to the first request, and with the answers to those after it."""

    async def reply(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.number == 0:
            await first(asked, writer)
        else:
            writer.write(answers[min(asked.number - 1, len(answers) - 1)])

    return reply


def moved(location: str, *, status: int = 302) -> bytes:
    """Write a redirect."""
    return http(b"", f"Location: {location}", "Set-Cookie: session=1", status=status)


# id: the path, the reply, and the content.
GOOD: dict[str, tuple[str, Reply, bytes]] = {
    "length": ("a.png", saying(http(PNG)), PNG),
    "chunked": ("a.png", saying(chunked(PNG)), PNG),
    "http-1.0": ("a.png", saying(http(PNG, length=None).replace(b"HTTP/1.1", b"HTTP/1.0")), PNG),
    "no-length-png": ("a.png", saying(http(PNG, length=None)), PNG),
    "no-length-jpeg": ("a.jpg", saying(http(JPEG, length=None)), JPEG),
    "no-length-jpeg-named-png": ("a.png", saying(http(JPEG, length=None)), JPEG),
    "no-length-gif": ("a.gif", saying(http(GIF, length=None)), GIF),
    "no-length-webp": ("a.webp", saying(http(WEBP, length=None)), WEBP),
    "no-length-text": ("a.txt", saying(http(TEXT, length=None, kind="text/plain")), TEXT),
    "no-type": ("a.png", saying(http(PNG, kind="")), PNG),
    "wrong-type": ("a.png", saying(http(PNG, kind="text/html")), PNG),
    "page-wanted": ("a.html", saying(http(b"<html>hi</html>", kind="text/html")), b"<html>hi</html>"),
    "text-in-html": ("a.txt", saying(http(b"<html>hi</html>", kind="text/plain")), b"<html>hi</html>"),
    "svg": ("a.svg", saying(http(b"<svg/>", kind="application/xml")), b"<svg/>"),
    "json": ("a.json", saying(http(b'{"a": 1}', kind="application/json")), b'{"a": 1}'),
    "empty-text": ("a.txt", saying(http(b"", kind="text/plain")), b""),
    "drop-by-drop": ("a.png", after(*[bytes([byte]) for byte in http(PNG[:40])]), PNG[:40]),
    "no-length-mp4": ("a.mp4", saying(http(MP4, length=None, kind="video/mp4")), MP4),
    "no-length-mp4-drops": ("a.mp4", after(*[MP4_RAW[at : at + 7] for at in range(0, len(MP4_RAW), 7)]), MP4),
    "gzip": ("a.txt", saying(http(PACKED, "Content-Encoding: gzip")), TEXT),
    "gzip-in-chunks": ("a.txt", saying(chunked(PACKED, "Content-Encoding: GZIP")), TEXT),
    "gzip-no-length": ("a.txt", saying(http(PACKED, "Content-Encoding: x-gzip", length=None)), TEXT),
    "gzip-members": ("a.txt", saying(http(PACKED + PACKED + bytes(20), "Content-Encoding: gzip")), TEXT * 2),
    "gzip-file": ("a.txt.gz", saying(http(PACKED, "Content-Encoding: gzip")), PACKED),
    "identity": ("a.txt", saying(http(TEXT, "Content-Encoding: identity")), TEXT),
    "aws-chunked": ("a.txt", saying(http(TEXT, "Content-Encoding: aws-chunked")), TEXT),
    "aws-chunked-gzip": ("a.txt", saying(http(PACKED, "Content-Encoding: aws-chunked, gzip")), TEXT),
    "gzip-bomb": ("a.bin", saying(http(gzip.compress(bytes(4_000_000)), "Content-Encoding: gzip")), bytes(4_000_000)),
    "interim": ("a.png", saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + http(PNG)), PNG),
    "moved": ("a.png", saying(moved("/b.png"), http(PNG)), PNG),
    "moved-for-good": ("a.png", saying(moved("b.png", status=308), http(PNG)), PNG),
    "moved-five-times": ("a.png", saying(*[moved("/b.png", status=307)] * 5, http(PNG)), PNG),
    "resumed": ("a.png", saying(cut(PNG, 5000, ETAG), part(PNG, 5000, len(PNG))), PNG),
    "resumed-unknown-total": ("a.png", saying(cut(PNG, 5000, ETAG), part(PNG, 5000, "*")), PNG),
    "resumed-by-all": ("a.png", saying(cut(PNG, 5000, ETAG), http(PNG, ETAG)), PNG),
    "resumed-gzip": (
        "a.txt",
        saying(cut(PACKED, 30, ETAG, "Content-Encoding: gzip"), part(PACKED, 30, len(PACKED))),
        TEXT,
    ),
    "resumed-at-the-end": (
        "a.png",
        then(
            after(http(PNG, ETAG, length=None)[:-4], 0.01, end=reset),
            part(PNG, len(PNG) - 4, len(PNG)),
        ),
        PNG,
    ),
    "all-was-there": (
        "a.png",
        then(
            after(http(PNG, ETAG, length=None), 0.01, end=reset),
            http(b"", f"Content-Range: bytes */{len(PNG)}", status=416),
        ),
        PNG,
    ),
    "begun-again": ("a.png", saying(cut(JPEG, 5000, 'ETag: W/"1"'), http(JPEG, 'ETag: W/"1"')), JPEG),
    "begun-again-no-etag": ("a.txt", saying(cut(b"x" * 99, 50), http(b"y" * 99)), b"y" * 99),
    "nothing-came-and-it-changed": ("a.txt", saying(cut(b"x" * 99, 0, ETAG), http(b"y" * 50)), b"y" * 50),
    "busy": ("a.png", saying(http(status=503), http(status=429), http(PNG)), PNG),
    "slow-down": ("a.png", saying(http(status=408), http(status=425), http(PNG)), PNG),
    "reset-at-first": ("a.png", then(after(end=reset), http(PNG)), PNG),
    "garbage-at-first": ("a.png", saying(b"\x16\x03\x01\x02\0\x01\0", http(PNG)), PNG),
    "silent-at-first": ("a.png", then(after(1.5), http(PNG)), PNG),
    "expired": ("a.png", saying(http(status=403), http(PNG)), PNG),
    "gone": ("a.png", saying(http(status=410), http(PNG)), PNG),
    "expired-midway": ("a.png", saying(cut(PNG, 5000, ETAG), http(status=403), part(PNG, 5000, len(PNG))), PNG),
    "spaces": ("a b.png", saying(http(PNG)), PNG),
    "unicode": ("\u732b/\U0001f600.png?s=\xe9", saying(http(PNG)), PNG),
    "signs": ("a%2Fb/../c%7e.png?s=a%2Bb+c%2f&&x=%", saying(http(PNG)), PNG),
}

# id: the path, the reply, and what the error says.
BAD: dict[str, tuple[str, Reply, str]] = {
    "204": ("a.png", saying(http(status=204, length=None)), "answers 204"),
    "202": ("a.png", saying(http(PNG, status=202)), "answers 202"),
    "205": ("a.png", saying(http(status=205)), "answers 205"),
    "304": ("a.png", saying(http(status=304, length=None)), "answers 304"),
    "300": ("a.png", saying(http(status=300)), "answers 300"),
    "404": ("a.png", saying(http(b"none", status=404)), "answers 404"),
    "expired-for-good": ("a.png", saying(http(status=403)), "answers 403"),
    "416-unasked": ("a.png", saying(http(status=416)), "take up"),
    "500": ("a.png", saying(http(b"<html>oops</html>", status=500, kind="text/html")), "answers 500"),
    "999": ("a.png", saying(http(PNG, status=999)), "answers 999"),
    "moved-nowhere": ("a.png", saying(http(status=302)), "answers 302"),
    "moved-for-ever": ("a.png", saying(moved("/a.png")), "more than 5 times"),
    "moved-to-ftp": ("a.png", saying(moved("ftp://127.0.0.1/x?s=SECRET")), "'ftp'"),
    "moved-to-file": ("a.png", saying(moved("file:///etc/passwd")), "'file'"),
    "moved-to-data": ("a.png", saying(moved("data:image/png;base64,AAAA")), "'data'"),
    "moved-with-password": ("a.png", saying(moved("http://user:SECRET@127.0.0.1/x")), "user name or password"),
    "moved-to-no-host": ("a.png", saying(moved("http:///x?s=SECRET")), "no host"),
    "moved-to-no-port": ("a.png", saying(moved("http://127.0.0.1:99999/x?s=SECRET")), "no http or https URL"),
    "part-unasked": ("a.png", saying(part(PNG, 7, len(PNG))), "take up"),
    "page": ("a.png", saying(http(b"<html>expired</html>", kind="text/html; charset=utf-8")), "a page"),
    "page-in-disguise": ("a.png", saying(http(b"\xef\xbb\xbf\n<!DOCTYPE html><p>", kind="image/png")), "a page"),
    "page-in-chunks": ("a.mp4", saying(chunked(b"<HTML>no</HTML>", kind="")), "a page"),
    "page-for-text": ("a.txt", saying(http(b" <p>log in</p>", kind="text/html")), "a page"),
    "page-without-length": ("a.bin", saying(http(b"<html>", length=None, kind="text/html")), "a page"),
    "message-xml": ("a.png", saying(http(b"<?xml version='1.0'?><Error/>", kind="application/xml")), "a message"),
    "message-json": ("a.mp4", saying(http(b'{"error": "gone"}', kind="application/json")), "a message"),
    "empty": ("a.png", saying(http()), "sent nothing"),
    "empty-no-length": ("a.webm", saying(http(length=None)), "sent nothing"),
    "cut": ("a.png", saying(cut(PNG, 5000)), "cut short"),
    "cut-at-once": ("a.png", saying(cut(PNG, 0)), "cut short"),
    "cut-in-a-chunk": ("a.png", saying(chunked(PNG)[:5000]), "cut short"),
    "cut-last-chunk": ("a.png", saying(chunked(PNG)[:-5]), "cut short"),
    "cut-in-headers": ("a.png", saying(http(PNG)[:30]), "could not be fetched"),
    "bad-chunk": ("a.png", saying(chunked(PNG).replace(b"3e8", b"zzz")), "could not be fetched"),
    "bad-length": ("a.png", saying(http(PNG).replace(b"Length: ", b"Length: -")), "could not be fetched"),
    "two-lengths": ("a.png", saying(http(PNG, "Content-Length: 5")), "could not be fetched"),
    "no-length-reset": ("a.bin", after(http(TEXT, length=None), 0.02, end=reset), "reset"),
    "no-length-png": ("a.png", saying(http(PNG[:-12], length=None)), "has no end"),
    "no-length-png-start": ("a.bin", saying(http(PNG[:5], length=None)), "has no end"),
    "no-length-png-named-bin": ("a.bin", saying(http(PNG[:5000], length=None)), "has no end"),
    "no-length-no-png": ("a.png", saying(http(b"short", length=None)), "has no end"),
    "no-length-jpeg": ("a.jpg", saying(http(JPEG[:-2], length=None)), "has no end"),
    "no-length-gif": ("a.gif", saying(http(GIF[:-1], length=None)), "has no end"),
    "no-length-webp": ("a.webp", saying(http(WEBP[:-1], length=None)), "has no end"),
    "no-length-mp4": ("a.mp4", saying(http(MP4[:-1], length=None)), "has no end"),
    "no-length-mp4-box": ("a.mp4", saying(http(MP4[: -len(box(b"moov", 40))], length=None)), "has no end"),
    "no-length-zip": ("a.zip", saying(http(b"PK\x03\x04" + TEXT, length=None)), "has no end"),
    "no-length-gzip": ("a.txt", saying(http(PACKED[:-4], "Content-Encoding: gzip", length=None)), "no end"),
    "gzip-cut-at-its-length": ("a.txt", saying(http(PACKED[:-4], "Content-Encoding: gzip")), "no end"),
    "gzip-broken": ("a.txt", saying(http(PACKED[:20] + b"\xff" * 50, "Content-Encoding: gzip")), "unpacked"),
    "gzip-that-is-none": ("a.txt", saying(http(TEXT, "Content-Encoding: gzip")), "unpacked"),
    "gzip-and-more": ("a.txt", saying(http(PACKED + b"more", "Content-Encoding: gzip")), "unpacked"),
    "deflate": ("a.txt", saying(http(zlib.compress(TEXT), "Content-Encoding: deflate")), "'deflate'"),
    "brotli": ("a.txt", saying(http(TEXT, "Content-Encoding: br")), "'br'"),
    "packed-twice": ("a.txt", saying(http(PACKED, "Content-Encoding: gzip, gzip")), "'gzip, gzip'"),
    "other-etag-part": ("a.png", saying(cut(PNG, 5000, ETAG), part(PNG, 5000, len(PNG), 'ETag: "v2"')), "changed"),
    "other-etag-all": ("a.png", saying(cut(PNG, 5000, ETAG), http(PNG, 'ETag: "v2"')), "changed"),
    "other-length-part": ("a.png", saying(cut(PNG, 5000, ETAG), part(PNG, 5000, 99999)), "changed"),
    "other-length-all": ("a.png", saying(cut(PNG, 5000, ETAG), http(PNG + b"x", ETAG)), "changed"),
    "other-length-no-etag": ("a.png", saying(cut(PNG, 5000), http(PNG + b"x")), "changed"),
    "shorter-now": (
        "a.png",
        saying(cut(PNG, 5000, ETAG), http(b"", "Content-Range: bytes */10", status=416)),
        "changed",
    ),
    "always-another-part": ("a.png", saying(cut(PNG, 5000, ETAG), part(PNG, 9, len(PNG))), "could not be fetched"),
    "silence": ("a.png", after(2.0), "no answer in time"),
    "silence-in-headers": ("a.png", after(http(PNG)[:30], 2.0), "no answer in time"),
    "silence-in-body": ("a.png", after(http(PNG)[:5000], 2.0), "no answer in time"),
    "silence-after-interim": ("a.png", after(b"HTTP/1.1 103 Early Hints\r\n\r\n", 5.0), "no answer in time"),
    "interim-for-ever": ("a.png", after(*INTERIM * 100), "no answer in time"),
    "silence-in-body-after-interim": (
        "a.png",
        after(b"HTTP/1.1 100 Continue\r\n\r\n" + http(PNG)[:5000], 5.0),
        "no answer in time",
    ),
    "closed": ("a.png", saying(b""), "could not be fetched"),
    "reset": ("a.png", after(end=reset), "could not be fetched"),
    "garbage": ("a.png", saying(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(90)), "could not be fetched"),
    "page-without-http": ("a.png", saying(b"<html>no headers</html>\r\n\r\n"), "could not be fetched"),
    "headers-for-ever": ("a.png", saying(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000), "could not be fetched"),
}

# URLs that are none, and what the error says.
NO_URLS = {
    "empty": ("", "no http or https URL"),
    "words": ("not a url", "no http or https URL"),
    "no-scheme": ("//127.0.0.1/x", "no http or https URL"),
    "path": ("/etc/passwd", "no http or https URL"),
    "ftp": ("ftp://127.0.0.1/x?s=SECRET", "'ftp'"),
    "file": ("file:///etc/passwd", "'file'"),
    "data": ("data:image/png;base64,AAAA", "'data'"),
    "script": ("javascript:alert(1)", "'javascript'"),
    "no-host": ("http:///x?s=SECRET", "no host"),
    "one-slash": ("http:/127.0.0.1/x", "no host"),
    "port-letters": ("http://127.0.0.1:abc/x?s=SECRET", "no http or https URL"),
    "port-too-high": ("http://127.0.0.1:99999/x?s=SECRET", "no http or https URL"),
    "port-zero": ("http://127.0.0.1:0/x?s=SECRET", "no host"),
    "open-bracket": ("http://[::1/x?s=SECRET", "no http or https URL"),
    "newline": ("http://127.0.0.1/a\r\nX-Inject: 1", "control characters"),
    "zero-byte": ("http://127.0.0.1/a\0b", "control characters"),
    "password": ("http://user:SECRET@127.0.0.1/x", "user name or password"),
    "user": ("http://user@127.0.0.1/x", "user name or password"),
    "host-of-dots": ("http://.../x?s=SECRET", "could not be fetched"),
    "host-too-long": (f"http://{'h' * 300}/x?s=SECRET", "could not be fetched"),
    "host-with-space": ("http://a b/x?s=SECRET", "no http or https URL"),
    "host-with-direction": ("http://\u202eh/x?s=SECRET", "no http or https URL"),
    "refused": ("http://127.0.0.1:1/x?s=SECRET", "Cannot connect"),
}


def check_harmless(storage: RawStorage) -> None:
    """Check that no request to the storage host held a credential, and none asked for a part without its ETag."""
    for asked in storage.asked:
        assert not {"authorization", "cookie", "proxy-authorization"} & {*asked.headers}
        assert ("range" in asked.headers) == ("if-range" in asked.headers)
        assert "cfc_" not in str(asked)


@pytest.mark.parametrize("name", GOOD)
async def test_good(tmp_path: Path, name: str) -> None:
    """The whole file is saved, and read, and nothing else lies beside it."""
    path, reply, content = GOOD[name]
    options = {"timeouts": Timeouts(read=0.5)} if name.startswith("silent") else {}
    async with raw_storage(reply) as storage, run_with(f"{storage.url}/{path}", **options) as (run, _):
        (saved,) = await run.download(tmp_path)
        assert saved.read_bytes() == content
        check_harmless(storage)
    async with raw_storage(reply) as storage, run_with(f"{storage.url}/{path}", **options) as (run, _):
        (file,) = await run.files()
        assert await file.read() == content
    assert names_in(tmp_path) == [saved.name]


@pytest.mark.parametrize("name", BAD)
async def test_bad(tmp_path: Path, name: str) -> None:
    """An error of ours says why, without the signature, and no file is there, whole or half."""
    path, reply, reason = BAD[name]
    options = {"timeouts": BRIEF, "retry": ONCE} if name.startswith(("silence", "interim")) else {}
    async with raw_storage(reply) as storage, run_with(f"{storage.url}/{path}?s=SECRET", **options) as (run, _):
        async with asyncio.timeout(10):
            with pytest.raises(DownloadError, match=reason) as caught:
                await run.download(tmp_path)
        check_harmless(storage)
        assert len(storage.asked) <= 6
    assert names_in(tmp_path) == []
    assert caught.value.path.startswith(str(tmp_path))
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


async def test_reset_before_the_body_is_read() -> None:
    """A reset is noticed though aiohttp had the whole body, and let go of the connection, before the first read."""
    reply = after(http(TEXT, length=None), 0.02, end=reset)
    async with (
        raw_storage(reply) as storage,
        client_at(storage.url) as comfy,
        comfy._core.storage.download(f"{storage.url}/a.bin", timeouts=Timeouts()) as stored,
    ):
        await eventually(lambda: stored._answer.connection is None)
        with pytest.raises(ResponseLostError, match="reset"):
            assert [chunk async for chunk in stored.chunks()]


@pytest.mark.parametrize("name", NO_URLS)
async def test_no_url(tmp_path: Path, name: str) -> None:
    """A URL that cannot be called is an error of ours, which does not quote it; a file that it was for is not made."""
    url, reason = NO_URLS[name]
    async with run_with(url) as (run, _):
        with pytest.raises(DownloadError, match=reason) as caught:
            await run.download(tmp_path)
    assert names_in(tmp_path) == []
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        pytest.param("{url}/a%2Fb/../c%7e.png?s=a%2Bb+c%2f&x=%", "/a%2Fb/../c%7e.png?s=a%2Bb+c%2f&x=%", id="signs"),
        pytest.param("/a%2fb?X-Amz-Signature=%2F%3d", "/a%2fb?X-Amz-Signature=%2F%3d", id="from-the-root"),
        pytest.param("c.png?s=%41", "/d/c.png?s=%41", id="relative"),
        pytest.param("?s=%41", "/d/e.png?s=%41", id="query"),
        pytest.param("/a b?s=%20", "/a%20b?s=%20", id="space"),
        pytest.param("/\xc3\xa9\xff", "/%C3%A9%FF", id="bytes"),
    ],
)
async def test_redirects_stay_as_they_are(location: str, asked: str) -> None:
    """A redirect goes on the wire byte for byte, for its signature covers the bytes."""

    async def reply(request: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(http(PNG) if request.number else moved(location.format(url=storage.url)))

    async with raw_storage(reply) as storage, run_with(f"{storage.url}/d/e.png?s=1") as (run, _):
        (file,) = await run.files()
        assert await file.read() == PNG
        assert storage.asked[1].target == asked
        check_harmless(storage)


async def test_source_stays_as_it_is() -> None:
    """So does the URL that the service gives."""
    target = "/a%2Fb/../c%7e//.png?s=a%2Bb+c%2f&&x=%&y=[1]"
    async with raw_storage(saying(http(PNG))) as storage, run_with(storage.url + target) as (run, _):
        await (await run.files())[0].read()
        assert storage.asked[0].target == target
