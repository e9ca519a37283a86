"""Transfers: when URLs are renewed, when a transfer is given up, and what is put together."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

from comfycontrol_async import DownloadError, NotFoundError, ResponseLostError, RetryPolicy, Timeouts
from comfycontrol_async.models import Output
from comfycontrol_async.runs._assembly import Assembly
from comfycontrol_async.runs._download import Downloader
from comfycontrol_async.runs._transfer import SignedUrls, Transfer
from comfycontrol_async.testing import FakeClock


class PassingClock(FakeClock):
    """A clock on which a sleep takes no time, and time passes all the same."""

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


@attrs.frozen
class Answer:
    """An answer of the storage host: the seconds that pass before each chunk, and how the body ends."""

    status: int = 200
    chunks: Sequence[bytes] = (b"content",)
    headers: dict[str, str] = attrs.field(factory=dict)
    seconds: float = 0.0
    breaks: bool = False
    has_length: bool = True


@attrs.define
class FakeStorage:
    """A storage host that answers as it is told, each time the same or one after the other."""

    clock: FakeClock
    answer: Callable[[str, int], Answer]
    asked: list[tuple[str, int, str]] = attrs.field(factory=list)

    @asynccontextmanager
    async def download(self, url: str, *, offset: int, etag: str, timeouts: Timeouts) -> AsyncIterator[Any]:
        """Open a URL."""
        answer = self.answer(url, len(self.asked))
        self.asked.append((url, offset, etag))

        async def chunks() -> AsyncGenerator[bytes, None]:
            for chunk in answer.chunks:
                if answer.seconds:
                    await self.clock.sleep(answer.seconds)
                yield chunk
            if answer.breaks:
                raise ResponseLostError("broke off")

        yield Opened(answer.status, answer.headers, answer.has_length, chunks)


@attrs.frozen
class Opened:
    """An answer as the storage room gives it."""

    status: int
    headers: dict[str, str]
    has_length: bool
    chunks: Callable[[], AsyncGenerator[bytes, None]]


def outputs(*urls: str) -> list[Output]:
    """Make outputs, all of one id."""
    return [Output(id="output", workflow_id="w", src=url) for url in urls]


def downloader(storage: FakeStorage, attempts: int = 3) -> Downloader:
    """Make a downloader of that storage host, without jitter."""
    return Downloader(
        storage=storage,  # type: ignore[arg-type] # a fake
        timeouts=Timeouts(),
        retry=RetryPolicy(attempts=attempts),
        clock=storage.clock,
        chance=lambda: 0.0,
    )


class TestRenewal:
    """Signed URLs that have expired."""

    @pytest.mark.parametrize("status", [400, 401, 403, 410])
    async def test_one_request_for_all(self, status: int) -> None:
        """However many outputs have expired, one request brings all fresh URLs, told apart by their place."""
        asked = 0

        async def refresh() -> list[Output]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            return outputs("new0", "new1", "new2")

        def answer(url: str, number: int) -> Answer:
            return Answer(status) if url.startswith("old") else Answer(chunks=[url.encode()])

        storage = FakeStorage(FakeClock(), answer)
        files = downloader(storage).files(outputs("old0", "old1", "old2"), refresh)
        assert await asyncio.gather(*(file.read() for file in files)) == [b"new0", b"new1", b"new2"]
        assert asked == 1
        assert await files[1].read() == b"new1"
        assert asked == 1

    async def test_the_same_urls_again(self) -> None:
        """A service that gives the same dead URLs again is asked once for all, not once for each."""
        asked = 0

        async def refresh() -> list[Output]:
            nonlocal asked
            asked += 1
            return outputs("old0", "old1", "old2")

        files = downloader(FakeStorage(FakeClock(), lambda *_: Answer(403))).files(await refresh(), refresh)
        results = await asyncio.gather(*(file.read() for file in files), return_exceptions=True)
        assert all(isinstance(result, DownloadError) for result in results)
        assert asked == 2

    @pytest.mark.parametrize("fresh", [[], ["new0"], ["new0", "new1", "new2"]])
    async def test_another_number(self, fresh: list[str]) -> None:
        """Another number of outputs than before cannot be told apart by place: an error."""

        async def refresh() -> list[Output]:
            return outputs(*fresh)

        files = downloader(FakeStorage(FakeClock(), lambda *_: Answer(403))).files(outputs("a", "b"), refresh)
        with pytest.raises(DownloadError, match=f"had 2 outputs, and now has {len(fresh)}"):
            await files[1].read()

    async def test_no_renewal(self) -> None:
        """What the service says instead of fresh URLs is raised as it is."""

        async def refresh() -> list[Output]:
            raise NotFoundError(404)

        files = downloader(FakeStorage(FakeClock(), lambda *_: Answer(403))).files(outputs("a"), refresh)
        with pytest.raises(NotFoundError):
            await files[0].read()

    async def test_cancelled_renewal(self) -> None:
        """One who is cancelled while URLs are renewed does not keep the others from it."""
        asked = 0

        async def refresh() -> list[Output]:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            if asked == 1:
                tasks[0].cancel()
                await asyncio.sleep(10)
            return outputs("new0", "new1")

        def answer(url: str, number: int) -> Answer:
            return Answer(403) if url.startswith("old") else Answer(chunks=[url.encode()])

        files = downloader(FakeStorage(FakeClock(), answer)).files(outputs("old0", "old1"), refresh)
        tasks = [asyncio.create_task(file.read()) for file in files]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] == b"new1"

    async def test_again_after_progress(self) -> None:
        """A transfer that outlives its fresh URL too gets another one, as long as it moves on."""
        urls = iter(["u1", "u2", "u3"])

        async def refresh() -> list[Output]:
            return outputs(next(urls))

        def answer(url: str, number: int) -> Answer:
            if number % 2:
                return Answer(403)
            first = number // 2 * 20_000
            told = {"Content-Length": "60000"} if not number else {"Content-Range": f"bytes {first}-59999/60000"}
            headers = {"ETag": '"v"'} | told
            return Answer(206 if number else 200, [bytes(20_000)], headers, seconds=15.0, breaks=number < 4)

        storage = FakeStorage(PassingClock(), answer)
        (file,) = downloader(storage).files(outputs("u0"), refresh)
        assert len(await file.read()) == 60_000
        assert [url for url, _, _ in storage.asked] == ["u0", "u0", "u1", "u1", "u2"]
        assert [offset for _, offset, _ in storage.asked] == [0, 20_000, 20_000, 40_000, 40_000]


class TestBounds:
    """Transfers that would never end."""

    async def test_drops(self) -> None:
        """A connection that brings next to nothing for a minute is given up, and so is the transfer after its tries."""
        clock = PassingClock()
        storage = FakeStorage(clock, lambda *_: Answer(chunks=[b"."] * 1000, seconds=20.0))
        (file,) = downloader(storage).files(outputs("a"), no_refresh)
        with pytest.raises(DownloadError, match=r"only 3 bytes came in 60 s"):
            await file.read()
        assert len(storage.asked) == 3

    async def test_slow_but_steady(self) -> None:
        """What is slow, but moves, is waited for."""
        clock = PassingClock()
        storage = FakeStorage(clock, lambda *_: Answer(chunks=[bytes(40_000)] * 20, seconds=25.0))
        (file,) = downloader(storage).files(outputs("a"), no_refresh)
        assert len(await file.read()) == 800_000

    async def test_slow_consumer(self) -> None:
        """The time that a consumer takes for each chunk is not held against the host."""
        clock = PassingClock()
        storage = FakeStorage(clock, lambda *_: Answer(chunks=[bytes(1000)] * 20, seconds=1.0))
        (file,) = downloader(storage).files(outputs("a"), no_refresh)
        size = 0
        async for chunk in file.chunks():
            size += len(chunk)
            await clock.sleep(100.0)
        assert size == 20_000
        assert len(storage.asked) == 1

    @pytest.mark.parametrize("etag", ['"v"', ""])
    async def test_tiny_steps(self, etag: str) -> None:
        """Attempts that each bring a few bytes more are no progress."""

        def answer(url: str, number: int) -> Answer:
            told = (
                {"Content-Length": "9000"} if not (number and etag) else {"Content-Range": f"bytes {number}-8999/9000"}
            )
            return Answer(206 if number and etag else 200, [b"."], {"ETag": etag} | told, breaks=True)

        storage = FakeStorage(FakeClock(), answer)
        (file,) = downloader(storage, attempts=4).files(outputs("a"), no_refresh)
        with pytest.raises(DownloadError, match="broke off"):
            await file.read()
        assert len(storage.asked) == 4

    async def test_the_same_cut_for_ever(self) -> None:
        """A host without ETags that breaks off at the same place each time is given up."""
        storage = FakeStorage(FakeClock(), lambda *_: Answer(chunks=[bytes(50_000)], breaks=True))
        (file,) = downloader(storage).files(outputs("a"), no_refresh)
        with pytest.raises(DownloadError, match="broke off"):
            await file.read()
        assert len(storage.asked) == 3


async def no_refresh() -> list[Output]:
    """Refuse to renew: nothing here expires."""
    raise AssertionError("not to be asked for")


async def test_closed_early() -> None:
    """A consumer that stops closes the connection."""
    closed = []

    class Storage(FakeStorage):
        @asynccontextmanager
        async def download(self, url: str, **options: Any) -> AsyncIterator[Any]:
            async with super().download(url, **options) as opened:
                try:
                    yield opened
                finally:
                    closed.append(url)

    storage = Storage(FakeClock(), lambda *_: Answer(chunks=[bytes(1000)] * 5))
    pieces = Transfer(
        downloader(storage),
        SignedUrls(outputs("a"), no_refresh, storage.clock),
        0,
        label="a",
        extension="",
        media_type="application/octet-stream",
    ).pieces()
    assert await anext(pieces) == bytes(1000)
    await pieces.aclose()
    assert closed == ["a"]


class TestAssembly:
    """What continues what."""

    @pytest.mark.parametrize(
        ("etag", "wanted"),
        [
            ('"v"', (5, '"v"')),
            ('W/"v"', (0, "")),
            ("", (0, "")),
            ("v", (0, "")),
            ('"v", "w"', (0, "")),
            ('"v" ', (0, "")),
        ],
    )
    def test_wanted(self, etag: str, wanted: tuple[int, str]) -> None:
        """Only a strong ETag lets the rest be asked for."""
        assembly = Assembly(".bin", "application/octet-stream")
        assembly.begin(200, {"ETag": etag})
        list(assembly.take(b"12345"))
        assert assembly.wanted == wanted

    def test_skips_what_is_here(self) -> None:
        """All of it again, with the same ETag, continues behind what came, in whatever pieces."""
        assembly = Assembly(".bin", "application/octet-stream")
        headers = {"ETag": '"v"', "Content-Length": "2000"}
        content = bytes(range(250)) * 8
        given: list[bytes] = []
        assert not assembly.begin(200, headers)
        given += assembly.take(content[:700])
        assert not assembly.begin(200, headers)
        for start in range(0, 2000, 300):
            given += assembly.take(content[start : start + 300])
        given += assembly.finish(has_length=True)
        assert b"".join(given) == content

    def test_begins_again_only_when_something_was_given(self) -> None:
        """The consumer is told to begin again when it holds something, not for what was held back."""
        assembly = Assembly(".bin", "application/octet-stream")
        assembly.begin(200, {})
        assert list(assembly.take(b"few")) == []
        assert not assembly.begin(200, {})
        assert list(assembly.take(bytes(1000))) != []
        assert assembly.begin(200, {})
