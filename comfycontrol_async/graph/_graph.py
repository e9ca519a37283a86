"""Graph: a ComfyUI graph with placeholders, and every check of it that needs no request.

A graph is what ComfyUI's "Export (API)" writes: node ids mapped to nodes, each a class type and its inputs. An input
is a plain value, a link `["id", slot]` to another node's output, or a string that is a placeholder. A `Graph` holds
only what JSON can say (anything else is refused when it is made), so that what is checked here is what is sent.
"""

import json
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import attrs

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._placeholders import (
    Field,
    GraphIssue,
    Json,
    JsonPath,
    Parameter,
    ParameterKind,
    ParameterValue,
    collect,
    fill,
    has_surrogate,
    hint,
    raise_errors,
    refusal,
    shown,
    strings_in,
)

__all__ = ["BoundGraph", "Graph", "GraphIssue", "Parameter", "ParameterKind", "ParameterValue", "name_of"]

_EXPORT = 'in ComfyUI use "Export (API)", in older versions "Save (API Format)" (with dev mode enabled)'
_NODE_NAMES = (("_meta", "title"), ("class_type",))
_MAX_DEPTH = 100
_OUTPUT_NAME = re.compile("save|preview|(?<!LoadImage)output|export|show|display|videocombine|websocket|upload", re.I)
# ComfyUI's own classes that never are an output; a class that is neither here nor named like one may be anything.
_INNER_CLASSES = """
    BasicGuider BasicScheduler CFGGuider CLIPLoader CLIPTextEncode CLIPTextEncodeSDXL CLIPVisionLoader
    CheckpointLoaderSimple ConditioningCombine ConditioningZeroOut ControlNetApply ControlNetApplyAdvanced
    ControlNetLoader DualCLIPLoader EmptyImage EmptyLatentImage EmptySD3LatentImage FluxGuidance ImageAddNoise
    ImageBatch ImageBlend ImageBlur ImageCompositeMasked ImageCrop ImageInvert ImagePadForOutpaint ImageScale
    ImageScaleBy ImageSharpen ImageToMask ImageUpscaleWithModel KSampler KSamplerAdvanced KSamplerSelect
    LatentUpscale LoadImage LoadImageMask LoadImageOutput LoraLoader LoraLoaderModelOnly MaskToImage
    ModelSamplingFlux ModelSamplingSD3 SamplerCustom SamplerCustomAdvanced SetLatentNoiseMask UNETLoader
    UpscaleModelLoader VAEDecode VAEDecodeTiled VAEEncode VAEEncodeForInpaint VAEEncodeTiled VAELoader
"""
_INNER = frozenset(_INNER_CLASSES.split())


@attrs.frozen(kw_only=True)
class BoundGraph:
    """A graph with a value for every parameter, ready to send.

    Attributes:
        body: the graph as compact JSON, in UTF-8, placeholders and all.
        fields: the form fields, in order of the graph's parameters; every file has a filename.
        warnings: what is odd but may run; for the caller to log.
    """

    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    fields: tuple[Field, ...]
    warnings: tuple[GraphIssue, ...]


