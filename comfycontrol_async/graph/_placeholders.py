"""Placeholders: `$text(prompt)` and the other kinds of placeholder in a graph's strings.

A placeholder is a whole JSON string; the service leaves it alone inside a longer one, and then ComfyUI sees the
`$text(...)` itself. Where the service's documentation is silent, this is how they are read:

    $text(prompt, a cat (grey), asleep)   name "prompt", default "a cat (grey), asleep": all from the first comma
    $choice(sampler, euler, ddim)         name "sampler", options "euler" and "ddim", of which the first is the default
    $file(image)                          name "image", which is never optional
    $random(), $timestamp()               filled in by the service; no parameters

One name is one parameter, wherever it stands. On the wire a text and a file are the field `$name`, a choice is
`#name`; callers write the plain name, so one name should not have two kinds.
"""

import re
from collections.abc import Callable, Iterable
from typing import Literal

import attrs

from comfycontrol_async.graph._issues import Finding, GraphIssue, hint, shown

ParameterKind = Literal["text", "choice", "file"]

_CALL = re.compile(r"\$([A-Za-z_]\w*)\((.*)\)", re.DOTALL)
_KNOWN = re.compile(r"\$(?:text|choice|file|random|timestamp)\(")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_NOT_IN_NAMES = re.compile(r'["()\x00-\x1f\x7f]')
_WORD = re.compile(r"\$\{?([A-Za-z_]\w*)|#(choice)\(")
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}
# How a BOOLEAN input reads what a placeholder is filled with.
BOOLEANS = 'a BOOLEAN input takes any text but "" for true: to say false, send ""'
_CLOSED_EARLY = re.compile(r"[^(]*\)")


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
        """The form field that carries it: "$prompt" for a text or file, "#sampler" for a choice (API documentation)."""
        return ("#" if self.kind == "choice" else "$") + self.name


Reading = tuple[Parameter | None, Finding | None]

_NOT_WHOLE: Finding = (
    "error",
    "a placeholder must be the whole value: nothing may stand before or after it, nor another one inside it",
)


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
            return None, _word_fault(text)
        closed = known.start() > 0 or ")" in text
        return None, _NOT_WHOLE if closed else ("error", f"{shown(text)} has no closing parenthesis")
    function, inside = call.groups()
    if _KNOWN.search(inside):
        return None, _NOT_WHOLE
    if function in _READERS:
        return _READERS[function](inside)
    return None, ("warning", f"${function}(...) is no placeholder of the service{hint(function.lower(), _READERS)}")


def holds_placeholder(text: str) -> bool:
    """Tell whether a placeholder of the service stands anywhere in a text."""
    return _KNOWN.search(text) is not None


def service_call(text: str) -> str:
    """Return "random" or "timestamp" for a placeholder that the service fills in by itself, else nothing."""
    call = _CALL.fullmatch(text)
    return call[1] if call and call[1] in ("random", "timestamp") and not call[2].strip() else ""


def _read_text(inside: str) -> Reading:
    name, comma, default = (part.strip() for part in inside.partition(","))
    fault = _name_fault("$text", name)
    if fault:
        return None, fault
    parameter = Parameter(name=name, kind="text", default=default if comma else None)
    return parameter, _value_fault(f"the default of $text({name}, ...)", default)


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
    else:
        fault = _options_fault(f"an option of $choice({name}, ...)", options)
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


def _word_fault(text: str) -> Finding | None:
    """Say when a text begins like a placeholder, `$word`, but is none."""
    word = _WORD.match(text)
    if word is None:
        return None
    if word[2]:
        advice = "the sign is $: write $choice(...)"
    else:
        advice = f"to ask for a value write $text({word[1]})" if word[1] not in _READERS else "parentheses missing"
    return "warning", f"{shown(text)} is sent as it stands, for it is no placeholder; {advice}"


def _value_fault(what: str, value: str) -> Finding | None:
    """Say when a default or an option is hardly meant as it stands."""
    if value.casefold() in ("false", "0"):
        return "warning", f"{what} is {shown(value)}; {BOOLEANS}"
    closing = _QUOTES.get(value[:1])
    if closing and len(value) > 1 and value.endswith(closing) and closing not in value[1:-1]:
        return "warning", f"{what} has quotes around it, which are sent too: leave them out"
    return None


def _options_fault(what: str, options: list[str]) -> Finding | None:
    for option in options:
        if option.count('"') == 1 and option.startswith('"'):
            return "warning", f"{what} begins with a quote, but quotes hold nothing together: commas part the options"
        fault = _value_fault(what, option)
        if fault:
            return fault
    return None


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
    places: dict[tuple[str, ParameterKind], list[str]] = {}
    names: dict[str, list[Parameter]] = {}
    issues: list[GraphIssue] = []
    for place, text in strings:
        new, finding = parse(text)
        if finding:
            issues.append(GraphIssue(finding[0], place, finding[1]))
        if new is None:
            continue
        key = new.name, new.kind
        old = found.get(key)
        if old is None:
            clashes = _clashes(new, names.get(new.name, ()))
            found[key] = attrs.evolve(new, places=(place,))
            names.setdefault(new.name, []).append(found[key])
        else:
            clashes = _differences(old, new)
            if old.default is None and new.default is not None:
                found[key] = attrs.evolve(old, default=new.default)
        places.setdefault(key, []).append(place)
        issues.extend(GraphIssue(severity, place, message) for severity, message in clashes)
    return tuple(attrs.evolve(parameter, places=tuple(places[key])) for key, parameter in found.items()), issues


def _differences(old: Parameter, new: Parameter) -> list[Finding]:
    """Say where two placeholders of one name and kind do not agree; the first one counts."""
    if old.choices != new.choices:
        return [("warning", f'choice "{old.name}" has other options than at {old.places[0]}, which count')]
    if old.default != new.default and old.default is not None and new.default is not None:
        return [("warning", f'text "{old.name}" has another default than before ({shown(old.default)}), which counts')]
    return []


def _clashes(new: Parameter, others: Iterable[Parameter]) -> list[Finding]:
    """Say what is wrong where other kinds have the same name; only a text and a choice can share a value."""
    findings: list[Finding] = []
    for other in others:
        if "file" in (other.kind, new.kind):
            text = f'{new.kind} "{new.name}" has the name of the {other.kind} at {other.places[0]}: rename one of them'
            findings.append(("error", text))
        else:
            text = f'one value for "{new.name}" fills this {new.kind} and the {other.kind} at {other.places[0]}'
            findings.append(("warning", text))
    return findings
