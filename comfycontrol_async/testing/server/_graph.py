"""Placeholders in a ComfyUI graph: finding them, filling them in, and refusing a graph that cannot run."""

import graphlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._outputs import inputs_of, is_link, links_of

_PLACEHOLDER = re.compile(r"\$(text|choice|file|random|timestamp)\((.*)\)", re.DOTALL)
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_OPTIONS = range(2, 5)
# Core classes that are no output. A graph of these alone has none; any other class may be one.
_INNER_NAMES = """
    CheckpointLoaderSimple CLIPLoader CLIPTextEncode ControlNetApply ControlNetApplyAdvanced ControlNetLoader
    CreateVideo EmptyImage EmptyLatentImage EmptySD3LatentImage ImageAddNoise ImageBatch ImageBlend ImageBlur
    ImageCrop ImageInvert ImageScale ImageScaleBy ImageSharpen KSampler KSamplerAdvanced LatentUpscale LoadImage
    LoadImageMask LoraLoader RepeatImageBatch StringConcatenate StringLength UNETLoader UpscaleModelLoader VAEDecode
    VAEEncode VAELoader
"""
_INNER_CLASSES = frozenset(_INNER_NAMES.split())


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
            return _refused(graph, node_id, "exception_during_inner_validation", f"node {node_id!r} has no inputs")
    for placeholder in find_placeholders(graph):
        if placeholder.kind == "choice" and len(placeholder.choices) not in _OPTIONS:
            return Failure(None, None, "invalid_prompt", f"{placeholder.token} needs 2 to 4 options")
    return None


def prompt_fault(prompt: dict[str, Any]) -> Failure | None:
    """Return why ComfyUI refuses a graph that is filled in, as far as no definitions of nodes are needed to know.

    The types are those of ComfyUI. A link to a node that is absent is refused wherever it is: some of them kill
    ComfyUI's worker.
    """
    if not prompt or all(node["class_type"] in _INNER_CLASSES for node in prompt.values()):
        return Failure(None, None, "prompt_no_outputs", "Prompt has no outputs")
    for node_id, node in prompt.items():
        for name, value in node["inputs"].items():
            if not isinstance(value, list):
                continue
            if not is_link(value):
                message = f"{name}: a list must be a link [node id, slot]"
                kind = "bad_linked_input" if len(value) != 2 else "exception_during_inner_validation"
                return _refused(prompt, node_id, kind, message)
            if value[0] not in prompt:
                message = f"{name}: there is no node {value[0]!r}"
                return _refused(prompt, node_id, "exception_during_inner_validation", message)
    return _loop_fault(prompt)


def _loop_fault(prompt: dict[str, Any]) -> Failure | None:
    feeds = {node_id: set(links_of(node).values()) for node_id, node in prompt.items()}
    try:
        graphlib.TopologicalSorter(feeds).prepare()
    except graphlib.CycleError as error:
        loop = error.args[1]
        return _refused(prompt, loop[0], "dependency_cycle", f"nodes feed each other: {' -> '.join(loop)}")
    return None


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
