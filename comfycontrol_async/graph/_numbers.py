"""Numbers of any type, as JSON and as the text of a form field."""

import decimal
import math
import numbers

# Up to here a whole number is written out in digits: seeds go to 2**64 - 1, and one that is too large says so better.
_WRITTEN_OUT = 2.0**64


def number_of(value: object) -> bool | int | float | None:
    """Return a number of any type (numpy's, Decimal, Fraction, enums) as a plain one, None for what is no number.

    A Decimal or Fraction that is whole becomes an int, so that no digit is lost.

    Raises:
        OverflowError, ValueError: a float cannot hold it.
    """
    if isinstance(value, (bool, float)) or type(value) is int:
        return float(value) if isinstance(value, float) else value
    if type(value).__module__ == "numpy":
        return _numpy_number(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if not isinstance(value, (numbers.Real, decimal.Decimal)):
        return None
    near = float(value)
    if math.isinf(near) and value not in (near, -near):
        raise OverflowError("too large for a float")
    if abs(near) > _WRITTEN_OUT:
        return near
    if isinstance(value, numbers.Rational):
        return int(value.numerator) if value.denominator == 1 else near
    return int(value) if isinstance(value, decimal.Decimal) and value == value.to_integral_value() else near


def _numpy_number(value: object) -> bool | int | float | None:
    """Read a scalar of numpy's; by the names of its types, as numpy need not be installed."""
    if type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    # By its text: a float32 of 0.1 is meant as 0.1, not as 0.10000000149011612.
    return float(str(value)) if isinstance(value, numbers.Real) else None


def number_text(number: bool | int | float) -> str:
    """Write a plain number for a form field; a whole float as ComfyUI's INT reads it: "20", not "20.0".

    Raises:
        ValueError: an int of more digits than Python writes out.
    """
    if isinstance(number, bool):
        return "true" if number else "false"
    if isinstance(number, float) and number.is_integer() and abs(number) <= _WRITTEN_OUT:
        return str(int(number))
    return repr(number) if isinstance(number, float) else str(number)
