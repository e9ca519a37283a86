"""What is done after an attempt: the table of `_retry`, and the arithmetic of waiting."""

import math
from datetime import UTC, datetime
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfycontrol_async import ConfigurationError, RetryPolicy
from comfycontrol_async._http._request import Repeat
from comfycontrol_async._http._retry import Fate, backoff, parse_date, parse_retry_after, retry_after

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
POLICY = RetryPolicy(attempts=3, max_elapsed=60.0, base_delay=1.0, max_delay=4.0)

AGAIN, AT_ONCE, RAISE = "after a backoff", "through the gate", "raise"

# fate, repeat, attempts so far -> what is done, within the time that is allowed
TABLE = {
    (Fate.NEVER_LEFT, Repeat.SAFE, 1): AGAIN,
    (Fate.NEVER_LEFT, Repeat.SAFE, 2): AGAIN,
    (Fate.NEVER_LEFT, Repeat.SAFE, 3): RAISE,
    (Fate.NEVER_LEFT, Repeat.NEVER, 1): AGAIN,
    (Fate.NEVER_LEFT, Repeat.NEVER, 2): AGAIN,
    (Fate.NEVER_LEFT, Repeat.NEVER, 3): RAISE,
    (Fate.REFUSED, Repeat.SAFE, 1): AT_ONCE,
    (Fate.REFUSED, Repeat.SAFE, 2): AT_ONCE,
    (Fate.REFUSED, Repeat.SAFE, 3): AT_ONCE,
    (Fate.REFUSED, Repeat.NEVER, 1): AT_ONCE,
    (Fate.REFUSED, Repeat.NEVER, 2): AT_ONCE,
    (Fate.REFUSED, Repeat.NEVER, 3): AT_ONCE,
    (Fate.UNKNOWN, Repeat.SAFE, 1): AGAIN,
    (Fate.UNKNOWN, Repeat.SAFE, 2): AGAIN,
    (Fate.UNKNOWN, Repeat.SAFE, 3): RAISE,
    (Fate.UNKNOWN, Repeat.NEVER, 1): RAISE,
    (Fate.UNKNOWN, Repeat.NEVER, 2): RAISE,
    (Fate.UNKNOWN, Repeat.NEVER, 3): RAISE,
    (Fate.FINAL, Repeat.SAFE, 1): RAISE,
    (Fate.FINAL, Repeat.SAFE, 2): RAISE,
    (Fate.FINAL, Repeat.SAFE, 3): RAISE,
    (Fate.FINAL, Repeat.NEVER, 1): RAISE,
    (Fate.FINAL, Repeat.NEVER, 2): RAISE,
    (Fate.FINAL, Repeat.NEVER, 3): RAISE,
}


def decide(
    fate: Fate,
    repeat: Repeat = Repeat.SAFE,
    *,
    attempt: int = 1,
    elapsed: float = 0.0,
    asked: float | None = None,
    chance: float = 0.5,
) -> float | None:
    """Decide by the test's policy."""
    return retry_after(POLICY, fate, repeat, attempt=attempt, elapsed=elapsed, asked=asked, chance=chance)


@pytest.mark.parametrize(
    ("fate", "repeat", "attempt"),
    [pytest.param(*key, id=f"{key[0].value}-{key[1].value}-{key[2]}") for key in TABLE],
)
def test_table(fate: Fate, repeat: Repeat, attempt: int) -> None:
    """Every fate, repeatability, attempt and moment has the decision of the table; nothing is sent after the bound."""
    delays = {RAISE: None, AT_ONCE: 0.0}
    for elapsed in (0.0, 30.0, 57.9, 60.0, 1000.0):
        expected = RAISE if elapsed >= POLICY.max_elapsed else TABLE[fate, repeat, attempt]
        delay = decide(fate, repeat, attempt=attempt, elapsed=elapsed)
        assert delay == delays.get(expected, 0.5 * 2.0 ** (attempt - 1)), elapsed


def test_table_is_whole() -> None:
    """The table has every fate, repeatability and attempt."""
    assert set(TABLE) == set(product(Fate, Repeat, (1, 2, 3)))


@pytest.mark.parametrize(
    ("fate", "elapsed", "asked", "delay"),
    [
        pytest.param(Fate.UNKNOWN, 0.0, 7.0, 7.0, id="longer-than-the-backoff"),
        pytest.param(Fate.UNKNOWN, 0.0, 0.1, 0.5, id="shorter-than-the-backoff"),
        pytest.param(Fate.UNKNOWN, 0.0, 0.0, 0.5, id="none"),
        pytest.param(Fate.UNKNOWN, 53.0, 7.0, 7.0, id="up-to-the-bound"),
        pytest.param(Fate.UNKNOWN, 53.1, 7.0, None, id="beyond-the-bound"),
        pytest.param(Fate.UNKNOWN, 59.9, None, None, id="backoff-beyond-the-bound"),
        pytest.param(Fate.NEVER_LEFT, 0.0, 61.0, None, id="longer-than-all-that-is-allowed"),
        pytest.param(Fate.REFUSED, 59.9, None, 0.0, id="nothing-asked"),
        pytest.param(Fate.REFUSED, 0.0, 30.0, 0.0, id="the-gate-waits"),
        pytest.param(Fate.REFUSED, 0.0, 60.0, 0.0, id="the-gate-waits-up-to-the-bound"),
        pytest.param(Fate.REFUSED, 0.0, 3600.0, None, id="the-gate-would-wait-beyond-the-bound"),
        pytest.param(Fate.REFUSED, 31.0, 30.0, None, id="the-gate-would-end-beyond-the-bound"),
    ],
)
def test_server_asks_for_a_pause(fate: Fate, elapsed: float, asked: float | None, delay: float | None) -> None:
    """The server's Retry-After is a lower bound, and when it passes the upper one the error is raised at once."""
    assert decide(fate, elapsed=elapsed, asked=asked) == delay