class Graph:
    """A ComfyUI graph in API format, which never changes; equal when its JSON is.

    Args:
        nodes: node ids mapped to nodes; it is copied. Numpy's numbers and whole-number ids are taken as well.

    Raises:
        GraphError: `nodes` is no mapping, or holds what JSON cannot say, such as NaN or a path; the text says where.
    """

    __slots__ = ("_alone", "_body", "_nodes", "_parameters")

    def __init__(self, nodes: Mapping[str, object]) -> None:
        if not isinstance(nodes, Mapping):
            raise GraphError(f"a graph maps node ids to nodes, but this is {shown(nodes)}; {_EXPORT}")
        self._nodes = _copy_object(nodes, ())
        # Found out on first use, once: a batch binds one graph thousands of times.
        self._parameters: tuple[Parameter, ...] | None = None
        self._alone: tuple[GraphIssue, ...] = ()
        self._body = b""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a graph from a JSON file; blocking, so call it in a thread.

        Raises:
            GraphError: it cannot be read, or is no JSON object in UTF-8.
        """
        name = repr(str(path))
        try:
            data = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
            if isinstance(data, dict):
                return cls(data)
        except OSError as error:
            raise GraphError(f"cannot read {name}: {error.strerror or error}; check the path") from error
        except UnicodeDecodeError as error:
            raise GraphError(f"{name} is not UTF-8 text; {_EXPORT}") from error
        except (ValueError, RecursionError) as error:
            raise GraphError(f"{name} is not JSON: {error}; {_EXPORT}") from error
        except GraphError as error:
            raise GraphError(f"{name}: {error.message}", issues=error.issues) from error
        raise GraphError(f"{name} holds a {type(data).__name__}, not a JSON object; {_EXPORT}")

    @classmethod
    def coerce(cls, value: object) -> "Graph":
        """Make a graph of a `Graph`, a template, a mapping, or a path; a path is read, so call it in a thread.

        Raises:
            GraphError: it is none of these, or cannot be read.
        """
        graph = getattr(value, "graph", value)
        if isinstance(graph, Graph):
            return graph
        if isinstance(value, Mapping):
            return cls(value)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            raise GraphError("this str is JSON, not a path: pass Graph(json.loads(text)), or the path of a file")
        if isinstance(value, (str, Path)):
            return cls.load(value)
        raise GraphError(f"a graph is a Graph, a Template, a mapping or a path, but this is {shown(value)}")

    @property
    def nodes(self) -> Mapping[str, Mapping[str, Any]]:
        """The nodes by id; read-only, and no list in it is the graph's own."""
        return MappingProxyType({id: _view(node) for id, node in self._nodes.items()})

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the graph asks for, in order of first appearance; one per name and kind."""
        return self._study()[0]

    def set(self, node: str | int, input: str, value: object) -> "Graph":
        """Make a graph in which one input has another value: a plain one, a link or a placeholder.

        Args:
            node: the node's id, or else its title, or else its class type, if no other node has the same.
            input: an input that the node has. One that it has not is taken for a slip: to give a node an input that
                its export left out, change the mapping and make a `Graph` of it.
            value: anything that JSON can say.

        Raises:
            GraphError: no such node or input, or several nodes, or a value that is not JSON.
        """
        id = self._find(str(node))
        found = self._nodes[id]
        inputs = _inputs(found)
        if not isinstance(found, dict) or input not in inputs:
            raise GraphError(
                f"node {id} ({_text(found, 'class_type')}) has no input {shown(input)}{hint(input, inputs)}"
            )
        return Graph({**self._nodes, id: {**found, "inputs": {**inputs, input: value}}})

    def check(self, params: Mapping[str, object] | None = None) -> list[GraphIssue]:
        """List what is wrong with the graph and, when given, with values for its parameters.

        With `params` it looks at the files that are named there, so call it in a thread.
        """
        return self._assess(params)[1]

    def bind(self, params: Mapping[str, object] | None = None) -> BoundGraph:
        """Check everything and make what has to be sent; it looks at files, so call it in a thread.

        Raises:
            GraphError: there are errors; `issues` has them all, and the warnings.
        """
        fields, issues = self._assess({} if params is None else params)
        raise_errors(issues)
        if not self._body:
            self._body = json.dumps(self._nodes, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        return BoundGraph(body=self._body, fields=fields, warnings=tuple(issues))

    def bind_changes(self, params: Mapping[str, object] | None = None) -> tuple[Field, ...]:
        """Make the form fields of only the values given, for a rerun, in which the others stay as they were.

        Raises:
            GraphError: a name is unknown or a value is invalid; `issues` has them all.
        """
        fields, issues = fill(self.parameters, {} if params is None else params, complete=False)
        raise_errors(issues)
        return fields

    def to_json(self) -> str:
        """Write it as JSON for people, which loads back to an equal graph."""
        return json.dumps(self._nodes, ensure_ascii=False, indent=2, allow_nan=False)

    def _assess(self, params: Mapping[str, object] | None) -> tuple[tuple[Field, ...], list[GraphIssue]]:
        parameters, alone = self._study()
        if params is None or _format_issue(self._nodes):
            return (), list(alone)
        fields, issues = fill(parameters, params, complete=True)
        return fields, [*alone, *issues]

    def _study(self) -> tuple[tuple[Parameter, ...], tuple[GraphIssue, ...]]:
        """Find the parameters and the issues of the graph alone."""
        if self._parameters is None:
            strings = (found for id, node in self._nodes.items() for found in strings_in(_inputs(node), (id, "inputs")))
            parameters, issues = collect(strings)
            self._alone = (*_structure_issues(self._nodes), *issues)
            self._parameters = parameters
        return self._parameters, self._alone

    def _find(self, wanted: str) -> str:
        """Find a node's id by id, by title or by class type, in this order."""
        if wanted in self._nodes:
            return wanted
        for keys in _NODE_NAMES:
            found = [id for id, node in self._nodes.items() if wanted and _text(node, *keys) == wanted]
            if len(found) == 1:
                return found[0]
            if found:
                raise GraphError(f"{shown(wanted)} may be any of the nodes {', '.join(found)}: give the id")
        names = [_text(node, *keys) for keys in _NODE_NAMES for node in self._nodes.values()]
        raise GraphError(f"the graph has no node {shown(wanted)}{hint(wanted, [*self._nodes, *filter(None, names)])}")

    def _canonical(self) -> str:
        return json.dumps(self._nodes, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return self._canonical() == other._canonical() if isinstance(other, Graph) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._canonical())

    def __reduce__(self) -> tuple[type["Graph"], tuple[dict[str, Json]]]:
        return type(self), (self._nodes,)

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(parameter.name for parameter in self.parameters))
        count = f"{len(self._nodes)} node{'' if len(self._nodes) == 1 else 's'}"
        return f"<Graph {count}, parameters: {names}>" if names else f"<Graph {count}>"


