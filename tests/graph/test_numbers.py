"""Numbers of any type: what a form field says, and what stands in JSON."""

import decimal
import fractions
import math
from typing import Any

import pytest

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph import Graph
from comfycontrol_async.graph._numbers import number_of, number_text
from support.numpy_like import numpy_like


class Real(fractions.Fraction):
    """A number that is a Real but no float, as numpy's float32 is."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (20.0, "20"),
        (-3.0, "-3"),
        (-0.0, "0"),
        (0.25, "0.25"),
        (1e16, "10000000000000000"),
        (2.0**63, "9223372036854775808"),
        (2.0**64, "18446744073709551616"),
        (1e300, "1e+300"),
        (1e-7, "1e-07"),
        (decimal.Decimal("20.0"), "20"),
        (decimal.Decimal("20"), "20"),
        (decimal.Decimal("2E+1"), "20"),
        (decimal.Decimal("18446744073709551615"), "18446744073709551615"),
        (decimal.Decimal("0.10"), "0.1"),
        (fractions.Fraction(20), "20"),
        (fractions.Fraction(1, 4), "0.25"),
        (numpy_like("float32", Real, "0.1"), "0.1"),
        (numpy_like("float32", Real, "20.0"), "20"),
        (numpy_like("float64", float, "20.0"), "20"),
        (numpy_like("int64", int, "20"), "20"),
        (numpy_like("bool", int, "1"), "true"),
        (True, "true"),
        (False, "false"),
    ],
    ids=repr,
)
def test_a_whole_number_is_sent_without_a_point(value: object, text: str) -> None:
    """ComfyUI's INT reads "20" and refuses "20.0"; its FLOAT reads both."""
    number = number_of(value)
    assert number is not None
    assert number_text(number) == text
    graph = Graph({"1": {"class_type": "SaveImage", "inputs": {"a": "$text(x)"}}})
    assert graph.bind({"x": value}).fields == (("$x", text),)


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal("1e400"), decimal.Decimal("sNaN"), fractions.Fraction(10**400), 10**5000],
    ids=lambda value: f"{type(value).__name__}-{str(value)[:5] if type(value) is decimal.Decimal else 0}",
)
def test_a_number_that_no_float_holds_is_an_error_of_ours(value: Any) -> None:
    """In a graph and in params alike."""
    with pytest.raises(GraphError, match=r"1\.a: this number cannot stand in JSON"):
        Graph({"1": {"class_type": "SaveImage", "inputs": {"a": value}}})
    with pytest.raises(GraphError, match="too long to write out"):
        Graph({"1": {"class_type": "SaveImage", "inputs": {"a": "$text(x)"}}}).bind({"x": value})


@pytest.mark.parametrize("value", [decimal.Decimal("NaN"), decimal.Decimal("-Infinity"), math.nan], ids=repr)
def test_what_is_no_number_of_json_is_refused(value: object) -> None:
    """NaN and the infinities of any type."""
    with pytest.raises(GraphError, match="ComfyUI reads finite numbers only"):
        Graph({"1": {"class_type": "SaveImage", "inputs": {"a": "$text(x)"}}}).bind({"x": value})
    with pytest.raises(GraphError, match=r"1\.a: this number cannot stand in JSON"):
        Graph({"1": {"class_type": "SaveImage", "inputs": {"a": value}}})


@pytest.mark.parametrize("value", ["20", None, b"1", [1], 1j, ...], ids=repr)
def test_other_things_are_no_number(value: object) -> None:
    """A text that holds a number is a text."""
    assert number_of(value) is None
