"""Pacing: bursts as documented, and what every known edge lets through after a 429 that cannot be explained."""

import itertools

import pytest

from comfycontrol_async.limits._pacing import QUIET, Pacing, PacingMode

NEVER = float("-inf")
PERIOD = 10.0


def go(pacing: Pacing, start: float, end: float) -> list[float]:
    """Return when requests go that are wanted all the time, looking every time when told to."""
    times = []
    now = start
    while now < end:
        ready = pacing.ready_at(now)
        if ready <= now:
            times.append(now)
            pacing.granted(now)
        else:
            now = ready
    return times


def worst_estimate(times: list[float], at: float, period: float = PERIOD) -> float:
    """Return the most that an edge with two buckets can count with the arrival of `at`, wherever its buckets begin."""
    known = [time for time in times if time <= at]
    boundaries = {at, *(time + shift for time in known for shift in (0.0, 1e-9, period, period + 1e-9))}
    worst = 0.0
    for boundary in boundaries:
        if at - period < boundary <= at:
            previous = sum(boundary - period <= time < boundary for time in known)
            current = sum(boundary <= time for time in known)
            worst = max(worst, previous * (1 - (at - boundary) / period) + current)
    return worst


@pytest.mark.parametrize(
    ("mode", "granted", "smooth"),
    [
        ("burst", 1000, False),
        ("smooth", 1000, True),
        ("smooth", 0, True),
        ("auto", 1000, True),
        ("auto", 41, True),
        ("auto", 40, False),
        ("auto", 0, False),
    ],
)
def test_after_a_refusal(mode: PacingMode, granted: int, smooth: bool) -> None:
    """Only `auto` changes its way, and only when our own count cannot explain the 429."""
    pacing = Pacing(mode, 40, PERIOD)
    before = pacing.smooth(0.0)
    assert before is (mode == "smooth")
    assert pacing.refused(0.0, granted) is (smooth and not before)
    assert pacing.smooth(1.0) is smooth


def test_quiet_time() -> None:
    """Bursts come back after an hour without a 429; each 429 starts the hour anew."""
    pacing = Pacing("auto", 40, PERIOD)
    assert pacing.refused(0.0, 1000)
    assert not pacing.refused(1000.0, 1000)
    assert pacing.smooth(QUIET)
    assert pacing.smooth(1000.0 + QUIET - 1)
    assert not pacing.smooth(1000.0 + QUIET)
    assert pacing.ready_at(1000.0 + QUIET) == NEVER
    assert pacing.expected(1000.0 + QUIET, 100) == NEVER


def test_bursts_are_not_held_back() -> None:
    """In the way of bursts, the window alone decides."""
    pacing = Pacing("burst", 40, PERIOD)
    assert pacing.ready_at(5.0) == pacing.expected(5.0, 1000) == NEVER


def test_worked_example() -> None:
    """The numbers of the module's docstring hold."""
    times = go(Pacing("smooth", 40, PERIOD), 0.0, 30.0)
    assert times[:39] == [0.0] * 39
    assert times[39] == pytest.approx(10.256, abs=0.001)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times[39:])]
    assert min(gaps) == pytest.approx(PERIOD / 39)
    assert sum(sorted(gaps)[:-2]) / (len(gaps) - 2) == pytest.approx(PERIOD / 38, abs=0.01)


def test_from_idleness_at_once() -> None:
    """After two idle periods as much as ever may go at once, and little use never waits."""
    pacing = Pacing("smooth", 40, PERIOD)
    pacing.refused(0.0, 1000)
    assert len(go(pacing, 20.1, 20.2)) == 39
    pacing = Pacing("smooth", 40, PERIOD)
    for second in range(100):
        assert pacing.ready_at(float(second)) <= second
        pacing.granted(float(second))


def test_after_a_cooldown() -> None:
    """When the gate opens ten seconds after a 429, requests start at the steady rate."""
    pacing = Pacing("auto", 40, PERIOD)
    pacing.refused(0.0, 1000)
    times = go(pacing, 10.002, 60.0)
    assert times[0] == pytest.approx(10.25, abs=0.05)
    assert len(times) >= 50 * 3.75
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > 0.2


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 10, 40])
@pytest.mark.parametrize("pattern", ["saturated", "waves", "trickle and burst"])
def test_safe_for_every_boundary(limit: int, pattern: str) -> None:
    """No edge that counts in two buckets can count more than the limit, one in hand, wherever its buckets begin."""
    pacing = Pacing("smooth", limit, PERIOD)
    spans = {
        "saturated": [(0.0, 65.0)],
        "waves": [(0.0, 3.0), (7.0, 11.0), (18.0, 19.0), (33.0, 41.0), (61.0, 62.0)],
        "trickle and burst": [*((second, second + 0.01) for second in range(0, 15, 2)), (15.0, 28.0)],
    }[pattern]
    times: list[float] = []
    for start, end in spans:
        times += go(pacing, start, end)
    spare = limit - 1 if limit > 3 else limit
    assert max(worst_estimate(times, at) for at in times) <= spare + 1e-6
    if pattern == "saturated":
        assert len(times) >= (65.0 / PERIOD - 1) * max(limit - 2, limit / 2)


def test_look_costs_in_proportion_to_the_limit() -> None:
    """Grants of more than two periods ago are forgotten."""
    pacing = Pacing("smooth", 40, PERIOD)
    go(pacing, 0.0, 200.0)
    assert len(pacing._log) <= 2 * 40


def test_estimate() -> None:
    """A newcomer's wait is estimated from the steady rate."""
    pacing = Pacing("smooth", 40, PERIOD)
    assert len(go(pacing, 0.0, 0.1)) == 39
    assert pacing.expected(0.0, 0) == pytest.approx(10.0, abs=0.3)
    assert pacing.expected(0.0, 38) == pytest.approx(20.0, abs=0.3)
