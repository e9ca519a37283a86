"""The edge: three ways of counting, and the cooldown."""

import random

import pytest

from comfycontrol_async.testing.server._edge import (
    Edge,
    ExactWindow,
    FixedWindow,
    WeightedBuckets,
    make_edge,
    most_in_window,
)


@pytest.mark.parametrize(
    ("counter", "arrivals", "passed"),
    [
        pytest.param(ExactWindow(2, 10), [0, 1, 9.999, 10, 10.5, 11], [1, 1, 0, 1, 0, 1], id="exact"),
        pytest.param(ExactWindow(1, 10), [0, 0, 10, 20], [1, 0, 1, 1], id="exact-of-one"),
        pytest.param(FixedWindow(2, 10), [9, 9, 9, 10, 10, 10], [1, 1, 0, 1, 1, 0], id="fixed-doubles-at-boundary"),
        pytest.param(FixedWindow(1, 10, 3), [2, 2.9, 3, 4, 13], [1, 0, 1, 0, 1], id="fixed-with-phase"),
        pytest.param(WeightedBuckets(4, 10), [0, 1, 2, 3, 4], [1, 1, 1, 1, 0], id="counter-within-bucket"),
        pytest.param(
            WeightedBuckets(4, 10),
            [9, 9, 9, 9, 10, 12.4, 12.5, 12.6, 15],
            [1, 1, 1, 1, 0, 0, 1, 0, 1],
            id="counter-weighs",
        ),
        pytest.param(WeightedBuckets(2, 10), [0, 0, 20, 20, 20], [1, 1, 1, 1, 0], id="counter-forgets-after-two"),
        pytest.param(WeightedBuckets(2, 10, 5), [4, 4, 6, 10, 10], [1, 1, 0, 1, 0], id="counter-with-phase"),
    ],
)
def test_counting(counter: ExactWindow, arrivals: list[float], passed: list[int]) -> None:
    """Each counter lets pass what its rule says, and one too many is not counted."""
    assert [counter.take(now) for now in arrivals] == [bool(it) for it in passed]


def test_counter_punishes_what_an_exact_window_allows() -> None:
    """The worked example: of 40 at second 9, 32 still count at second 12 and 8 more pass."""
    counter = WeightedBuckets(40, 10)
    assert all(counter.take(9.0) for _ in range(40))
    assert [counter.take(12.0) for _ in range(9)] == [True] * 8 + [False]


@pytest.mark.parametrize("kind", ["exact", "counter", "fixed"])
def test_cooldown(kind: str) -> None:
    """One too many closes the edge for the cooldown, which refused arrivals do not prolong, and clears the count."""
    edge = make_edge(kind, 2, 10.0, 5.0)
    assert [edge.admit(now) for now in (1.0, 1.0, 2.0, 3.0, 6.9, 6.99)] == [True, True, False, False, False, False]
    assert edge.cooling(6.5) == pytest.approx(0.5)
    assert [edge.admit(now) for now in (7.0, 7.0, 7.0)] == [True, True, False]
    assert edge.cooling(100.0) == 0.0


def test_without_cooldown() -> None:
    """A cooldown of nothing refuses just the one request."""
    edge = Edge(ExactWindow(1, 10.0), 0.0)
    assert [edge.admit(now) for now in (1.0, 1.0, 1.1)] == [True, False, True]


def test_unknown_edge() -> None:
    """A way of counting that does not exist is named in the error."""
    with pytest.raises(ValueError, match="edge must be 'exact', 'counter' or 'fixed', not 'leaky'"):
        make_edge("leaky", 1, 1.0, 1.0)


@pytest.mark.parametrize(
    ("stamps", "most"),
    [
        pytest.param([], 0, id="none"),
        pytest.param([5.0], 1, id="one"),
        pytest.param([0.0, 10.0], 1, id="a-period-apart"),
        pytest.param([0.0, 9.99, 10.0], 2, id="half-open"),
        pytest.param([0.0, 0.0, 0.0, 30.0], 3, id="together"),
    ],
)
def test_most_in_window(stamps: list[float], most: int) -> None:
    """Windows are half-open."""
    assert most_in_window(stamps, 10.0) == most


def test_most_in_window_agrees_with_brute_force() -> None:
    """The sliding count equals counting every window again."""
    draw = random.Random(1)
    for _ in range(50):
        stamps = sorted(draw.uniform(0, 40) for _ in range(60))
        brute = max(sum(start <= stamp < start + 10.0 for stamp in stamps) for start in stamps)
        assert most_in_window(stamps, 10.0) == brute


def test_exact_window_never_lets_more_pass() -> None:
    """Whatever arrives, what an exact window lets pass has at most `limit` in any period."""
    draw = random.Random(2)
    counter = ExactWindow(5, 10.0)
    now, passed = 0.0, []
    for _ in range(2000):
        now += draw.expovariate(1.0)
        if counter.take(now):
            passed.append(now)
    assert most_in_window(passed, 10.0) == 5
