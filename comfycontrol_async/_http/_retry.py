"""What to do after an attempt: pure decisions from (request, outcome, attempt, elapsed).

    outcome                         GET, PUT, cancel, interrupt     create, rerun
    certainly never left            again                           again
    429                             gate, again                     gate, again
    408, 425, 5xx, or no answer     again, backoff                  raise: the submitter reconciles
    any other error status          raise                           raise

A 429 was certainly not processed, so it is safe to send anything again; the gate times it, and it does not count as an
attempt. Backoff is exponential with full jitter; a server's Retry-After (RFC 9110, 10.2.3) is a lower bound.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum

import attrs

from comfycontrol_async._http._request import Repeat
from comfycontrol_async._settings import check_count, check_seconds
from comfycontrol_async.errors import ConfigurationError

_DIGITS = re.compile(r"([0-9]+)(?:\.[0-9]+)?")
_MOST_DIGITS = 12


class Fate(Enum):
    """What is known of an attempt that did not succeed."""

    NEVER_LEFT = "never left"  # no byte of it reached the server
    REFUSED = "refused"  # 429: the server did not process it
    UNKNOWN = "unknown"  # sent and no usable answer, or a 5xx: it may have taken effect
    FINAL = "final"  # the same again would end the same


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How hard a request is tried.

    `attempts` counts the first one; 429s that the gate absorbs do not count. `max_elapsed` bounds the time from the
    first sending to the last, `base_delay` and `max_delay` the backoff; seconds.

    Raises:
        ConfigurationError: a number is invalid.
    """

    attempts: int = 5
    max_elapsed: float = 120.0
    base_delay: float = 0.5
    max_delay: float = 8.0

    def __attrs_post_init__(self) -> None:
        check_count("RetryPolicy.attempts", self.attempts, ConfigurationError, least=1)
        for name in ("max_elapsed", "base_delay", "max_delay"):
            check_seconds(f"RetryPolicy.{name}", getattr(self, name), ConfigurationError)


def backoff(policy: RetryPolicy, attempt: int, chance: float) -> float:
    """Return the pause after the `attempt`th attempt (from 1); `chance` is uniform in [0, 1)."""
    ceiling = min(policy.max_delay, policy.base_delay * 2.0 ** min(attempt - 1, 60))
    return ceiling * chance


def fate_of(status: int) -> Fate:
    """Return what an error status says of the request's fate.

    408 and 425 (RFC 9110, 15.5.9; RFC 8470, 5.2) say that the server did not wait for it or would not take it yet;
    that it was not processed is not said by all that send them.
    """
    if status == 429:
        return Fate.REFUSED
    return Fate.UNKNOWN if status >= 500 or status in (408, 425) else Fate.FINAL


def retry_after(
    policy: RetryPolicy,
    fate: Fate,
    repeat: Repeat,
    *,
    attempt: int,
    elapsed: float,
    asked: float | None,
    chance: float,
) -> float | None:
    """Decide after a failed attempt: seconds until the next one, or None to give up.

    Args:
        attempt: how many attempts counted so far, this one included.
        elapsed: seconds since the first attempt was sent.
        asked: the server's Retry-After in seconds.
        chance: a random number in [0, 1), for the jitter.
    """
    if fate is Fate.FINAL or elapsed >= policy.max_elapsed:
        return None
    if fate is Fate.REFUSED:
        # The gate does the waiting; what the server asks for counts against the bound all the same.
        return 0.0 if elapsed + (asked or 0.0) <= policy.max_elapsed else None
    if attempt >= policy.attempts or (fate is Fate.UNKNOWN and repeat is Repeat.NEVER):
        return None
    delay = max(backoff(policy, attempt, chance), asked or 0.0)
    return delay if elapsed + delay <= policy.max_elapsed else None


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a Retry-After header, digits or a date (RFC 9110, 10.2.3); None when it says nothing usable.

    `now` is the answer's own Date, so that a clock that is wrong does not matter.
    """
    if value is None:
        return None
    seconds = parse_digits(value)
    if seconds is not None:
        return seconds
    moment = parse_date(value)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def parse_digits(value: str) -> float | None:
    """Read a number of seconds; None when it is anything but digits, such as "1e300", "1_0" or "-1".

    A fraction is read too, which HTTP does not know: a test server that runs fast asks for less than a second.
    """
    found = _DIGITS.fullmatch(value.strip())
    if found is None:
        return None
    # Beyond a float's range it says no more than "very long".
    return float(found[0]) if len(found[1]) <= _MOST_DIGITS else float(10**_MOST_DIGITS)


def parse_date(value: str) -> datetime | None:
    """Read an HTTP date (RFC 9110, 5.6.7) as an aware datetime; None when it is none."""
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
