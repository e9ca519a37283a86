"""Placeholders: `$text(prompt)` and its kin in a graph's strings, and the form fields that fill them.

A placeholder is a whole JSON string; the service leaves it alone inside a longer one, and then ComfyUI sees the
`$text(...)` itself. Where the service's documentation is silent, this is how they are read:

    $text(prompt, a cat (grey), asleep)   name "prompt", default "a cat (grey), asleep": all from the first comma
    $choice(sampler, euler, ddim)         name "sampler", options "euler" and "ddim", of which the first is the default
    $file(image)                          name "image", which is never optional
    $random(), $timestamp()               filled in by the service; no parameters

One name is one parameter, wherever it stands. On the wire a text and a file are the field `$name`, a choice is
`#name`; callers write the plain name, so one name should not have two kinds.
"""

import difflib
import math
import numbers
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph._file import File

Severity = Literal["error", "warning"]
ParameterKind = Literal["text", "choice", "file"]
ParameterValue = str | int | float | bool | File | Path | bytes
Field = tuple[str, str | File]
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
JsonPath = tuple[str | int, ...]

_CALL = re.compile(r"\$([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
_KNOWN = re.compile(r"\$(?:text|choice|file|random|timestamp)\(")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_NOT_IN_NAMES = re.compile(r'["()\x00-\x1f\x7f]')
_CLOSED_EARLY = re.compile(r"[^(]*\)")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN_ERRORS = 3


@attrs.frozen
class GraphIssue:
    """Something wrong with a graph or its parameters.

    `place` is `"node.input"`, or `"node"`, or `""` for the graph or the parameters as a whole. An error stops a
    submit, a warning is logged. `str()` is one line.
    """

    severity: Severity
    place: str
    message: str

    def __str__(self) -> str:
        return " ".join((f"{self.place}: {self.message}" if self.place else self.message).split())


@attrs.frozen(kw_only=True)
class Parameter:
    """A value that a graph asks for.

    Attributes:
        name: the plain name, without `$` or `#`.
        kind: "text", "choice" or "file".
        default: what is sent when it is left out; None when it has to be given. A choice's is its first option.
        choices: the options of a choice, else empty.
        places: where it stands, such as `"5.seed"` or `"5.options[0]"`, in order of appearance.
    """

    name: str
    kind: ParameterKind
    default: str | None = None
    choices: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is None

    @property
    def field(self) -> str:
        """The form field that carries it."""
        return ("#" if self.kind == "choice" else "$") + self.name


Finding = tuple[Severity, str]
Reading = tuple[Parameter | None, Finding | None]

_NOT_WHOLE: Finding = (
    "error",
    "a placeholder must be the whole value: nothing may stand before or after it, nor another one inside it",
)


def shown(value: object) -> str:
    """Return the repr of a value, short enough for an error text."""
    try:
        text = repr(value[:60]) if isinstance(value, (str, bytes)) else reprlib.repr(value)
    except Exception:  # a caller's own type, or a number too long to write out: what is wrong must still be said
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:59] + "…"


def hint(name: str, names: Iterable[str]) -> str:
    """Return the end of a text that says a name is unknown: the nearest names, or else those there are."""
    known = list(dict.fromkeys(names))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(map(shown, near))}?"
    return f"; there are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}" if known else "; there are none"


def has_surrogate(text: str) -> bool:
    """Tell whether a text holds half a surrogate pair, which UTF-8 cannot carry."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def raise_errors(issues: Sequence[GraphIssue]) -> None:
    """Raise the errors among the issues, if there are any, as one that names the first of them."""
    errors = [issue for issue in issues if issue.severity == "error"]
    if not errors:
        return
    texts = [text if len(text) <= 200 else text[:199] + "…" for text in map(str, errors[:_SHOWN_ERRORS])]
    if len(errors) > _SHOWN_ERRORS:
        texts.append(f"and {len(errors) - _SHOWN_ERRORS} more in .issues")
    head = f"{len(errors)} problems: " if len(errors) > 1 else ""
    raise GraphError(head + "; ".join(texts), issues=issues)


def place_of(path: JsonPath) -> str:
    """Name a path as people do: ("5", "inputs", "options", 0) is "5.options[0]"."""
    parts = path[:1] + path[2:] if len(path) > 2 and path[1] == "inputs" else path
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def refusal(path: JsonPath, message: str) -> GraphError:
    """Make the error for one issue that stops everything."""
    issue = GraphIssue("error", place_of(path), message)
    return GraphError(str(issue), issues=(issue,))


def strings_in(value: Json, path: JsonPath) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every string in a value."""
    if isinstance(value, str):
        yield place_of(path), value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings_in(item, (*path, key))


