"""Placeholders in a ComfyUI graph: finding them, filling them in, and telling a graph that cannot run."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs

_PLACEHOLDER = re.compile(r"\$(text|choice|file|random|timestamp)\((.*)\)", re.DOTALL)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_OPTIONS = range(2, 5)


@attrs.frozen
class Placeholder:
    """One placeholder; `kind` is text, choice, file, random or timestamp."""

    kind: str
    name: str = ""
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Return the name of the form field that carries its value."""
        return f"#{self.name}" if self.kind == "choice" else f"${self.name}"

    @property
    def token(self) -> str:
        """Return the name under which the API stores its value."""
        return f"#choice({self.name})" if self.kind == "choice" else f"${self.kind}({self.name})"


def parse_placeholder(text: str) -> Placeholder | None:
    """Return the placeholder that `text` is as a whole, or None."""
    found = _PLACEHOLDER.fullmatch(text) if text.startswith("$") else None
    if found is None:
        return None
    kind, inside = found.groups()
    if kind in ("random", "timestamp"):
        return None if inside.strip() else Placeholder(kind)
    name, *rest = (part.strip() for part in inside.split(","))
    if not name:
        return None
    return Placeholder(kind, name, tuple(rest) if kind == "choice" else ())


def find_placeholders(graph: Any) -> list[Placeholder]:
    """Return the placeholders that need a value, in the order of the graph, each once."""
    found = dict.fromkeys(filter(None, map(parse_placeholder, _strings(graph))))
    return [placeholder for placeholder in found if placeholder.name]


def substitute(graph: Any, value_of: Callable[[Placeholder], Any]) -> Any:
    """Return a copy of `graph` with every placeholder replaced by what `value_of` gives for it."""
    if isinstance(graph, dict):
        return {key: substitute(value, value_of) for key, value in graph.items()}
    if isinstance(graph, list):
        return [substitute(value, value_of) for value in graph]
    placeholder = parse_placeholder(graph) if isinstance(graph, str) else None
    return graph if placeholder is None else value_of(placeholder)


def graph_fault(graph: dict[str, Any]) -> str | None:
    """Return why a graph is invalid: not in API format, or with a placeholder that breaks the rules."""
    if not graph:
        return "the graph has no nodes"
    for node_id, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return f"node {node_id!r} is not in API format"
        if not isinstance(node.get("inputs"), dict):
            return f"node {node_id!r} has no inputs"
    for placeholder in find_placeholders(graph):
        if placeholder.kind == "choice" and len(placeholder.choices) not in _OPTIONS:
            return f"{placeholder.token} needs 2 to 4 options"
    return None


def bad_file_names(graph: dict[str, Any]) -> list[str]:
    """Return the names in $file(...) that the API does not allow."""
    names = (placeholder.name for placeholder in find_placeholders(graph) if placeholder.kind == "file")
    return [name for name in names if not _FILE_NAME.fullmatch(name)]


def output_nodes(graph: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the nodes that write an image, in the order of the graph."""
    for node_id, node in graph.items():
        kind = node.get("class_type", "") if isinstance(node, dict) else ""
        if kind == "PreviewImage" or kind.startswith("Save"):
            yield node_id, node


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
