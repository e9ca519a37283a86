"""Slots: a slot is free a period and a guard after its stamp, and never before."""

import pytest

from comfycontrol_async.limits._window import (
    FREE,
    GUARD,
    HELD,
    HOLD_CAP,
    LAPSED,
    LOST_TAIL,
    UNSHARED,
    SlidingWindow,
    Slot,
    getrefcount,
)


def window(limit: int = 2, period: float = 10.0) -> SlidingWindow[Slot]:
    """Make a window of plain slots."""
    return SlidingWindow(limit, period, Slot)


def take(slots: SlidingWindow[Slot], now: float) -> Slot | None:
    """Take a slot if one is free."""
    return slots.take() if slots.slots and slots.slots[0].free_at <= now else None


def taken(slots: SlidingWindow[Slot], now: float) -> Slot:
    """Take a slot that must be free."""
    slot = take(slots, now)
    assert slot is not None
    return slot


def test_worked_example() -> None:
    """The numbers of the module's docstring hold."""
    slots = window(limit=1)
    slots.stamp(taken(slots, 0.0), 0.1)
    assert take(slots, 10.1019) is None
    assert take(slots, 10.102) is not None


def test_slot_in_flight_is_never_free() -> None:
    """A slot without a stamp stays taken however long it lasts."""
    slots = window(limit=1)
    assert taken(slots, 0.0).free_at == HELD
    assert take(slots, 1e9) is None
    assert (slots.held, slots.used(1e9), slots.next_free()) == (1, 1, HELD)


def test_free_in_the_order_of_stamps() -> None:
    """Slots come free in the order of their answers, not of their sending."""
    slots = window()
    first, second = taken(slots, 0.0), taken(slots, 0.0)
    slots.stamp(second, 0.5)
    slots.stamp(first, 0.7)
    assert [slot.free_at for slot in slots.slots] == [pytest.approx(10.502), pytest.approx(10.702)]
    assert slots.next_free() == pytest.approx(0.5 + 10.0 + GUARD)


def test_refund_is_free_at_once() -> None:
    """A refunded slot can be taken in the same moment, before those that are not free yet."""
    slots = window()
    slots.stamp(taken(slots, 0.0), 0.0)
    slots.refund(taken(slots, 0.0))
    assert take(slots, 0.0) is not None
    assert take(slots, 0.0) is None


def test_lost_has_a_tail() -> None:
    """A lost request counts until the last moment at which it can still arrive."""
    slots = window(limit=1)
    slots.lose(taken(slots, 0.0), 2.0 + LOST_TAIL)
    assert slots.next_free() == pytest.approx(13.0 + GUARD)
    assert slots.held == 1
    slots.flush(2.9)
    assert slots.held == 1
    slots.flush(3.0)
    assert slots.held == 0
    assert take(slots, 13.0) is None
    assert take(slots, 13.0 + GUARD) is not None


def test_tail_does_not_disturb_the_order() -> None:
    """Answers that come while a lost request may still arrive come free before it."""
    slots = window()
    slots.lose(taken(slots, 0.0), 1.0)
    slots.stamp(taken(slots, 0.5), 0.6)
    slots.flush(20.0)
    assert [slot.free_at for slot in slots.slots] == [pytest.approx(10.602), pytest.approx(11.002)]


def test_cap_lapses() -> None:
    """A slot that is held too long comes free a period after the cap, and its holder has nothing to give back."""
    slots = window(limit=1)
    slot = taken(slots, 0.0)
    slots.cap(slot, HOLD_CAP)
    slots.flush(HOLD_CAP)
    assert slot.free_at == LAPSED
    assert slots.next_free() == pytest.approx(HOLD_CAP + 10.0 + GUARD)
    assert len(slots.slots) == 1
    assert slots.slots[0] is not slot


def test_cap_of_an_answered_request() -> None:
    """The cap does nothing to a slot that was settled before."""
    slots = window(limit=1)
    slot = taken(slots, 0.0)
    slots.cap(slot, HOLD_CAP)
    slots.stamp(slot, 0.1)
    slots.flush(HOLD_CAP + 1)
    assert [slot.free_at for slot in slots.slots] == [pytest.approx(10.102)]


def test_answer_after_the_cap() -> None:
    """An answer that comes after the cap, before anybody looked, does not double the slot."""
    slots = window(limit=1)
    slot = taken(slots, 0.0)
    slots.cap(slot, HOLD_CAP)
    slots.stamp(slot, HOLD_CAP + 1)
    assert [one.free_at for one in slots.slots] == [pytest.approx(HOLD_CAP + 10.002)]
    assert slot.free_at == FREE


def test_stamp_flushes_before() -> None:
    """What came due before a stamp is queued before it."""
    slots = window()
    slots.lose(taken(slots, 0.0), 1.0)
    slots.stamp(taken(slots, 0.0), 5.0)
    assert [slot.free_at for slot in slots.slots] == [pytest.approx(11.002), pytest.approx(15.002)]


def test_kept_slot_is_not_given_out_again() -> None:
    """Whoever keeps a slot never shares it with the next holder; one that nobody keeps is used again."""
    slots = window(limit=1)
    kept = taken(slots, 0.0)
    slots.stamp(kept, 0.0)
    assert taken(slots, 11.0) is not kept
    slots = window(limit=1)
    before = id(slots.slots[0])
    slot: Slot | None = taken(slots, 0.0)
    assert slot is not None
    slots.stamp(slot, 0.0)
    del slot
    assert id(slots.slots[0]) == before
    assert id(taken(slots, 11.0)) == before


def test_reference_count() -> None:
    """An object that one local variable refers to counts as unshared, and with two it does not."""
    slot = Slot()
    assert getrefcount(slot) <= UNSHARED
    other = slot
    assert getrefcount(slot) > UNSHARED
    del other


def test_renew() -> None:
    """After its loop a window keeps what was charged, and charges what was in flight."""
    slots = window(limit=4)
    slots.stamp(taken(slots, 0.0), 1.0)
    slots.lose(taken(slots, 1.0), 2.0)
    in_flight = taken(slots, 1.0)
    slots.renew(3.0)
    assert slots.used(3.0) == 3
    slots.flush(3.0)
    assert [slot.free_at for slot in slots.slots] == [FREE, pytest.approx(11.002), *[pytest.approx(13.002)] * 2]
    assert all(slot is not in_flight for slot in slots.slots)


def test_charge_all() -> None:
    """When nobody knows what was sent, all of it counts as sent now."""
    slots = window(limit=3)
    taken(slots, 0.0)
    slots.charge_all(5.0)
    assert slots.used(15.0) == 3
    assert slots.used(15.002) == 0


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(0, 5.0), (1, 10.002), (2, 15.002), (3, 15.002), (4, 20.004)],
    ids=["free now", "stamped", "in flight", "second round", "third round of none"],
)
def test_estimate(ahead: int, expected: float) -> None:
    """The estimate is the earliest moment at which a newcomer can go."""
    slots = window(limit=3)
    slots.stamp(taken(slots, 0.0), 0.0)
    taken(slots, 0.0)
    assert slots.free_at(5.0, ahead) == pytest.approx(expected)


@pytest.mark.parametrize(("now", "used"), [(0.0, 2), (10.0, 2), (10.002, 1), (10.5, 1), (11.0, 1)])
def test_used(now: float, used: int) -> None:
    """Used is what is in flight or not free yet."""
    slots = window(limit=3)
    slots.stamp(taken(slots, 0.0), 0.0)
    taken(slots, 0.0)
    assert slots.used(now) == used