@pytest.mark.parametrize(
    ("attempt", "ceiling"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (61, 8.0), (10_000, 8.0)],
)
def test_backoff_doubles_up_to_its_ceiling(attempt: int, ceiling: float) -> None:
    """The pause is uniform between nothing and a ceiling that doubles with each attempt."""
    policy = RetryPolicy()
    assert backoff(policy, attempt, 0.0) == 0.0
    assert backoff(policy, attempt, 0.25) == ceiling / 4
    assert backoff(policy, attempt, 1.0) == ceiling


@given(
    attempt=st.integers(1, 10),
    elapsed=st.floats(0, 1e6),
    asked=st.none() | st.floats(0, 1e6),
    chance=st.floats(0, 1, exclude_max=True),
    fate=st.sampled_from(Fate),
    repeat=st.sampled_from(Repeat),
)
def test_bounds(attempt: int, elapsed: float, asked: float | None, chance: float, fate: Fate, repeat: Repeat) -> None:
    """No decision waits beyond the bound, before the server's moment, or for what may have taken effect."""
    delay = decide(fate, repeat, attempt=attempt, elapsed=elapsed, asked=asked, chance=chance)
    if delay is None:
        return
    assert delay >= 0.0
    assert elapsed + delay <= POLICY.max_elapsed
    assert fate is not Fate.FINAL
    assert (fate, repeat) != (Fate.UNKNOWN, Repeat.NEVER)
    assert fate is Fate.REFUSED or (attempt < POLICY.attempts and delay >= (asked or 0.0))


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(None, None, id="none"),
        pytest.param("", None, id="empty"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("17", 17.0, id="seconds"),
        pytest.param(" 17 ", 17.0, id="blanks"),
        pytest.param("86400", 86400.0, id="a-day"),
        pytest.param("9" * 5000, 1e12, id="more-digits-than-a-number-has"),
        pytest.param("1.5", 1.5, id="fraction"),
        pytest.param("1.", None, id="point-alone"),
        pytest.param(".5", None, id="point-first"),
        pytest.param("-3", None, id="negative"),
        pytest.param("+3", None, id="sign"),
        pytest.param("1_0", None, id="underscore"),
        pytest.param("1e300", None, id="exponent"),
        pytest.param("0x10", None, id="hexadecimal"),
        pytest.param("\u0661\u0662", None, id="other-digits"),
        pytest.param("\u00b2", None, id="superscript"),
        pytest.param("nan", None, id="nan"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("-inf", None, id="minus-infinite"),
        pytest.param("1e400", None, id="too-large"),
        pytest.param("soon", None, id="garbage"),
        pytest.param("17 s", None, id="unit"),
        pytest.param("Mon, 15 Jan 2024 10:30:45 GMT", 45.0, id="date"),
        pytest.param("Mon, 15 Jan 2024 10:29:00 GMT", 0.0, id="date-that-has-passed"),
        pytest.param("Mon, 15 Jan 2024 11:30:30 +0100", 30.0, id="date-with-an-offset"),
        pytest.param("Mon, 15 Jan 2024 10:30:20 -0000", 20.0, id="date-without-a-zone"),
        pytest.param("Monday, 15-Jan-24 10:30:45 GMT", 45.0, id="date-of-rfc-850"),
        pytest.param("Mon, 32 Jan 2024 10:30:45 GMT", None, id="no-such-day"),
        pytest.param("Mon, 15 Jan", None, id="half-a-date"),
        pytest.param("Mon, 15 Jan 2024 10:30:00 +99999999999999999", None, id="offset-beyond-all-numbers"),
        pytest.param("Mon, 15 Jan 2024 99999999999999999999:30:00 GMT", None, id="hour-beyond-all-numbers"),
    ],
)
def test_parse_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read as RFC 9110 has them; what is invalid says nothing."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.text())
def test_parse_retry_after_never_fails(value: str) -> None:
    """Whatever stands in the header, it is a number of seconds that can be waited, or nothing."""
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or (seconds >= 0.0 and math.isfinite(seconds))


def test_parse_date() -> None:
    """A date of HTTP is an aware moment."""
    assert parse_date("Mon, 15 Jan 2024 10:30:00 GMT") == NOW
    assert parse_date("yesterday") is None


# The policy


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"attempts": 0}, id="no-attempt"),
        pytest.param({"attempts": -1}, id="negative-attempts"),
        pytest.param({"attempts": 2.5}, id="half-an-attempt"),
        pytest.param({"attempts": "3"}, id="attempts-as-text"),
        pytest.param({"attempts": True}, id="attempts-as-a-boolean"),
        *(
            pytest.param({name: value}, id=f"{name}-{value!r}")
            for name, value in product(("max_elapsed", "base_delay", "max_delay"), (-0.1, math.nan, "1", None, True))
        ),
    ],
)
def test_policy_refuses_nonsense(options: dict[str, float]) -> None:
    """An invalid number is named."""
    with pytest.raises(ConfigurationError, match=rf"RetryPolicy\.{next(iter(options))} must be"):
        RetryPolicy(**options)  # type: ignore[arg-type] # nonsense on purpose


def test_policy_takes_extremes() -> None:
    """No retries, no waiting and no bound are policies too."""
    assert RetryPolicy() == RetryPolicy(attempts=5, max_elapsed=120.0, base_delay=0.5, max_delay=8.0)
    RetryPolicy(attempts=1, max_elapsed=0, base_delay=0, max_delay=0)
    assert RetryPolicy(max_elapsed=math.inf).max_elapsed == math.inf
