"""Pacing: bursts as documented, and what every known edge lets through after a 429 that cannot be explained."""

from typing import Any

import pytest

from comfycontrol_async.limits._pacing import (
    LATE,
    QUIET,
    Pacing,
    after_grants,
    after_refusal,
    is_spread,
    spread_out,
)
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.testing.server._edge import make_edge
from support.limiter_cases import REFUSALS, SPREADS, Refusal, Spread


def rule(pacing: Any, limit: int = 40) -> Rule:
    """Make the service's rule."""
    return Rule(limit, 10.0, pacing)


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.id)
def test_refusals(case: Refusal) -> None:
    """Only `auto` changes its way, and only when our own count cannot explain the first 429 of a cooldown."""
    pacing = Pacing(spread_until=1.0 if case.spread_before else -1.0, granted=case.granted)
    after = after_refusal(rule(case.pacing), pacing, case.gate, 10.0, 0.0)
    assert is_spread(rule(case.pacing), after, 2.0) is case.spread
    assert after.ready_at == 10.0


@pytest.mark.parametrize("case", SPREADS, ids=lambda case: case.id)
def test_spreads(case: Spread) -> None:
    """Nothing goes before gate and pace."""
    one_second = Rule(12, 10.0, "smooth" if case.smooth else "burst")
    assert one_second.pace == 1.0
    assert spread_out(one_second, Pacing(ready_at=case.ready_at), case.moments, case.gate, 0.0) == case.allowed


def test_quiet_time() -> None:
    """Bursts come back after an hour without a 429; each 429 starts the hour again."""
    auto = rule("auto")
    pacing = after_refusal(auto, Pacing(granted=1000), float("-inf"), 10.0, 0.0)
    assert is_spread(auto, pacing, QUIET - 1)
    assert not is_spread(auto, pacing, QUIET)
    pacing = after_refusal(auto, pacing, 10.0, 1010.0, 1000.0)
    assert is_spread(auto, pacing, 1000.0 + QUIET - 1)
    assert not is_spread(auto, pacing, 1000.0 + QUIET)


def test_grants_move_the_pace() -> None:
    """Each grant takes its place in the row; while requests are not spread it only counts."""
    smooth, burst = rule("smooth"), rule("burst")
    pacing = after_grants(smooth, Pacing(), 2, 5.0)
    late = LATE * 10 / 38
    assert pacing.ready_at == pytest.approx(5.0 - late + 2 * 10 / 38)
    assert after_grants(smooth, pacing, 1, pacing.ready_at + 0.01).ready_at == pytest.approx(pacing.ready_at + 10 / 38)
    assert after_grants(smooth, pacing, 1, 60.0).ready_at == pytest.approx(60.0 - late + 10 / 38)
    assert after_grants(burst, Pacing(), 3, 5.0) == Pacing(granted=3)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 10, 40])
def test_safe_for_every_boundary(limit: int) -> None:
    """No edge that counts in two buckets can count more than the limit, wherever its buckets begin."""
    smooth = rule("smooth", limit)
    for phase in range(50):
        edge = make_edge("counter", limit, 10.0, 10.0, phase / 5)
        pacing, now = Pacing(), 0.0
        for _ in range(10 * limit):
            now = max(now, pacing.ready_at)
            assert edge.admit(now)
            pacing = after_grants(smooth, pacing, 1, now)
