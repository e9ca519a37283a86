"""Pager: walks a live listing, newest first, and gives every item once."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from comfycontrol_async import InvalidArgumentError, Page, Pager
from comfycontrol_async.models import InvalidItem

PER_PAGE = 3


@attrs.frozen
class Item:
    """Something that is listed."""

    id: int


class Listing:
    """A listing at a server, which may change before each fetch: `changes[n]` is called before the nth, from 1."""

    def __init__(self, *ids: int) -> None:
        self.ids = list(ids)
        self.invalid: set[int] = set()
        self.changes: dict[int, Callable[[], object]] = {}
        self.total: Callable[[], int] = lambda: len(self.ids)
        self.fetched: list[int] = []

    async def fetch(self, number: int) -> Page[Item]:
        """Fetch one page."""
        self.fetched.append(number)
        self.changes.get(len(self.fetched), lambda: None)()
        ids = self.ids[(number - 1) * PER_PAGE : number * PER_PAGE]
        return Page(
            items=[Item(id) for id in ids if id not in self.invalid],
            total=self.total(),
            number=number,
            per_page=PER_PAGE,
            invalid_items=[InvalidItem(index=0, message="bad", raw={"id": id}) for id in ids if id in self.invalid],
        )

    def add(self, *ids: int) -> None:
        """Let new items come in front."""
        self.ids[:0] = ids

    def remove(self, *ids: int) -> None:
        """Let items leave."""
        self.ids = [id for id in self.ids if id not in ids]

    @property
    def pager(self) -> Pager[Item]:
        """A pager of it."""
        return Pager(self.fetch)


async def walk(listing: Listing) -> list[int]:
    """Walk the listing to its end."""
    return [item.id async for item in listing.pager]


def test_making_one_costs_nothing() -> None:
    """A pager fetches when it is asked, not when it is made or shown."""
    listing = Listing(1)
    assert repr(listing.pager) == "<Pager>"
    assert listing.fetched == []


@pytest.mark.parametrize(
    ("count", "pages"),
    [
        pytest.param(0, [1], id="empty"),
        pytest.param(1, [1], id="one"),
        pytest.param(2, [1], id="not-full"),
        pytest.param(3, [1], id="full-page-is-the-last"),
        pytest.param(4, [1, 2], id="one-more"),
        pytest.param(6, [1, 2], id="two-full-pages"),
        pytest.param(8, [1, 2, 3], id="three-pages"),
    ],
)
async def test_walk(count: int, pages: list[int]) -> None:
    """A walk gives every item in order, and fetches each page once and none in vain."""
    listing = Listing(*range(count))
    assert await walk(listing) == list(range(count))
    assert listing.fetched == pages
    assert [item.id for item in await listing.pager.all()] == list(range(count))


async def test_walk_is_lazy() -> None:
    """A page is fetched when its first item is asked for."""
    listing = Listing(*range(8))
    async for item in listing.pager:
        assert listing.fetched == list(range(1, item.id // PER_PAGE + 2))
        if item.id == 4:
            break
    assert listing.fetched == [1, 2]


async def test_two_walks_are_independent() -> None:
    """One pager can be walked again, and by several at once."""
    pager = Listing(*range(4)).pager
    pairs = [(first.id, second.id) async for first in pager async for second in pager]
    assert pairs == [(a, b) for a in range(4) for b in range(4)]


async def test_page() -> None:
    """One page is fetched by its number, even beyond the end."""
    listing = Listing(*range(4))
    assert await listing.pager.page() == await listing.pager.page(1)
    assert [item.id for item in (await listing.pager.page(2)).items] == [3]
    assert (await listing.pager.page(9)).items == []
    assert listing.fetched == [1, 1, 2, 9]


@pytest.mark.parametrize("number", [0, -1, True, 1.5, "1", None], ids=repr)
async def test_page_number_refused(number: Any) -> None:
    """Page numbers are whole and begin at 1; anything else costs no request."""
    listing = Listing(1)
    with pytest.raises(InvalidArgumentError, match="a page's number must be a whole number from 1"):
        await listing.pager.page(number)
    assert listing.fetched == []


async def test_first() -> None:
    """The first item is the newest one, for one request; none when there is none."""
    listing = Listing(*range(8))
    assert await listing.pager.first() == Item(0)
    assert listing.fetched == [1]
    assert await Listing().pager.first() is None


async def test_first_behind_a_faulty_one() -> None:
    """A malformed item is passed over."""
    listing = Listing(1, 2)
    listing.invalid = {1}
    assert await listing.pager.first() == Item(2)


async def test_faulty_items_are_passed_over() -> None:
    """A malformed item neither ends a walk nor counts as a gap."""
    listing = Listing(*range(8))
    listing.invalid = {0, 1, 2, 5}
    assert await walk(listing) == [3, 4, 6, 7]
    assert listing.fetched == [1, 2, 3]


async def test_items_without_ids_are_all_given() -> None:
    """What has no id cannot be told apart, so nothing is held back."""

    async def fetch(number: int) -> Page[str]:
        return Page(items=["a", "a"], total=2, number=number, per_page=2)

    assert await Pager(fetch).all() == ["a", "a"]


# Listings that change


async def test_new_items_push_others_on() -> None:
    """What is pushed on to the next page is seen twice and given once."""
    listing = Listing(*range(8))
    listing.changes[2] = lambda: listing.add(100, 101)
    assert await walk(listing) == list(range(8))
    assert listing.fetched == [1, 2, 3, 4]


async def test_a_page_of_new_items() -> None:
    """When more than a page comes in between, some of the new are seen and none of the old is lost."""
    listing = Listing(*range(6))
    listing.changes[2] = lambda: listing.add(*range(100, 104))
    assert await walk(listing) == [0, 1, 2, 103, 3, 4, 5]


async def test_items_that_leave_pull_others_forward() -> None:
    """What slips over the edge of a page that was read already is found: the total tells of it."""
    listing = Listing(*range(9))
    listing.changes[2] = lambda: listing.remove(1)
    assert sorted(await walk(listing)) == list(range(9))
    assert listing.fetched == [1, 2, 1, 2, 3]


async def test_items_that_leave_from_later_pages() -> None:
    """What leaves before it was seen is not given, and no other item is missed."""
    listing = Listing(*range(9))
    listing.changes[2] = lambda: listing.remove(7)
    assert sorted(await walk(listing)) == [0, 1, 2, 3, 4, 5, 6, 8]


async def test_the_end_moves_forward() -> None:
    """When so many leave that the next page is empty, what slipped forward is found."""
    listing = Listing(*range(6))
    listing.changes[2] = lambda: listing.remove(0, 1, 2)
    assert sorted(await walk(listing)) == list(range(6))
    assert listing.fetched == [1, 2, 1]


async def test_everything_leaves() -> None:
    """A listing that empties while it is walked ends."""
    listing = Listing(*range(9))
    listing.changes[2] = lambda: listing.remove(*range(9))
    assert await walk(listing) == [0, 1, 2]


async def test_the_total_grows() -> None:
    """A walk goes on as far as the listing goes now, not as far as it went at first."""
    listing = Listing(*range(6))
    listing.changes[2] = lambda: listing.ids.append(6)
    assert await walk(listing) == list(range(7))
    assert listing.fetched == [1, 2, 3]


async def test_a_total_that_shrinks_all_the_time() -> None:
    """A listing that shrinks with every look comes to its end: each page sends back to the one before three times."""
    listing = Listing(*range(30))
    totals = iter(range(10_000, 0, -1))
    listing.total = lambda: next(totals)
    assert sorted(await walk(listing)) == list(range(30))
    # Each but the first and the last, which is empty, is read four times, and three times more for the one behind it.
    assert [listing.fetched.count(number) for number in (1, 2, 10, 11)] == [4, 7, 7, 4]


async def test_a_total_that_goes_up_and_down() -> None:
    """Servers that do not agree on the total cannot keep a walk going for ever."""
    listing = Listing(*range(9))
    listing.total = lambda: 9 + len(listing.fetched) % 2
    assert sorted(await walk(listing)) == list(range(9))
    assert len(listing.fetched) < 20


async def test_a_total_that_lies() -> None:
    """A total that is too large costs one request: the page that is not full is the last."""
    listing = Listing(*range(6))
    listing.total = lambda: 1000
    assert await walk(listing) == list(range(6))
    assert listing.fetched == [1, 2, 3]


@pytest.mark.parametrize(
    ("total", "pages"),
    [
        pytest.param(lambda n: 10**9, [1, 2], id="huge"),
        pytest.param(lambda n: 0, [1, 2], id="zero"),
        pytest.param(lambda n: 3 + n, [1, 2, 3, 4, 5], id="growing"),
        pytest.param(lambda n: 10**9 - n, [1, 2, 1, 2, 1, 2, 1, 2], id="shrinking"),
    ],
)
async def test_one_page_for_every_number(total: Callable[[int], int], pages: list[int]) -> None:
    """A server that does not know page numbers cannot keep a walk going, and gives no item twice."""
    listing = Listing(0, 1, 2)
    fetched: list[int] = []

    async def fetch(number: int) -> Page[Item]:
        fetched.append(number)
        return attrs.evolve(await listing.fetch(1), number=number, total=total(len(fetched)))

    assert [item.id for item in await Pager(fetch).all()] == [0, 1, 2]
    assert fetched == pages


async def test_one_page_of_malformed_items_for_every_number() -> None:
    """Malformed items are told apart too, by their ids or by all that they are."""

    async def fetch(number: int) -> Page[Item]:
        raws: list[Any] = [{"id": 1}, ["no object"], None]
        items = [InvalidItem(index=index, message="bad", raw=raw) for index, raw in enumerate(raws)]
        fetched.append(number)
        return Page(items=[], total=10**9, number=number, per_page=PER_PAGE, invalid_items=items)

    fetched: list[int] = []
    assert await Pager(fetch).all() == []
    assert fetched == [1, 2]


async def test_an_item_twice_on_one_page() -> None:
    """An item that one page has twice is given once."""
    assert await walk(Listing(0, 0, 1, 1)) == [0, 1]


@pytest.mark.parametrize("total", [0, 2, 5], ids=str)
async def test_a_total_that_is_too_small(total: int) -> None:
    """A total below what is seen to be there loses nothing: full pages go on."""
    listing = Listing(*range(8))
    listing.total = lambda: total
    assert await walk(listing) == list(range(8))


async def test_a_page_of_what_was_pushed_on() -> None:
    """When exactly a page of new items comes in between, the page of those seen already does not end the walk."""
    listing = Listing(*range(9))
    listing.changes[2] = lambda: listing.add(100, 101, 102)
    assert await walk(listing) == list(range(9))


async def test_an_error_ends_the_walk() -> None:
    """What a fetch raises reaches the caller, after the items before it."""
    listing = Listing(*range(9))

    def fail() -> None:
        raise RuntimeError("cut off")

    listing.changes[2] = fail
    seen: list[int] = []

    async def note() -> None:
        async for item in listing.pager:
            seen.append(item.id)  # noqa: PERF401 # what was seen before the error matters

    with pytest.raises(RuntimeError, match="cut off"):
        await note()
    assert seen == [0, 1, 2]