def name_of(source: object) -> str:
    """Return the name of a workflow that was given none: the file's stem, or "workflow"."""
    stem = Path(source).stem if isinstance(source, (str, Path)) else ""
    return stem[:200] or "workflow"  # 200 characters is the API's limit


def _copy(value: object, path: JsonPath) -> Json:
    """Copy a value as JSON would say it, or refuse what JSON cannot say."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        if has_surrogate(value):
            raise refusal(path, "half a surrogate pair is no text")
        return str.__str__(value)
    if isinstance(value, numbers.Real):
        try:
            number = int(value) if isinstance(value, numbers.Integral) else float(value)
            json.dumps(number, allow_nan=False)
        except (OverflowError, ValueError) as error:
            raise refusal(path, f"this number cannot stand in JSON: {error}") from error
        return number
    if len(path) >= _MAX_DEPTH:
        raise refusal(path[:4], f"it nests deeper than {_MAX_DEPTH} levels, or holds itself")
    if isinstance(value, (list, tuple)):
        return [_copy(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _copy_object(value, path)
    advice = "; put $file(name) there and give the file in params" if isinstance(value, (File, Path, bytes)) else ""
    raise refusal(path, f"a value of type {type(value).__name__} cannot stand in JSON{advice}")


def _copy_object(value: Mapping[Any, object], path: JsonPath) -> dict[str, Json]:
    copied: dict[str, Json] = {}
    for key, item in value.items():
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise refusal(path, f"a key must be a str, but {shown(key)} is not")
        name = str(_copy(key, path))
        if name in copied:
            raise refusal(path, f"the key {shown(name)} is there twice")
        copied[name] = _copy(item, (*path, name))
    return copied


def _view(value: Json) -> Any:
    """Show a value so that nobody can change the graph through it."""
    if isinstance(value, dict):
        return MappingProxyType({key: _view(item) for key, item in value.items()})
    return [_view(item) for item in value] if isinstance(value, list) else value


def _inputs(node: Json) -> dict[str, Json]:
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _text(value: Json, *keys: str) -> str:
    """Return the text under some keys, one within the other, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


class _Link(NamedTuple):
    """An input that takes an output, number `slot`, of the node `source`."""

    place: str
    node: str
    source: str
    slot: int


