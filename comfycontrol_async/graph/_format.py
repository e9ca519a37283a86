"""Formats that are no graph in API format: what a mapping is instead, in one sentence that says what to do."""

from collections.abc import Iterator, Mapping

from comfycontrol_async.graph._issues import GraphIssue, JsonPath, place_of
from comfycontrol_async.graph._json import Json, text_of

EXPORT = 'in ComfyUI use "Export (API)", in older versions "Save (API Format)" (with dev mode enabled)'
# Levels. A history entry under its id has 3: {id: {"prompt": [number, id, graph, ...]}}.
_DEEPEST = 4
_MOST_ITEMS = 10_000


def format_issue(nodes: Mapping[str, Json]) -> GraphIssue | None:
    """Say what this is, when it is no graph in API format at all."""
    text = _format_fault(nodes)
    return GraphIssue("error", "", text) if text else None


def _format_fault(nodes: Mapping[str, Json]) -> str:
    if not nodes:
        return f"the graph is empty; {EXPORT}"
    if isinstance(nodes.get("nodes"), list):
        return f"this is ComfyUI's UI format, which cannot be run: {EXPORT}"
    if _is_graph(nodes):
        return ""
    inner = list(_inner(nodes))
    for path, value in inner:
        if isinstance(value, dict) and _is_graph(value):
            return f'this is no graph, but has one inside: use what is under its "{place_of(path)}"'
    for path, value in inner:
        if isinstance(value, dict) and isinstance(value.get("nodes"), list):
            return f'this has ComfyUI\'s UI format inside, under "{place_of(path)}", which cannot be run: {EXPORT}'
    if any(isinstance(node, dict) and isinstance(node.get("input"), dict) for node in nodes.values()):
        return f"this is what a ComfyUI's /object_info answers, the definitions of nodes, not a graph: {EXPORT}"
    count = f"{len(nodes):,} entries" if len(nodes) > 1 else "one entry"
    return f"this is no graph: it has {count}, but none is a node with a class_type; {EXPORT}"


def _is_graph(value: Mapping[str, Json]) -> bool:
    return any(text_of(node, "class_type") for node in value.values())


def _inner(nodes: Mapping[str, Json]) -> Iterator[tuple[JsonPath, Json]]:
    """Yield what stands inside, the outer before the inner; only so many, as a graph has few levels above it."""
    level: list[tuple[JsonPath, Json]] = [((), dict(nodes))]
    left = _MOST_ITEMS
    for _ in range(_DEEPEST):
        below: list[tuple[JsonPath, Json]] = []
        for path, value in level:
            items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
            for key, item in items:
                if left <= 0:
                    return
                left -= 1
                if isinstance(item, (dict, list)):
                    below.append(((*path, key), item))
        yield from below
        level = below
