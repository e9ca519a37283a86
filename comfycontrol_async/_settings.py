"""Settings: our version, the environment's names, and how numbers and durations are checked, for every room."""

import math
from typing import Any, TypeVar

from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError

# The build reads it from here too.
__version__ = "0.1.0"

TOKEN_VARIABLE = "COMFYCONTROL_API_TOKEN"
BASE_URL_VARIABLE = "COMFYCONTROL_BASE_URL"
# local | file[:path] | redis://..., each with ?limit=40&period=10
LIMITER_VARIABLE = "COMFYCONTROL_LIMITER"
# debug | info
LOG_VARIABLE = "COMFYCONTROL_LOG"

T = TypeVar("T")

# Which error a refused value is: a setting of an object that is made, or an argument of a call.
Refusal = type[ConfigurationError] | type[InvalidArgumentError]


def is_number(value: object) -> bool:
    """Return True if it is a number that durations can be made of: neither a boolean nor NaN, and a float can hold it.

    Infinity is a number.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return not math.isnan(value)
    except OverflowError:  # an int beyond every float
        return False


def check_seconds(what: str, value: Any, error: Refusal, *, positive: bool = False, finite: bool = False) -> float:
    """Return a number of seconds that is at least 0, or above it, and finite where that is asked for.

    Raises:
        ConfigurationError, InvalidArgumentError: it is not; which of them, `error` says.
    """
    if is_number(value) and (value > 0 or (value == 0 and not positive)) and (value < math.inf or not finite):
        return float(value)
    kind = ", ".join(word for word, wanted in (("positive", positive), ("finite", finite)) if wanted)
    article = f"a {kind} number" if kind else "a number"
    raise error(f"{what} must be {article} of seconds{'' if positive else ' from 0'}, not {_shown(value)}")


def check_count(what: str, value: Any, error: Refusal, *, least: int = 0, most: int | None = None) -> int:
    """Return a whole number from `least` to `most`.

    Raises:
        ConfigurationError, InvalidArgumentError: it is not; which of them, `error` says.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return value
    span = f"a whole number from {least}" if most is None else f"from {least} to {most}"
    raise error(f"{what} must be {span}, not {_shown(value)}")


def check_kind(what: str, value: Any, kind: type[T], error: Refusal, *, example: str = "") -> T:
    """Return a value that is an instance of `kind`.

    Raises:
        ConfigurationError, InvalidArgumentError: it is not; which of them, `error` says. The value, which may be a
            secret in the wrong place, is not quoted.
    """
    if isinstance(value, kind):
        return value
    hint = f", such as {example}" if example else ""
    raise error(f"{what} must be a {kind.__name__}{hint}, not {type(value).__name__}")


def _shown(value: object) -> str:
    """Return a value as an error quotes it, cut; texts may be anything, and long."""
    try:
        text = repr(value)
    except Exception:  # also an int too long to be printed
        text = f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:59]}…"
