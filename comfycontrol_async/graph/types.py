"""Typed functions: Python source with one function for each graph, whose arguments are its parameters.

The source stands on its own, with the graph in it. It is the same for a graph exported again with its nodes in another
order, so that a file under version control changes only when the graph does.
"""

from collections.abc import Collection, Mapping

import attrs

from comfycontrol_async.errors import GraphError
from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import raise_errors, shown
from comfycontrol_async.graph._json import Json, inputs_of, text_of
from comfycontrol_async.graph._literals import LINE, literal, names, text_literal
from comfycontrol_async.graph._placeholders import Parameter
from comfycontrol_async.graph._schema import ask, describe

_HEAD = '''"""Typed functions for ComfyUI workflows, written by `comfycontrol types`.

Write it anew when a workflow changes, and change nothing here.
"""
'''
_IMPORTED = frozenset({"ComfyControl", "File", "Graph", "Literal", "Path", "WorkflowRun"})
_OPTIONS = frozenset({"comfy", "timeout"})
_TYPES = {"INT": "int", "FLOAT": "float", "STRING": "str", "BOOLEAN": 'Literal["true", ""]'}


@attrs.frozen
class _Argument:
    """An argument of a function: what it stands for, its name, type and default as source."""

    parameter: Parameter
    name: str
    type: str
    default: str | None
    text: str


def write_types(graphs: Mapping[str, Graph], *, node_definitions: NodeDefinitions | None = None) -> str:
    """Write a Python module with one function for each graph: `await txt2img(comfy, prompt="a cat")` runs it.

    Args:
        graphs: the graphs by the names of their functions, such as the stems of their files; made valid if need be.
        node_definitions: of the ComfyUI that will run them: then numbers are `int` or `float` where they have to be.

    Returns:
        The source: formatted, and clean under mypy and pyright in strict mode.

    Raises:
        GraphError: a graph has errors, or there is none.
    """
    if not graphs:
        raise GraphError("there is no graph to write a function for")
    functions = names(list(graphs), _IMPORTED | {"comfycontrol_async"}, "workflow")
    constants = _constants(functions.values())
    parts = []
    for source, graph in sorted(graphs.items(), key=lambda item: functions[item[0]]):
        try:
            raise_errors(graph.check(node_definitions=node_definitions))
        except GraphError as error:
            raise GraphError(f"{shown(source)}: {error.message}", issues=error.issues) from error
        function = functions[source]
        parts.append(_function(source, function, constants[function], graph, node_definitions))
    body = "\n\n".join(parts)
    return f"{_HEAD}\n{_imports(body)}\n{body}"


def _imports(body: str) -> str:
    lines = []
    if ": File | Path | bytes" in body:
        lines.append("from pathlib import Path")
    if "Literal[" in body:
        lines.append("from typing import Literal")
    if lines:
        lines.append("")
    file = "File, " if ": File | Path | bytes" in body else ""
    lines.append(f"from comfycontrol_async import ComfyControl, {file}Graph, WorkflowRun")
    return "\n".join(lines) + "\n"


def _constants(functions: Collection[str]) -> dict[str, str]:
    """Return for each function the name of the constant that holds its graph: `_TXT2IMG`."""
    found: dict[str, str] = {}
    for function in sorted(functions):
        name = f"_{function.strip('_').upper() or 'WORKFLOW'}"
        while name in found.values() or name in functions:
            name += "_"
        found[function] = name
    return found


def _function(source: str, function: str, constant: str, graph: Graph, definitions: NodeDefinitions | None) -> str:
    nodes = _in_order(graph)
    arguments = _arguments(graph, nodes, constant, definitions)
    signature = "".join(f"    {_signed(argument)},\n" for argument in arguments)
    docs = "".join(f"        {argument.name}: {_plain(argument.text)}\n" for argument in arguments)
    params = "".join(f"            {text_literal(one.parameter.name)}: {one.name},\n" for one in arguments)
    return (
        f"{constant} = Graph(\n    {literal(nodes, 4, 4)}\n)\n\n\n"
        f"async def {function}(\n    comfy: ComfyControl,\n    *,\n{signature}    timeout: float | None = None,\n"
        f") -> WorkflowRun:\n"
        f'    """Run the workflow {_plain(source)}, and wait for it.\n\n'
        f"    Args:\n        comfy: the client that runs it.\n{docs}"
        f"        timeout: seconds to wait; None waits as long as it takes.\n\n"
        f"    Raises:\n        WorkflowFailedError, WorkflowCancelledError, WaitTimeoutError: it did not complete.\n"
        f'    """\n'
        f"    return await comfy.run(\n        {constant},\n"
        + (f"        params={{\n{params}        }},\n" if params else "")
        + "        timeout=timeout,\n    )\n"
    )