def _links(nodes: Mapping[str, Json]) -> Iterator[_Link]:
    """Yield the inputs that ComfyUI takes for links: lists of a text and a whole number."""
    for id, node in nodes.items():
        for name, value in _inputs(node).items():
            match value:
                case [str(source), int(slot)] if not isinstance(slot, bool):
                    yield _Link(f"{id}.{name}", id, source, slot)


def _structure_issues(nodes: Mapping[str, Json]) -> list[GraphIssue]:
    """List what is wrong with the graph apart from its placeholders."""
    whole = _format_issue(nodes)
    if whole:
        return [whole]
    links = list(_links(nodes))
    return [*_node_issues(nodes), *_link_issues(nodes, links), *_loop_issues(links), *_output_issues(nodes, links)]


def _format_issue(nodes: Mapping[str, Json]) -> GraphIssue | None:
    """Say what this is, when it is no graph in API format at all."""
    if not nodes:
        return GraphIssue("error", "", f"the graph is empty; {_EXPORT}")
    if isinstance(nodes.get("nodes"), list):
        return GraphIssue("error", "", f"this is ComfyUI's UI format, which cannot be run: {_EXPORT}")
    prompt = nodes.get("prompt")
    if isinstance(prompt, dict) and any(_text(node, "class_type") for node in prompt.values()):
        return GraphIssue("error", "", 'this is a request to ComfyUI, not a graph: use what is under its "prompt"')
    return None


def _node_issues(nodes: Mapping[str, Json]) -> Iterator[GraphIssue]:
    for id, node in nodes.items():
        if not isinstance(node, dict):
            yield GraphIssue("error", id, f"a node is an object with class_type and inputs, but this is {shown(node)}")
            continue
        if not _text(node, "class_type"):
            yield GraphIssue("error", id, f"the node has no class_type; {_EXPORT}")
        if not isinstance(node.get("inputs"), dict):
            yield GraphIssue("error", id, "the node has no inputs object (an empty one will do)")


def _link_issues(nodes: Mapping[str, Json], links: Iterable[_Link]) -> Iterator[GraphIssue]:
    for link in links:
        if link.source not in nodes:
            text = f"it is linked to node {shown(link.source)}, which is absent{hint(link.source, nodes)}"
            yield GraphIssue("error", link.place, text)
        if link.slot < 0:
            yield GraphIssue("error", link.place, f"it is linked to output {link.slot}, but outputs count from 0")


def _loop_issues(links: Iterable[_Link]) -> Iterator[GraphIssue]:
    """Find every link that closes a loop; with its own stack, as a chain may be longer than Python's."""
    taken: dict[str, list[_Link]] = {}
    for link in links:
        taken.setdefault(link.node, []).append(link)
    done: set[str] = set()
    for start in taken:
        on_path = dict.fromkeys([] if start in done else [start])
        walk = [iter(taken[id]) for id in on_path]
        while walk:
            step = next(walk[-1], None)
            if step is None:
                walk.pop()
                done.add(on_path.popitem()[0])
            elif step.source in on_path:
                path = list(on_path)
                loop = " <- ".join([*path[path.index(step.source) :], step.source])
                yield GraphIssue("error", step.place, f"the nodes feed themselves: {loop}")
            elif step.source in taken and step.source not in done:
                on_path[step.source] = None
                walk.append(iter(taken[step.source]))


def _output_issues(nodes: Mapping[str, Json], links: Iterable[_Link]) -> Iterator[GraphIssue]:
    """Say when nothing saves or shows a result; a custom node at an end gets the benefit of the doubt."""
    classes = {id: _text(node, "class_type") for id, node in nodes.items()}
    if any(map(_OUTPUT_NAME.search, classes.values())):
        return
    linked = {link.source for link in links}
    custom = [id for id, name in classes.items() if id not in linked and name not in _INNER]
    if custom:
        ids = ", ".join(custom[:10])
        yield GraphIssue("warning", "", f"no node looks like an output, such as SaveImage; is it one of {ids}?")
    else:
        yield GraphIssue("error", "", "the graph has no output node: add one that saves or shows, such as SaveImage")
