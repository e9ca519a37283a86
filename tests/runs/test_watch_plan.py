"""What the watcher asks for next."""

from typing import Any

import attrs
import pytest

from comfycontrol_async import WatchPolicy
from comfycontrol_async.runs._watch_plan import MISSES_UNKNOWN, Plan, Waiting, chance_of_end, plan

POLICY = WatchPolicy()
# Ten workflows took 28 to 32 s.
KNOWN = [28.0, 29.0, 29.5, 30.0, 30.0, 30.0, 30.5, 31.0, 31.0, 32.0]


def one(number: int = 0, **options: Any) -> Waiting:
    """Make a workflow that is waited for."""
    known = Waiting(id=f"id-{number}", age=30.0, unseen=30.0, place=number)
    return attrs.evolve(known, **options)


def many(count: int, *, first: int = 0, **options: Any) -> list[Waiting]:
    """Make as many, at the places from `first` on."""
    return [one(first + number, **options) for number in range(count)]


def ask(waiting: list[Waiting], durations: list[float] = KNOWN, *, scarce: bool = False) -> Plan:
    """Plan under the default policy."""
    return plan(waiting, durations, POLICY, scarce=scarce)


class TestFew:
    """One or two that are waited for without a stream."""

    @pytest.mark.parametrize(
        ("age", "unseen", "due"),
        [
            pytest.param(1.0, 1.0, True, id="young-after-min-interval"),
            pytest.param(1.0, 0.8, False, id="young-before"),
            pytest.param(100.0, 4.8, False, id="grows-with-age"),
            pytest.param(100.0, 5.0, True, id="a-twentieth-of-its-age"),
            pytest.param(9000.0, 9.8, False, id="old-before"),
            pytest.param(9000.0, 10.0, True, id="never-longer-than-max-interval"),
        ],
    )
    def test_interval(self, age: float, unseen: float, due: bool) -> None:
        """It is asked for by its id, at intervals from 1 s to 10 s that grow with its age."""
        chosen = ask([one(age=age, unseen=unseen)])
        assert chosen.pages == ()
        assert chosen.ids == (("id-0",) if due else ())

    def test_scarce(self) -> None:
        """While others wait for the limiter it is asked for every 10 s."""
        assert ask([one(age=30.0, unseen=9.8)], scarce=True).ids == ()
        assert ask([one(age=30.0, unseen=10.0)], scarce=True).ids == ("id-0",)

    def test_nobody(self) -> None:
        """Nothing to look for costs nothing."""
        assert ask([]) == Plan(again_in=1.0)


class TestMany:
    """So many that a page serves them better."""

    def test_one_page_for_a_hundred(self) -> None:
        """A hundred that may have ended cost one request."""
        assert ask(many(100)).pages == (1,)
        assert ask(many(100)).ids == ()

    def test_pages_where_something_is_likely(self) -> None:
        """Only the page of those that are old enough to have ended is read."""
        young = many(100, age=10.0, unseen=8.0)
        old = many(100, first=100, age=30.0, unseen=8.0)
        assert ask(young + old).pages == (2,)

    def test_not_worth_it(self) -> None:
        """What cannot have ended is not looked for before four intervals have passed."""
        assert ask(many(100, age=12.0, unseen=11.8)).pages == ()
        assert ask(many(100, age=12.0, unseen=12.0)).pages == (1,)

    def test_may_have_ended_for_long(self) -> None:
        """One that may have ended is looked for when that has been so for an interval, not when it becomes so."""
        assert ask(many(10, age=28.5, unseen=28.5), scarce=True).pages == ()
        assert ask(many(10, age=37.8, unseen=37.8), scarce=True).pages == ()
        assert ask(many(10, age=38.0, unseen=38.0), scarce=True).pages == (1,)

    def test_gain(self) -> None:
        """A look is due when ten are likely to have ended, or twenty while the budget is scarce."""
        # Between 29.5 and 30.4 s of age 3 of the 7 that lasted so long end.
        ripe: dict[str, Any] = {"age": 30.4, "unseen": 0.9}
        assert ask(many(23, **ripe)).pages == ()
        assert ask(many(24, **ripe)).pages == (1,)
        assert ask(many(46, **ripe), scarce=True).pages == ()
        assert ask(many(47, **ripe), scarce=True).pages == (1,)

    def test_free_budget(self) -> None:
        """While no other caller wants anything, ten or more are looked for every 3 s."""
        assert ask(many(10, age=30.0, unseen=2.8), []).pages == ()
        assert ask(many(10, age=30.0, unseen=3.0), []).pages == (1,)

    def test_unknown_durations(self) -> None:
        """Before anything has ended, the longer one was not seen the likelier it is looked for."""
        assert ask(many(100, age=20.0, unseen=2.0), []).pages == ()
        assert ask(many(100, age=20.0, unseen=6.0), []).pages == (1,)


