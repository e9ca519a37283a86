"""Placeholders in a ComfyUI graph: finding them, filling them in, and refusing a graph that cannot run."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import attrs

from comfycontrol_async.graph import NodeDefinitions
from comfycontrol_async.graph._structure_checks import output_issues
from comfycontrol_async.graph._validate import Fault, assume_definitions, needed_by, output_nodes, validate
from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._outputs import inputs_of, is_link

_PLACEHOLDER = re.compile(r"\$(text|choice|file|random|timestamp)\((.*)\)", re.DOTALL)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_OPTIONS = range(2, 5)
_TRIPPED = "exception_during_inner_validation"
_OF_THE_WHOLE = ("invalid_prompt", "prompt_no_outputs")


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


def find_placeholders(graph: dict[str, Any]) -> list[Placeholder]:
    """Return the placeholders that need a value, in the order of the graph, each once."""
    strings = (text for node in graph.values() for text in _strings(inputs_of(node)))
    found = dict.fromkeys(filter(None, map(parse_placeholder, strings)))
    return [placeholder for placeholder in found if placeholder.name]


def substitute(graph: dict[str, Any], value_of: Callable[[Placeholder], Any]) -> dict[str, Any]:
    """Return a copy of `graph` with every placeholder in an input replaced by what `value_of` gives for it."""
    return {
        node_id: {**node, "inputs": _substitute(node["inputs"], value_of)} if inputs_of(node) else node
        for node_id, node in graph.items()
    }


def _substitute(value: Any, value_of: Callable[[Placeholder], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _substitute(item, value_of) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, value_of) for item in value]
    placeholder = parse_placeholder(value) if isinstance(value, str) else None
    return value if placeholder is None else value_of(placeholder)


def graph_fault(graph: dict[str, Any]) -> Failure | None:
    """Return why a graph is invalid, whatever its values: no API format, or a placeholder that breaks the rules."""
    for node_id, node in graph.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            return Failure(node_id, None, "invalid_prompt", f"node {node_id!r} is not in API format")
        if not isinstance(node.get("inputs"), dict):
            # ComfyUI takes it when no output needs the node, and then its worker dies.
            return _refused(graph, node_id, _TRIPPED, f"node {node_id!r} has no inputs")
    for placeholder in find_placeholders(graph):
        if placeholder.kind == "choice" and len(placeholder.choices) not in _OPTIONS:
            return Failure(None, None, "invalid_prompt", f"{placeholder.token} needs 2 to 4 options")
    return None


@attrs.frozen
class Verdict:
    """Why ComfyUI refuses a graph, or else which of its output nodes it leaves out."""

    refusal: Failure | None = None
    left_out: frozenset[str] = frozenset()


def judge(prompt: dict[str, Any], definitions: NodeDefinitions | None, uploaded: Collection[str]) -> Verdict:
    """Return what ComfyUI makes of a graph that is filled in; without definitions, as far as none are needed to know.

    An output that has no fault runs, although another has some. Files that were `uploaded` are there.
    """
    known = assume_definitions(prompt) if definitions is None else definitions
    faults = [fault for fault in validate(prompt, known) if not (fault.on_disk and fault.received in uploaded)]
    outputs = output_nodes(prompt, known)
    if definitions is None and not outputs and may_have_output(prompt):
        faults = []
    broken = {fault.node for fault in faults}
    left_out = frozenset(output for output in outputs if broken & needed_by(prompt, known, output))
    whole = [fault for fault in faults if fault.type in _OF_THE_WHOLE]
    if whole or (faults and len(left_out) == len(outputs)):
        return Verdict(_failure([*whole, *faults][0]))
    return Verdict(deadly_fault(prompt), left_out)


def may_have_output(prompt: dict[str, Any]) -> bool:
    """Return whether a node of a graph may be an output: its class is not known to be none."""
    return not any(issue.severity == "error" for issue in output_issues(prompt))


def deadly_fault(prompt: dict[str, Any]) -> Failure | None:
    """Return a fault of which ComfyUI's worker may die, in nodes that no output needs too, where it does not look."""
    for node_id, node in prompt.items():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and not is_link(value):
                message = f"{name}: a list must be a link [node id, slot]"
                kind = "bad_linked_input" if len(value) != 2 else _TRIPPED
                return _refused(prompt, node_id, kind, message)
            if isinstance(value, list) and value[0] not in prompt:
                return _refused(prompt, node_id, _TRIPPED, f"{name}: there is no node {value[0]!r}")
    return None


def _failure(fault: Fault) -> Failure:
    text = ": ".join(part for part in (fault.message, fault.details) if part)
    return Failure(fault.node or None, fault.class_type or None, fault.type, text)


def _refused(graph: dict[str, Any], node_id: str, kind: str, message: str) -> Failure:
    return Failure(node_id, graph[node_id]["class_type"], kind, message)


def bad_file_names(graph: dict[str, Any]) -> list[str]:
    """Return the names in $file(...) that the API does not allow."""
    names = (placeholder.name for placeholder in find_placeholders(graph) if placeholder.kind == "file")
    return [name for name in names if not _FILE_NAME.fullmatch(name)]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