def parse(text: str) -> Reading:
    """Read one string of a graph.

    Returns:
        The parameter it asks for, with no places, and what is wrong with it. An ordinary text, `$random()` and
        `$timestamp()` ask for nothing.
    """
    call = _CALL.fullmatch(text)
    if call is None:
        known = _KNOWN.search(text)
        if known is None:
            return None, None
        closed = known.start() > 0 or ")" in text
        return None, _NOT_WHOLE if closed else ("error", f"{shown(text)} has no closing parenthesis")
    function, inside = call.groups()
    if _KNOWN.search(inside):
        return None, _NOT_WHOLE
    if function in _READERS:
        return _READERS[function](inside)
    return None, ("warning", f"${function}(...) is no placeholder of the service{hint(function.lower(), _READERS)}")


def _read_text(inside: str) -> Reading:
    name, comma, default = (part.strip() for part in inside.partition(","))
    fault = _name_fault("$text", name)
    return (None, fault) if fault else (Parameter(name=name, kind="text", default=default if comma else None), None)


def _read_choice(inside: str) -> Reading:
    name, *options = (part.strip() for part in inside.split(","))
    fault = _NOT_WHOLE if _CLOSED_EARLY.match(inside) else _name_fault("$choice", name)
    if fault:
        return None, fault
    if not 2 <= len(options) <= 4:
        fault = ("error", f"$choice({name}, ...) needs 2 to 4 options, but has {len(options)}")
    elif "" in options:
        fault = ("error", f"$choice({name}, ...) has an empty option")
    elif len(set(options)) < len(options):
        fault = ("warning", f"$choice({name}, ...) has an option twice")
    # A faulty one is kept as a parameter, so that a value given for it is not called unknown on top of that.
    return Parameter(name=name, kind="choice", default=next(iter(options), None), choices=tuple(options)), fault


def _read_file(inside: str) -> Reading:
    name = inside.strip()
    if not name:
        return None, _name_fault("$file", name)
    fault: Finding | None = None
    if not _FILE_NAME.fullmatch(name):
        better = re.sub(r"[^A-Za-z0-9]+", "_", name)[:40].strip("_") or "image"
        rule = 'letters, digits, "-" and "_", at most 255'
        fault = ("error", f"the service takes no file named {shown(name)}, only {rule}; such as $file({better})")
    return Parameter(name=name, kind="file"), fault


def _read_nothing(inside: str) -> Reading:
    if ")" in inside:
        return None, _NOT_WHOLE
    fault: Finding = ("error", "$random() and $timestamp() take nothing between their parentheses")
    return None, fault if inside.strip() else None


def _name_fault(function: str, name: str) -> Finding | None:
    if not name:
        return "error", f"{function}() needs a name between its parentheses"
    if ")" in name:
        return _NOT_WHOLE
    bad = _NOT_IN_NAMES.search(name)
    return ("error", f"the name {shown(name)} holds {bad[0]!r}, which no form field can have") if bad else None


_READERS: dict[str, Callable[[str], Reading]] = {
    "text": _read_text,
    "choice": _read_choice,
    "file": _read_file,
    "random": _read_nothing,
    "timestamp": _read_nothing,
}


def collect(strings: Iterable[tuple[str, str]]) -> tuple[tuple[Parameter, ...], list[GraphIssue]]:
    """Gather the parameters of a graph from its (place, string) pairs, in order of first appearance."""
    found: dict[tuple[str, ParameterKind], Parameter] = {}
    issues: list[GraphIssue] = []
    for place, text in strings:
        new, finding = parse(text)
        if finding:
            issues.append(GraphIssue(finding[0], place, finding[1]))
        if new is None:
            continue
        old = found.get((new.name, new.kind))
        clashes = _clashes(new, found.values()) if old is None else _differences(old, new)
        issues.extend(GraphIssue(severity, place, message) for severity, message in clashes)
        if old is not None:
            new = attrs.evolve(old, default=new.default if old.default is None else old.default)
        found[new.name, new.kind] = attrs.evolve(new, places=(*new.places, place))
    return tuple(found.values()), issues


def _differences(old: Parameter, new: Parameter) -> list[Finding]:
    """Say where two placeholders of one name and kind do not agree; the first one counts."""
    if old.choices != new.choices:
        return [("warning", f'choice "{old.name}" has other options than at {old.places[0]}, which count')]
    if old.default != new.default and old.default is not None and new.default is not None:
        return [("warning", f'text "{old.name}" has another default than before ({shown(old.default)}), which counts')]
    return []


def _clashes(new: Parameter, others: Iterable[Parameter]) -> list[Finding]:
    """Say which parameters of another kind have the same name; only a text and a choice can share a value."""
    findings: list[Finding] = []
    for other in others:
        if other.name == new.name and "file" in (other.kind, new.kind):
            text = f'{new.kind} "{new.name}" has the name of the {other.kind} at {other.places[0]}: rename one of them'
            findings.append(("error", text))
        elif other.name == new.name:
            text = f'one value for "{new.name}" fills this {new.kind} and the {other.kind} at {other.places[0]}'
            findings.append(("warning", text))
    return findings


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
