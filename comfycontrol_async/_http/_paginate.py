"""Pager: walks a listing page by page, over a function that fetches one.

Listings are newest first and live: while they are walked, new items push others on to later pages (they are seen twice
and given once), and items that leave pull others forward, over the edge of the page that comes next. A `total` that
shrinks shows the latter: the page before is read again first, three times at most for each page, so that a listing
that shrinks all the time still comes to an end.

A walk ends at a page that is not full, where the total says so, or at a full page that brings nothing unseen: a server
that gives one page for every number must not keep it going, whatever total it claims.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

from comfycontrol_async._settings import check_count
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.models import InvalidItem, Page

T = TypeVar("T")

_MOST_TIMES_AGAIN = 3


class Pager(Generic[T]):
    """A listing that is fetched as it is walked: `async for item in pager`. Making one costs no request."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Callable[[int], Awaitable[Page[T]]]) -> None:
        self._fetch = fetch

    async def page(self, number: int = 1) -> Page[T]:
        """Fetch one page; the first is 1. One request.

        Raises:
            InvalidArgumentError: `number` is no whole number from 1.
        """
        return await self._fetch(check_count("a page's number", number, InvalidArgumentError, least=1))

    async def all(self) -> list[T]:
        """Return all items, each once, in the service's order. One request for each page; more if the listing changes.

        Raises:
            TransportError, APIError, ResponseFormatError, RateLimitWaitError: a page could not be fetched; a walk with
                `async for` has given the items of those before it.
        """
        return [item async for item in self]

    async def first(self) -> T | None:
        """Return the newest item, None when there is none. One request, which raises as every call."""
        page = await self._fetch(1)
        return page.items[0] if page.items else None

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        walk = _Walk()
        number: int | None = 1
        while number is not None:
            page = await self._fetch(number)
            for item in walk.unseen(page):
                yield item
            number = walk.next_page(page)

    def __repr__(self) -> str:
        return "<Pager>"


class _Walk:
    """What one walk has seen, and where it goes on."""

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self._again: Counter[int] = Counter()
        self._total: int | None = None
        # Pages that brought something unseen, at one of their readings; how many others there were.
        self._fruitful: set[int] = set()
        self._barren = 0

    def unseen(self, page: Page[T]) -> Iterator[T]:
        """Give the items of a page that were not given before."""
        for item in page.items:
            key = getattr(item, "id", None)
            if key is None or key not in self._seen:
                self._seen.add(key)
                self._fruitful.add(page.number)
                yield item
        for invalid in page.invalid_items:
            key = _mark(invalid)
            if key not in self._seen:
                self._seen.add(key)
                self._fruitful.add(page.number)

    def next_page(self, page: Page[Any]) -> int | None:
        """Return the page to fetch next, None at the end."""
        number, full = page.number, len(page.items) + len(page.invalid_items) >= page.per_page
        before, self._total = self._total, page.total
        if before is not None and page.total < before and number > 1 and self._again[number] < _MOST_TIMES_AGAIN:
            self._again[number] += 1
            return number - 1
        if number not in self._fruitful:
            self._barren += 1
            # A page of what was pushed on by new items has nothing unseen either; then the total has grown.
            grown = before is not None and page.total > before
            if not grown or self._barren > _MOST_TIMES_AGAIN:
                return None
        # A total that is smaller than what was seen to be there is not believed.
        return None if not full or number * page.per_page == page.total else number + 1


def _mark(invalid: InvalidItem) -> str:
    """Return what identifies a malformed item: its id, or else all of it."""
    raw = invalid.raw
    return f"invalid {raw['id'] if isinstance(raw, dict) and 'id' in raw else raw!r}"
