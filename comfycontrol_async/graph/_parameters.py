"""Parameters: the form fields that carry values for a graph's placeholders."""

import math
import numbers
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._issues import GraphIssue, hint, shown
from comfycontrol_async.graph._json import has_surrogate
from comfycontrol_async.graph._placeholders import Parameter, ParameterKind

ParameterValue = str | int | float | bool | File | Path | bytes
Field = tuple[str, str | File]


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
            except _RefusedError as refused:
                issues.append(GraphIssue("error", place, f'{kind} "{name}" {refused}'))
        elif complete and parameter.default is not None:
            fields.append((parameter.field, parameter.default))
        elif complete:
            issues.append(GraphIssue("error", place, f'{kind} "{name}" has no default and is missing in params'))
    return tuple(fields), issues


def _unknown_issues(parameters: Sequence[Parameter], given: Iterable[object]) -> list[GraphIssue]:
    names = [parameter.name for parameter in parameters]
    issues = []
    for name in (name for name in given if name not in names):
        text = name if isinstance(name, str) else shown(name)
        plain = text.lstrip("$#")
        advice = f"; leave the sign out: {shown(plain)}" if plain in names and plain != text else hint(text, names)
        issues.append(GraphIssue("error", "", f"the graph has no parameter {shown(name)}{advice}"))
    return issues


def _text_value(parameter: Parameter, value: object) -> str:
    if isinstance(value, str):
        if has_surrogate(value):
            raise _RefusedError("was given half a surrogate pair, which is no text")
        return str.__str__(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, numbers.Real):
        raise _RefusedError(f"takes a str, int, float or bool, but was given {_given(value)}")
    try:
        if isinstance(value, numbers.Integral):
            return str(int(value))
        if math.isfinite(value):
            return repr(float(value))
    except (OverflowError, ValueError):  # more digits than a float holds, or than Python writes out
        raise _RefusedError("was given a number too long to write out") from None
    raise _RefusedError(f"takes no {float(value)}: ComfyUI reads finite numbers only")


def _choice_value(parameter: Parameter, value: object) -> str:
    if isinstance(value, str) and (value in parameter.choices or not parameter.choices):
        return str.__str__(value)
    options = " or ".join(map(shown, parameter.choices))
    given = shown(str.__str__(value)) if isinstance(value, str) else _given(value)
    raise _RefusedError(f"takes {options}, but was given {given}")


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
    return "None: leave it out instead" if value is None else f"{type(value).__name__} {shown(value)}"


_VALUES: dict[ParameterKind, Callable[[Parameter, object], str | File]] = {
    "text": _text_value,
    "choice": _choice_value,
    "file": _file_value,
}
