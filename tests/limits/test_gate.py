"""The gate: nothing passes before its deadline, and the deadline only moves out."""

import pytest

from comfycontrol_async.limits._gate import CooldownGate


def test_open_at_first() -> None:
    """A new gate lets everything through."""
    gate = CooldownGate()
    assert gate.passes(0.0)
    assert gate.remaining(0.0) == 0.0
    assert not gate.open_if_due(0.0)


def test_only_extended() -> None:
    """An earlier deadline changes nothing, a later one counts."""
    gate = CooldownGate()
    assert gate.close(10.0)
    assert not gate.close(5.0)
    assert gate.remaining(0.0) == 10.0
    assert not gate.close(30.0)
    assert gate.remaining(0.0) == 30.0


@pytest.mark.parametrize(("now", "passes"), [(9.999, False), (10.0, True), (11.0, True)])
def test_deadline(now: float, passes: bool) -> None:
    """It passes from its deadline on."""
    gate = CooldownGate()
    gate.close(10.0)
    assert gate.passes(now) is passes


def test_opens_once() -> None:
    """Only one call is told that the gate has opened."""
    gate = CooldownGate()
    gate.close(10.0)
    assert not gate.open_if_due(9.0)
    assert gate.open_if_due(10.0)
    assert not gate.open_if_due(11.0)
    assert gate.close(20.0)
