"""Pager: walks a listing page by page, over a function that fetches one.

Listings are newest first and live: while they are walked, new items push others on to later pages (they are seen twice
and given once), and items that leave pull others forward, over the edge of the page that comes next. A `total` that
shrinks tells of the latter: the page before is read again first, three times at most for each page, so that a listing
that shrinks all the time still comes to an end.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Generic, TypeVar

from comfycontrol_async._settings import check_count
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.models import Page

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
        """Fetch every page and return all items."""
        return [item async for item in self]

    async def first(self) -> T | None:
        """Return the newest item, None when there is none. One request."""
        page = await self._fetch(1)
        return page.items[0] if page.items else None

    async def __aiter__(self) -> AsyncGenerator[T, None]:
        seen: set[Any] = set()
        again: Counter[int] = Counter()
        number, total = 1, None
        while True:
            page = await self._fetch(number)
            for item in page.items:
                key = getattr(item, "id", None)
                if key is None or key not in seen:
                    seen.add(key)
                    yield item
            count = len(page.items) + len(page.invalid_items)
            shrunk = total is not None and page.total < total and number > 1
            total = page.total
            if shrunk and again[number] < _MOST_TIMES_AGAIN:
                again[number] += 1
                number -= 1
            elif count < page.per_page or number * page.per_page >= total:
                return
            else:
                number += 1

    def __repr__(self) -> str:
        return "<Pager>"
