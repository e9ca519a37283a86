"""What to ask for next, of all that is waited for: pure planning for the watcher.

A look costs requests and tells of everything on the page. So the question is not when each workflow was last seen, but
how many of those that are waited for have probably finished since they were. That number, the gain, is summed from each
one's age now and at its last sighting, over the durations of workflows that ended before:

    p = (F(age now) - F(age at the last sighting)) / (1 - F(age at the last sighting))

A look is due at a gain of 20 while the budget is scarce (little of it is free, or a caller of a higher lane waits for
it), at 10 otherwise; or when a workflow may have ended, as far as is known, for an interval that grows with the age of
the work.

In numbers: 1,000 workflows of 30 s at 4 a second finish at 4 a second too. The gain reaches 20 in 5 s, and in the BULK
lane the look is served up to 2 s later: one look in 6 s tells of 24 endings, which is 0.04 requests per workflow, and
the median one is told some 2 to 3 s after its end.

All times are in seconds; `unit` (`WatchPolicy.min_interval`) stretches the constants for a server in scaled time.
"""

from bisect import bisect_right, insort
from collections.abc import Collection, Sequence

import attrs

from comfycontrol_async._http._config import WatchPolicy

PER_PAGE = 100

# Expected endings that a look is worth.
_GAIN_SCARCE = 20.0
_GAIN_FREE = 10.0
# Durations that have to be known before they are believed, and how many are remembered.
ENOUGH_DURATIONS = 5
_MOST_DURATIONS = 200
# Pages on which a workflow was looked for in vain before it is asked for by its id.
_MISSES = 3
MISSES_UNKNOWN = 10
# A chance of having ended that is no reason to look, and how many times longer such a workflow can wait.
_UNLIKELY = 0.02
_PATIENCE = 4
# From so many on, a look costs each of them next to nothing.
_MANY = 10
# How much too early a look may be: the next plan would be too late by more.
_EARLY = 0.1
# So few are asked for one by one: it costs no more, and tells more.
_FEW = 2
# Ids that are fetched between two plans: a long list of stragglers must not keep the pages waiting.
_MOST_IDS = 8


@attrs.frozen(kw_only=True)
class Waiting:
    """What is known of a workflow that is waited for without a stream.

    `age` is the time since its creation, `unseen` the time since its last sighting (or creation). `place` is its
    estimated place in the listing, 0 for the newest, None when unknown; `misses` counts the pages on which it was
    looked for in vain since.
    """

    id: str
    age: float
    unseen: float
    place: int | None = None
    misses: int = 0


@attrs.frozen(kw_only=True)
class Plan:
    """Listing pages (from 1) to read and ids to fetch now, and when to plan again."""

    pages: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    again_in: float


class Durations:
    """How long workflows took that ended before: sorted, and thinned out when they are many."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: list[float] = []

    def add(self, seconds: float) -> None:
        """Learn one more."""
        insort(self.known, seconds)
        if len(self.known) > _MOST_DURATIONS:
            # Thin out evenly: what is left has the same shape.
            del self.known[::2]

    def expected(self) -> float | None:
        """Return the median, None when too few are known."""
        return self.known[len(self.known) // 2] if len(self.known) >= ENOUGH_DURATIONS else None


def plan(waiting: Collection[Waiting], durations: Sequence[float], policy: WatchPolicy, *, scarce: bool) -> Plan:
    """Choose what to ask for now.

    Args:
        waiting: everything that is waited for without a stream.
        durations: how long workflows took that ended before, sorted.
        scarce: whether the budget is short, or a caller of a higher lane waits for the limiter.
    """
    unit = policy.min_interval
    unknown = sum(one.place is None for one in waiting)
    stragglers: list[Waiting] = []
    gains: dict[int, float] = {}
    listed: list[tuple[Waiting, int]] = []
    for one in waiting:
        page = None if len(waiting) <= _FEW else _page(one, unknown)
        if page is None:
            if _due(one, 1, policy, scarce, ()):
                stragglers.append(one)
        elif one.misses:
            # It was missed on a neighbouring page: look on this one in any case.
            gains[page] = _GAIN_FREE
        else:
            listed.append((one, page))
    chances = [chance_of_end(one, durations, unit) for one, _ in listed]
    overdue = [page for one, page in listed if _due(one, len(listed), policy, scarce, durations)]
    if overdue or sum(chances) >= (_GAIN_SCARCE if scarce else _GAIN_FREE):
        for (_, page), chance in zip(listed, chances, strict=True):
            gains[page] = gains.get(page, 0.0) + chance
        gains.update(dict.fromkeys(overdue, _GAIN_FREE))
    best = max(gains.values(), default=0.0)
    pages = sorted(page for page, gain in gains.items() if gain > 0 and gain >= min(best / 2, _GAIN_FREE))
    stragglers.sort(key=lambda one: -one.unseen)
    return Plan(pages=tuple(pages), ids=tuple(one.id for one in stragglers[:_MOST_IDS]), again_in=unit)


def _due(one: Waiting, count: int, policy: WatchPolicy, scarce: bool, durations: Sequence[float]) -> bool:
    """Tell whether it was not seen for so long that it is looked for whatever the gain."""
    if scarce:
        interval = policy.max_interval
    elif count >= _MANY:
        interval = 3 * policy.min_interval  # a look that serves many is cheap for each of them
    else:
        interval = min(policy.max_interval, max(policy.min_interval, one.age / 20))
    least = interval - _EARLY * policy.min_interval
    if one.unseen < least:
        return False
    # It may have ended for as long, or nothing is known, or even the unlikely is looked at.
    chance = _known_chance(one, durations, one.age - least)
    return chance is None or chance > _UNLIKELY or one.unseen >= least + (_PATIENCE - 1) * interval


def _page(one: Waiting, unknown: int) -> int | None:
    """Return the listing page to look for it on, None to ask for it by its id."""
    if one.place is None:
        return None if unknown <= _FEW or one.misses >= MISSES_UNKNOWN else one.misses + 1
    return None if one.misses >= _MISSES else max(0, one.place) // PER_PAGE + 1


def chance_of_end(one: Waiting, durations: Sequence[float], unit: float) -> float:
    """Estimate the chance that it has ended since it was last seen."""
    if one.unseen <= 0:
        return 0.0
    known = _known_chance(one, durations, one.age)
    # Nothing like it has ended yet: a guess that forgets slowly.
    return 0.5 * one.unseen / (one.age + 10 * unit) if known is None else known


def _known_chance(one: Waiting, durations: Sequence[float], age: float) -> float | None:
    """Estimate the chance that it had ended at that age; None when nothing is known of work as old as this."""
    before = bisect_right(durations, one.age - one.unseen)
    alive = len(durations) - before
    if len(durations) < ENOUGH_DURATIONS or not alive:
        return None
    return (bisect_right(durations, age) - before) / alive
