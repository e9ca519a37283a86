"""Graph: a ComfyUI graph with placeholders, and every check of it that needs no request.

A graph is what ComfyUI's "Export (API)" writes: node ids mapped to nodes, each a class type and its inputs. An input
is a plain value, a link `["id", slot]` to another node's output, or a string that is a placeholder. A `Graph` holds
only what JSON can say (anything else is refused when it is made), so that what is checked here is what is sent.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import attrs

from comfycontrol_async.errors import GraphError, InvalidArgumentError
from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._digest import digest_content, digest_graph
from comfycontrol_async.graph._format import EXPORT, format_issue
from comfycontrol_async.graph._issues import GraphIssue, hint, raise_errors, shown
from comfycontrol_async.graph._json import Json, copy_object, inputs_of, name_links, strings_in, text_of, view
from comfycontrol_async.graph._load import read_graph
from comfycontrol_async.graph._parameters import Field, fill
from comfycontrol_async.graph._placeholders import Parameter, collect
from comfycontrol_async.graph._schema import json_schema
from comfycontrol_async.graph._structure_checks import output_issues, structure_issues

if TYPE_CHECKING:
    from comfycontrol_async.graph._definition_checks import Spot

_SHOWN_NAMES = 20
_NODE_NAMES = (("_meta", "title"), ("class_type",))


@attrs.frozen(kw_only=True)
class BoundGraph:
    """A graph with a value for every parameter, ready to send.

    Attributes:
        body: the graph as compact JSON, in UTF-8, placeholders and all.
        graph_digest: `Graph.digest()` of the graph.
        fields: the form fields, in order of the graph's parameters; every file has a filename.
        warnings: what is odd but may run; for the caller to log.
    """

    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    graph_digest: str = attrs.field(repr=False)
    fields: tuple[Field, ...]
    warnings: tuple[GraphIssue, ...]

    def digest(self) -> str:
        """Return 64 hex digits for what is sent: graph and values, files by their content; blocking, as it reads them.

        Equal whatever the order of nodes and parameters, the titles in `_meta` and the names of files; a value left
        out is the same as its default given. A stream is read from where it stands and set back.

        Raises:
            InvalidArgumentError: a file cannot be read, or is a stream that can be read only once.
        """
        return digest_content(self.graph_digest, self.fields)


@attrs.frozen(eq=False, repr=False)
class _Study:
    """What is found out about a graph once: its parameters and issues, those of its outputs apart.

    `whole` is true when it is no graph at all, which is its only issue.
    """

    parameters: tuple[Parameter, ...]
    issues: tuple[GraphIssue, ...]
    output_issues: tuple[GraphIssue, ...]
    whole: bool


class Graph:
    """A ComfyUI graph in API format, which never changes; equal when its JSON is.

    Args:
        nodes: node ids mapped to nodes; it is copied. Numpy's numbers and whole-number ids are taken as well.

    Raises:
        GraphError: `nodes` is no mapping, or holds what JSON cannot say, such as NaN or a path; the text says where.
    """

    __slots__ = ("_body", "_digest", "_nodes", "_spots", "_studied")

    def __init__(self, nodes: Mapping[str, Any]) -> None:
        if not isinstance(nodes, Mapping):
            raise GraphError(f"a graph maps node ids to nodes, but this is {shown(nodes)}; {EXPORT}")
        self._nodes = copy_object(nodes, ())
        name_links(self._nodes)
        # Found out on first use, once: a batch binds one graph thousands of times.
        self._studied: _Study | None = None
        self._body = b""
        self._digest = ""
        self._spots: tuple[Spot, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a graph from a JSON file, or from a PNG that ComfyUI made; blocking, so call it in a thread.

        A picture keeps the graph that was run, each placeholder already replaced by its value.

        Raises:
            GraphError: it cannot be read, or holds no graph.
        """
        data = read_graph(path)
        try:
            return cls(data)
        except GraphError as error:
            raise GraphError(f"{str(path)!r}: {error.message}", issues=error.issues) from error

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
        return MappingProxyType({id: view(node) for id, node in self._nodes.items()})

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What the graph asks for, in order of first appearance; one per name and kind."""
        return self._study().parameters

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
        inputs = inputs_of(found)
        if not isinstance(found, dict) or input not in inputs:
            raise GraphError(
                f"node {id} ({text_of(found, 'class_type')}) has no input {shown(input)}{hint(input, inputs)}"
            )
        return Graph({**self._nodes, id: {**found, "inputs": {**inputs, input: value}}})

    def check(
        self, params: Mapping[str, object] | None = None, *, node_definitions: NodeDefinitions | None = None
    ) -> list[GraphIssue]:
        """List what is wrong with the graph and, when given, with values for its parameters.

        Args:
            params: with them it looks at the files that are named there, so call it in a thread.
            node_definitions: of the ComfyUI that will run it: what it would refuse is found as well, with the values
                filled in. Its error type stands at the end of each message. What depends on the files of its machine
                is a warning. Without `params` defaults count, and every option of a choice.

        Raises:
            InvalidArgumentError: `node_definitions` are something else.
        """
        if node_definitions is None:
            return self._assess(params)[1]
        from comfycontrol_async.graph._definition_checks import spots_of, with_definitions

        if not isinstance(node_definitions, NodeDefinitions):
            raise InvalidArgumentError(f"node_definitions are NodeDefinitions, but this is {shown(node_definitions)}")
        study = self._study()
        if study.whole:
            return list(study.issues)
        fields, issues = self._fill(params)
        given = None if params is None else fields
        self._spots = self._spots or tuple(spots_of(self._nodes, study.parameters))
        return with_definitions(self._nodes, self._spots, given, [*study.issues, *issues], node_definitions)

    def bind(self, params: Mapping[str, object] | None = None) -> BoundGraph:
        """Check everything and make what has to be sent; it looks at files, so call it in a thread.

        Raises:
            GraphError: there are errors; `issues` has them all, and the warnings.
        """
        fields, issues = self._assess({} if params is None else params)
        raise_errors(issues)
        if not self._body:
            self._body = json.dumps(self._nodes, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        return BoundGraph(body=self._body, graph_digest=self.digest(), fields=fields, warnings=tuple(issues))

    def bind_changes(self, params: Mapping[str, object] | None = None) -> tuple[Field, ...]:
        """Make the form fields of only the values given, for a rerun, in which the others stay as they were.

        Raises:
            GraphError: a name is unknown or a value is invalid; `issues` has them all.
        """
        fields, issues = fill(self.parameters, {} if params is None else params, complete=False)
        raise_errors(issues)
        return fields

    def digest(self) -> str:
        """Return 64 hex digits that graphs share when they differ at most in the order of nodes and in `_meta`."""
        if not self._digest:
            self._digest = digest_graph(self._nodes)
        return self._digest

    def to_json(self) -> str:
        """Write it as JSON for people, which loads back to an equal graph."""
        return json.dumps(self._nodes, ensure_ascii=False, indent=2, allow_nan=False)

    def json_schema(self) -> dict[str, Any]:
        """Return a JSON Schema (2020-12) of `params`: an object with a property for each parameter.

        Texts may be numbers or booleans, choices have an `enum`, files `format: binary`; `description` says where the
        value goes. It is the same whatever the order of the nodes.
        """
        return json_schema(self._nodes, self.parameters)

    def _assess(self, params: Mapping[str, object] | None) -> tuple[tuple[Field, ...], list[GraphIssue]]:
        study = self._study()
        fields, issues = self._fill(params)
        return fields, [*study.issues, *study.output_issues, *issues]

    def _fill(self, params: Mapping[str, object] | None) -> tuple[tuple[Field, ...], list[GraphIssue]]:
        study = self._study()
        return ((), []) if params is None or study.whole else fill(study.parameters, params, complete=True)

    def _study(self) -> "_Study":
        """Find the parameters and the issues of the graph alone."""
        if self._studied is None:
            nodes = self._nodes.items()
            strings = (text for id, node in nodes for text in strings_in(inputs_of(node), (id, "inputs")))
            parameters, issues = collect(strings)
            whole = format_issue(self._nodes)
            self._studied = _Study(
                parameters,
                (whole,) if whole else (*structure_issues(self._nodes), *issues),
                () if whole else tuple(output_issues(self._nodes)),
                whole is not None,
            )
        return self._studied

    def _find(self, wanted: str) -> str:
        """Find a node's id by id, by title or by class type, in this order."""
        if wanted in self._nodes:
            return wanted
        for keys in _NODE_NAMES:
            found = [id for id, node in self._nodes.items() if wanted and text_of(node, *keys) == wanted]
            if len(found) == 1:
                return found[0]
            if found:
                raise GraphError(f"{shown(wanted)} may be any of the nodes {', '.join(found)}: give the id")
        names = [text_of(node, *keys) for keys in _NODE_NAMES for node in self._nodes.values()]
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
        known = list(dict.fromkeys(parameter.name for parameter in self.parameters))
        names = ", ".join([*known[:_SHOWN_NAMES], *(["…"] if len(known) > _SHOWN_NAMES else [])])
        count = f"{len(self._nodes)} node{'' if len(self._nodes) == 1 else 's'}"
        return f"<Graph {count}, parameters: {names}>" if names else f"<Graph {count}>"
