"""Numbers and kinds of values, checked in one place."""

import math
from typing import Any

import pytest

from comfycontrol_async import ConfigurationError, InvalidArgumentError, _settings
from comfycontrol_async._http import _logging
from comfycontrol_async._settings import Refusal, check_count, check_kind, check_seconds, is_number


@pytest.mark.parametrize(
    ("value", "number"),
    [
        pytest.param(0, True, id="zero"),
        pytest.param(-1.5, True, id="negative"),
        pytest.param(math.inf, True, id="infinite"),
        pytest.param(math.nan, False, id="nan"),
        pytest.param(True, False, id="boolean"),
        pytest.param("1", False, id="text"),
        pytest.param(None, False, id="none"),
        pytest.param(10**300, True, id="large"),
        pytest.param(10**400, False, id="beyond-every-float"),
    ],
)
def test_is_number(value: object, number: bool) -> None:
    """Booleans and NaN are no numbers that durations can be made of."""
    assert is_number(value) is number


both = pytest.mark.parametrize("error", [ConfigurationError, InvalidArgumentError])


@both
@pytest.mark.parametrize("value", [0, 1, 2.5, math.inf], ids=repr)
def test_seconds(error: Refusal, value: float) -> None:
    """Any number from 0 is a number of seconds, unless it must be positive or finite."""
    assert check_seconds("pause", value, error) == value
    assert type(check_seconds("pause", value, error)) is float


@both
@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        pytest.param(-1, {}, "pause must be a number of seconds from 0, not -1", id="negative"),
        pytest.param("1", {}, "pause must be a number of seconds from 0, not '1'", id="text"),
        pytest.param(None, {}, "pause must be a number of seconds from 0, not None", id="none"),
        pytest.param(0, {"positive": True}, "pause must be a positive number of seconds, not 0", id="zero"),
        pytest.param(math.inf, {"finite": True}, "a finite number of seconds from 0, not inf", id="infinite"),
        pytest.param(
            math.nan, {"positive": True, "finite": True}, "a positive, finite number of seconds, not nan", id="nan"
        ),
        pytest.param("x" * 1000, {}, "not 'x{58}\u2026$", id="long"),
        pytest.param(10**5000, {}, "not a int", id="too-long-to-print"),
    ],
)
def test_seconds_refused(error: Refusal, value: Any, options: dict[str, bool], text: str) -> None:
    """What is refused is named, with what it should be and, cut, what it is."""
    with pytest.raises(error, match=text):
        check_seconds("pause", value, error, **options)


@both
def test_count(error: Refusal) -> None:
    """A whole number between two bounds, or from one on."""
    assert check_count("n", 0, error) == 0
    assert check_count("n", 10**30, error, least=1) == 10**30
    for value in (0, 101, True, 1.0, "1", None):
        with pytest.raises(error, match="n must be from 1 to 100, not "):
            check_count("n", value, error, least=1, most=100)
    with pytest.raises(error, match=r"n must be a whole number from 1, not 0$"):
        check_count("n", 0, error, least=1)


@both
def test_kind(error: Refusal) -> None:
    """A value of a wrong type is refused by the type's name; the value is not shown."""
    assert check_kind("option", 5, int, error) == 5
    with pytest.raises(error, match=r"^option must be a int, such as 5, not str$"):
        check_kind("option", "hunter2", int, error, example="5")


def test_the_command_line_reads_the_same_environment() -> None:
    """It is a client of the public names, and has these names once more."""
    from comfycontrol_async.cli import _execute, _exit_codes

    assert _exit_codes.TOKEN_VARIABLE == _settings.TOKEN_VARIABLE
    assert _execute.BASE_URL_VARIABLE == _settings.BASE_URL_VARIABLE
    assert _execute.LOG_VARIABLE == _settings.LOG_VARIABLE
    assert _execute._LEVELS == _logging._LEVELS