def _in_order(graph: Graph) -> dict[str, Json]:
    """Return the nodes in an order of their own: numbers first, each by its class and its inputs by name."""
    found: dict[str, Json] = {}
    for id, node in sorted(graph._nodes.items(), key=lambda item: (len(item[0]) if item[0].isdigit() else 99, item[0])):
        known = node if isinstance(node, dict) else {}
        others = {key: known[key] for key in sorted(known) if key not in ("class_type", "inputs")}
        inputs: dict[str, Json] = {name: inputs_of(node)[name] for name in sorted(inputs_of(node))}
        found[id] = {"class_type": text_of(node, "class_type"), "inputs": inputs, **others}
    return found


def _arguments(
    graph: Graph, nodes: Mapping[str, Json], constant: str, definitions: NodeDefinitions | None
) -> list[_Argument]:
    parameters = ask(graph.parameters)
    valid = names([parameter.name for parameter in parameters], _OPTIONS | {constant}, "value")
    found = []
    for parameter in parameters:
        type, default = _typed(parameter, nodes, definitions)
        found.append(_Argument(parameter, valid[parameter.name], type, default, describe(nodes, parameter)))
    return found


def _typed(
    parameter: Parameter, nodes: Mapping[str, Json], definitions: NodeDefinitions | None
) -> tuple[str, str | None]:
    """Return the type of an argument and its default, as source."""
    default = parameter.default
    if parameter.kind == "file":
        return "File | Path | bytes", None
    if parameter.kind == "choice":
        options = ", ".join(map(text_literal, dict.fromkeys(parameter.choices)))
        return f"Literal[{options}]", text_literal(default or "")
    number = _number_source(default) if default is not None else None
    type = _TYPES.get(_defined_type(parameter, nodes, definitions), "str" if number is None else "float | str")
    if default is None:
        return type, None
    if type in ("str", _TYPES["BOOLEAN"]):
        return type, text_literal(default if type == "str" else "true" if default else "")
    # What the definitions call a number, but is written in a way of its own, such as "1e2", stays a text.
    return (type, number) if number is not None else (f"{type} | str", text_literal(default))


def _number_source(text: str) -> str | None:
    """Return a number as Python writes it, when a text is written just so: sent as a number it says the same."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if len(text) < 20 and repr(number) == text and abs(number) < 2**64:
            return text
    return None


def _defined_type(parameter: Parameter, nodes: Mapping[str, Json], definitions: NodeDefinitions | None) -> str:
    """Return the type of the inputs that a parameter fills, if it is one and the same."""
    types = set()
    for place in parameter.places:
        id, _, name = place.rpartition(".")
        known = definitions._class(text_of(nodes.get(id), "class_type")) if definitions is not None else None
        definition = known.inputs.get(name) if known is not None else None
        types.add("" if definition is None else definition.type)
    return types.pop() if len(types) == 1 else ""


def _signed(argument: _Argument) -> str:
    default = "" if argument.default is None else f" = {argument.default}"
    line = f"{argument.name}: {argument.type}{default}"
    if len(line) + 5 <= LINE or argument.parameter.kind != "choice":
        return line
    options = "".join(f"        {text_literal(option)},\n" for option in dict.fromkeys(argument.parameter.choices))
    return f"{argument.name}: Literal[\n{options}    ]{default}"


def _plain(text: str) -> str:
    """Make a text safe inside of a docstring."""
    line = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))
    return line.replace("\\", "\\\\").replace('"', "'")
