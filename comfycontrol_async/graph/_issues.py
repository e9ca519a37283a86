"""GraphIssue, and how issues are written: short values, hints, places."""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

from comfycontrol_async.errors import GraphError

Severity = Literal["error", "warning"]
Finding = tuple[Severity, str]
JsonPath = tuple[str | int, ...]

# How many issues of one kind get a hint: finding near names takes a millisecond or more for each.
HINTS = 5
_MANY_NAMES = 1000
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


def shown(value: object) -> str:
    """Return the repr of a value, short enough for an error text."""
    try:
        text = repr(value[:60]) if isinstance(value, (str, bytes)) else reprlib.repr(value)
    except Exception:  # a caller's own type, or a number too long to write out: what is wrong must still be said
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else text[:59] + "…"


def hint(name: str, names: Iterable[str]) -> str:
    """Return the end of a text that says a name is unknown: the nearest names, or else those there are."""
    import difflib  # only for an error's text

    known = list(dict.fromkeys(names))
    near = difflib.get_close_matches(name[:100], known[:_MANY_NAMES], n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(map(shown, near))}?"
    return (
        f"; there are {', '.join(text[:60] for text in known[:10])}{', …' if len(known) > 10 else ''}"
        if known
        else "; there are none"
    )


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