class TestPlaces:
    """Where a workflow is looked for."""

    def test_missed(self) -> None:
        """One that was missed on a page is looked for on the one that it is thought to be on now, at once."""
        waiting = [*many(50, age=10.0, unseen=0.5), one(120, misses=1, age=10.0, unseen=0.5)]
        assert ask(waiting).pages == (2,)

    def test_missed_thrice(self) -> None:
        """After three misses it is asked for by its id."""
        chosen = ask([*many(50, age=10.0, unseen=0.5), one(120, misses=3, unseen=2.0)])
        assert chosen == Plan(ids=("id-120",), again_in=1.0)

    def test_unknown_place(self) -> None:
        """Three or more whose place is unknown are looked for page by page; fewer by their ids."""
        unknown = many(3, place=None)
        assert ask(unknown) == Plan(pages=(1,), again_in=1.0)
        assert ask([attrs.evolve(it, misses=1) for it in unknown]).pages == (2,)
        assert ask([*many(10, unseen=0.5), *many(2, first=10, place=None)]).ids == ("id-10", "id-11")

    def test_unknown_place_given_up(self) -> None:
        """One that was on none of ten pages is asked for by its id."""
        assert ask(many(3, place=None, misses=MISSES_UNKNOWN)).ids == ("id-0", "id-1", "id-2")

    def test_never_before_the_first_page(self) -> None:
        """A place that was estimated wrongly is still on a page."""
        assert ask(many(10, place=-7)).pages == (1,)

    def test_stragglers_are_bounded(self) -> None:
        """A long list of stragglers does not keep the pages waiting: those unseen for longest go first."""
        waiting = [one(number, misses=3, unseen=10.0 + number) for number in range(50)]
        assert ask(waiting).ids == tuple(f"id-{number}" for number in range(49, 41, -1))


@pytest.mark.parametrize(
    ("age", "unseen", "durations", "chance"),
    [
        pytest.param(20.0, 10.0, KNOWN, 0.0, id="too-young"),
        pytest.param(30.0, 10.0, KNOWN, 0.6, id="six-of-ten-ended-by-then"),
        pytest.param(30.0, 0.25, KNOWN, 3 / 7, id="of-those-that-lasted-so-long"),
        pytest.param(32.0, 0.5, KNOWN, 1.0, id="the-last-to-end"),
        pytest.param(30.0, 0.0, KNOWN, 0.0, id="seen-just-now"),
        pytest.param(40.0, 5.0, KNOWN, 0.05, id="older-than-any"),
        pytest.param(30.0, 10.0, KNOWN[:4], 0.125, id="too-few-known"),
    ],
)
def test_chance_of_end(age: float, unseen: float, durations: list[float], chance: float) -> None:
    """The chance comes from what ended before, else from a guess that forgets slowly."""
    assert chance_of_end(one(age=age, unseen=unseen), durations, 1.0) == pytest.approx(chance)


def test_scaled_time() -> None:
    """In a server ten times as fast everything is due ten times as soon."""
    fast = WatchPolicy(min_interval=0.1, max_interval=1.0)
    assert plan([one(age=10.0, unseen=0.5)], [], fast, scarce=False) == Plan(ids=("id-0",), again_in=0.1)
    assert plan([one(age=10.0, unseen=0.48)], [], fast, scarce=False).ids == ()
