"""Parameters: the form fields that carry values for a graph's placeholders, and what a value may be.

Every value is sent as a text, which ComfyUI casts to the type of the input. Its INT reads "20" but not "20.0", so a
whole number is sent without a point, whatever its type; its BOOLEAN takes any text but "" for true.
"""

import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._issues import HINTS, GraphIssue, hint, shown
from comfycontrol_async.graph._json import has_surrogate
from comfycontrol_async.graph._numbers import number_of, number_text
from comfycontrol_async.graph._placeholders import BOOLEANS, Parameter, ParameterKind

ParameterValue = str | int | float | bool | File | Path | bytes
Field = tuple[str, str | File]

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?", re.I)


class _RefusedError(Exception):
    """A value that a parameter cannot take; the text says why."""


def fill(
    parameters: Sequence[Parameter], params: Mapping[str, object], *, complete: bool
) -> tuple[tuple[Field, ...], list[GraphIssue]]:
    """Make the form fields for `params`, in order of `parameters`. It looks at the files that are named.

    With `complete`, every parameter gets a field, from its default if need be, and is an issue if it has neither.
    """
    if not isinstance(params, Mapping):
        return (), [GraphIssue("error", "", f"params must map names to values, but it is {shown(params)}")]
    fields: list[Field] = []
    issues = _unknown_issues(parameters, params)
    for parameter in parameters:
        name, kind, place = parameter.name, parameter.kind, parameter.places[0]
        if name in params:
            try:
                fields.append((parameter.field, _VALUES[kind](parameter, params[name])))
                if kind == "text" and fields[-1][1] == "false" and not isinstance(params[name], str):
                    issues.append(GraphIssue("warning", place, f'text "{name}" is sent as "false"; {BOOLEANS}'))
            except _RefusedError as refused:
                issues.append(GraphIssue("error", place, f'{kind} "{name}" {refused}'))
        elif complete and parameter.default is not None:
            fields.append((parameter.field, parameter.default))
        elif complete:
            issues.append(GraphIssue("error", place, f'{kind} "{name}" has no default and is missing in params'))
    return tuple(fields), issues


def _unknown_issues(parameters: Sequence[Parameter], given: Iterable[object]) -> list[GraphIssue]:
    names = dict.fromkeys(parameter.name for parameter in parameters)
    issues: list[GraphIssue] = []
    for name in (name for name in given if name not in names):
        text = name if isinstance(name, str) else shown(name)
        plain = text.lstrip("$#")
        if plain in names and plain != text:
            advice = f"; leave the sign out: {shown(plain)}"
        else:
            advice = hint(text, names) if len(issues) < HINTS else ""
        issues.append(GraphIssue("error", "", f"the graph has no parameter {shown(name)}{advice}"))
    return issues


def _text_value(parameter: Parameter, value: object) -> str:
    if isinstance(value, str):
        if has_surrogate(value):
            raise _RefusedError("was given half a surrogate pair, which is no text")
        return str.__str__(value)
    text = _number(value)
    if text is None:
        raise _RefusedError(f"takes a str, int, float or bool, but was given {_given(value)}")
    return text


def _number(value: object) -> str | None:
    """Write a number of any type as the text that is sent, None for what is no number."""
    try:
        number = number_of(value)
        if isinstance(number, float) and not math.isfinite(number):
            raise _RefusedError(f"takes no {number}: ComfyUI reads finite numbers only")
        return None if number is None else number_text(number)
    except (OverflowError, ValueError):  # more digits than a float holds, or than Python writes out
        raise _RefusedError("was given a number too long to write out") from None


def _choice_value(parameter: Parameter, value: object) -> str:
    choices = parameter.choices
    if isinstance(value, str):
        if value in choices or not choices:
            return str.__str__(value)
        given = shown(str.__str__(value))
    else:
        text = None if _too_long(value) else _number(value)
        for option in [text] if text is not None and not choices else choices:
            if text is not None and _says(option, text):
                return option
        given = _given(value)
    raise _RefusedError(f"takes {' or '.join(map(shown, choices))}, but was given {given}")


def _too_long(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 1024


def _says(option: str, text: str) -> bool:
    """Tell whether an option is the number that a text says: "7.0" is 7, "True" is true."""
    if option.casefold() == text:
        return True
    return bool(_NUMBER.fullmatch(option) and _NUMBER.fullmatch(text)) and float(option) == float(text)


def _file_value(parameter: Parameter, value: object) -> File:
    if isinstance(value, str):
        raise _RefusedError(f"takes no str: write Path({shown(value)}) or File({shown(value)}) for a file's path")
    file = File(value) if isinstance(value, (Path, bytes)) else value
    if not isinstance(file, File):
        raise _RefusedError(f"takes a File, Path or bytes, but was given {_given(value)}")
    path = file.path
    if path is not None:
        _look_at(path)
    name = parameter.name if path is None else path.name
    return file if file.filename is not None else attrs.evolve(file, filename=name)


def _look_at(path: Path) -> None:
    """Refuse a path that cannot be a file to upload; blocking."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _RefusedError(f"cannot be read from {str(path)!r}: {reason}") from None
    raise _RefusedError(f"is the directory {str(path)!r}, but must be a file")


def _given(value: object) -> str:
    if isinstance(value, os.PathLike):
        return f"the path {shown(str(value))}"
    return "None: leave it out instead" if value is None else f"{type(value).__name__} {shown(value)}"


_VALUES: dict[ParameterKind, Callable[[Parameter, object], str | File]] = {
    "text": _text_value,
    "choice": _choice_value,
    "file": _file_value,
}
