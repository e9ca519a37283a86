"""What a ComfyUI would refuse of a graph, with its own error types: a pure function of the graph and the definitions.

It follows the server (observed on 0.3.64): a class that is absent, then whether there is an output node, then each
node that an output needs, input by input. A value is cast to the type of its input as Python does it. What goes wrong
while it looks (a link to nothing) takes the place of all else that is wrong with that node. Where the server stops at
the first absent class this goes on, and takes what an absent class gives or takes for right.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._json import inputs_of, text_of
from comfycontrol_async.graph._node_classes import InputDefinition, NodeDefinition, is_file_name
from comfycontrol_async.graph._structure_checks import find_loops, links_of, outputs_by_name

# Types of links that the server leaves to others to check.
_ANY_TYPE = frozenset({"*", "COMFY_MATCHTYPE_V3"})
_TRIPPED = "exception_during_inner_validation"
_MOST_SLOTS = 1000
_CASTS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


@attrs.frozen
class OneOf:
    """Stands in a graph for a value that is not settled: each of these may come, or with none any."""

    values: tuple[object, ...] = ()


@attrs.frozen
class Fault:
    """One thing that ComfyUI refuses.

    Attributes:
        type: its error type, such as "value_bigger_than_max".
        node: the node's id, "" for the graph as a whole.
        input: the input's name, "" for the node as a whole.
        message, details: as ComfyUI writes them.
        class_type: the node's.
        definition: the input's, where there is one.
        received: the value or link.
        on_disk: whether it depends on the files of the machine that ComfyUI runs on.
    """

    type: str
    node: str = ""
    input: str = ""
    message: str = ""
    details: str = ""
    class_type: str = ""
    definition: InputDefinition | None = attrs.field(default=None, repr=False)
    received: Any = None
    on_disk: bool = False


class _CannotLookError(Exception):
    """What the server trips over while it looks at a node; the text is Python's own."""

    def __init__(self, input: str, received: object, text: str) -> None:
        super().__init__(text)
        self.input = input
        self.received = received


def validate(nodes: Mapping[str, Any], definitions: NodeDefinitions) -> list[Fault]:
    """List what a ComfyUI with these definitions refuses of a graph, whose placeholders are replaced by values.

    The graph is in API format: texts mapped to objects. An output whose nodes have no fault would run all the same.
    """
    return [*faults_of(nodes, definitions), *_loop_faults(nodes, definitions)]


def faults_of(nodes: Mapping[str, Any], definitions: NodeDefinitions) -> list[Fault]:
    """List what `validate` does, but for loops."""
    faults = [fault for id, node in nodes.items() if (fault := _class_fault(id, node, definitions))]
    outputs = output_nodes(nodes, definitions)
    if not outputs:
        if not faults:  # an absent class may be an output
            faults.append(Fault("prompt_no_outputs", message="Prompt has no outputs"))
        return faults
    for id, found in _walk(nodes, definitions, outputs):
        faults += found if id not in outputs else [_as_output(fault) for fault in found]
    return faults


def _loop_faults(nodes: Mapping[str, Any], definitions: NodeDefinitions) -> Iterator[Fault]:
    needed = {id for id, _ in _walk(nodes, definitions, output_nodes(nodes, definitions))}
    for link, loop in find_loops(link for link in links_of(nodes) if link.node in needed):
        text = "maximum recursion depth exceeded"  # the server follows a loop until Python stops it
        fault = Fault(_TRIPPED, link.node, link.input, "Exception when validating inner node", f"{text}: {loop}")
        yield attrs.evolve(fault, class_type=text_of(nodes[link.node], "class_type"))


def assume_definitions(nodes: Mapping[str, Any]) -> NodeDefinitions:
    """Return definitions by which a graph is right as far as no real ones are needed to tell.

    Its classes take what they are given and give what is taken; which are outputs is guessed from their names. What
    `validate` finds with them is wrong on any ComfyUI: no output, links to absent nodes, loops, lists that are no link.
    """
    classes: dict[str, dict[str, Any]] = {}
    for id, node in nodes.items():
        name = text_of(node, "class_type")
        if name:
            known = classes.setdefault(name, {"input": {"optional": {}}, "output": [], "output_node": False})
            known["input"]["optional"].update({input: ["*"] for input in inputs_of(nodes[id])})
    for id in itertools.chain(*outputs_by_name(nodes)):
        classes.get(text_of(nodes[id], "class_type"), {})["output_node"] = True
    for link in links_of(nodes):
        known = classes.get(text_of(nodes.get(link.source), "class_type"), {"output": []})
        known["output"] += ["*"] * min(max(link.slot + 1 - len(known["output"]), 0), _MOST_SLOTS)
    return NodeDefinitions(classes or {"none": {"input": {}, "output": [], "output_node": False}})


def output_nodes(nodes: Mapping[str, Any], definitions: NodeDefinitions) -> dict[str, None]:
    """Return the ids of the nodes that save or show, in order."""
    classes = ((id, definitions._class(text_of(node, "class_type"))) for id, node in nodes.items())
    return {id: None for id, known in classes if known is not None and known.output_node}


def needed_by(nodes: Mapping[str, Any], definitions: NodeDefinitions, output: str) -> set[str]:
    """Return the ids of the nodes that an output needs, itself included, as far as the server follows the links."""
    return {id for id, _ in _walk(nodes, definitions, {output: None})}


def _class_fault(id: str, node: object, definitions: NodeDefinitions) -> Fault | None:
    name = text_of(node, "class_type") if isinstance(node, dict) else ""
    if name in definitions:
        return None
    if not name:
        message = "Cannot execute because a node is missing the class_type property."
    else:
        message = f"Cannot execute because node {name} does not exist."
    return Fault("invalid_prompt", id, message=message, details=f"Node ID '#{id}'", class_type=name)


def _walk(
    nodes: Mapping[str, Any], definitions: NodeDefinitions, outputs: Mapping[str, None]
) -> Iterator[tuple[str, list[Fault]]]:
    """Yield each node that the outputs need, once, and what is wrong with it."""
    seen = dict.fromkeys(outputs)
    ahead = list(outputs)[::-1]
    while ahead:
        id = ahead.pop()
        known = definitions._class(text_of(nodes[id], "class_type"))
        if known is None:
            continue
        faults, sources = _node_faults(id, nodes, known, definitions)
        yield id, faults
        for source in reversed(sources):
            if source not in seen:
                seen[source] = None
                ahead.append(source)


def _node_faults(
    id: str, nodes: Mapping[str, Any], known: NodeDefinition, definitions: NodeDefinitions
) -> tuple[list[Fault], list[str]]:
    faults: list[Fault] = []
    sources: list[str] = []
    try:
        if not isinstance(nodes[id].get("inputs"), dict):
            raise _CannotLookError("", None, "'inputs'")
        inputs = inputs_of(nodes[id])
        for name, definition in known.inputs.items():
            if definition.dynamic:
                continue
            if name not in inputs:
                found = _missing(definition) if definition.required else None
            else:
                value = inputs[name]
                if isinstance(value, list):
                    found = _link_fault(value, definition, nodes, definitions, sources)
                else:
                    found = _any_value_fault(value, definition)
            if found:
                faults.append(attrs.evolve(found, node=id, class_type=known.name))
    except _CannotLookError as error:
        text = str(error)
        fault = Fault(
            _TRIPPED, id, error.input, "Exception when validating inner node", text,
            known.name, known.inputs.get(error.input), error.received,
        )  # fmt: skip
        return [fault], sources
    return faults, sources


def _as_output(fault: Fault) -> Fault:
    """Name it as the server does when it trips over an output node itself, not over one that the output needs."""
    if fault.type != _TRIPPED:
        return fault
    return attrs.evolve(fault, type="exception_during_validation", message="Exception when validating node")


def _missing(definition: InputDefinition) -> Fault:
    message = "Required input is missing"
    return _fault(definition, "required_input_missing", message, definition.name, None)


def _fault(definition: InputDefinition, type: str, message: str, details: str, received: object) -> Fault:
    return Fault(
        type, input=definition.name, message=message, details=details, definition=definition, received=received
    )


def _link_fault(
    link: list[Any],
    definition: InputDefinition,
    nodes: Mapping[str, Any],
    definitions: NodeDefinitions,
    sources: list[str],
) -> Fault | None:
    """Check a link, and add to `sources` where it leads; the server looks no further where the type is wrong."""
    name = definition.name
    if len(link) != 2:
        message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
        return _fault(definition, "bad_linked_input", message, name, link)
    source, slot = link
    if not isinstance(source, str) or source not in nodes:
        raise _CannotLookError(name, link, repr(source))
    known = definitions._class(text_of(nodes[source], "class_type"))
    if known is None:
        return None
    try:
        received = known.outputs[slot]
    except (IndexError, TypeError) as error:
        raise _CannotLookError(name, link, str(error)) from None
    wanted = definition.spec[0]
    if not fits(received, wanted):
        details = f"{name}, received_type({received}) mismatch input_type({wanted})"
        return _fault(definition, "return_type_mismatch", "Return type mismatch between linked nodes", details, link)
    sources.append(source)
    return None


def fits(received: object, wanted: object) -> bool:
    """Tell whether an output of one type may feed an input of another: they are equal, any, or share a name."""
    if received == wanted or _is_any(received) or _is_any(wanted):
        return True
    if isinstance(received, list):
        return wanted == "COMBO"
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    names = {name.strip() for name in received.split(",")}
    return any(name.strip() in names for name in wanted.split(","))


def _is_any(type: object) -> bool:
    return isinstance(type, str) and type in _ANY_TYPE


def _any_value_fault(value: object, definition: InputDefinition) -> Fault | None:
    if not isinstance(value, OneOf):
        return value_fault(value, definition)
    return next(filter(None, (value_fault(one, definition) for one in value.values)), None)


def value_fault(value: Any, definition: InputDefinition) -> Fault | None:
    """Check a value that is no link: its type, its range, whether it is an option."""
    name, type = definition.name, definition.type
    if isinstance(value, dict) and "__value__" in value:  # how a list is written that is no link
        value = value["__value__"]
    cast = _CASTS.get(type)
    given = value
    if cast is not None:
        try:
            value = cast(value)
        except (ValueError, TypeError, OverflowError) as error:
            message = f"Failed to convert an input value to a {type} value"
            return _fault(definition, "invalid_input_type", message, f"{name}, {value}, {error}", given)
    if "min" in definition.config or "max" in definition.config:
        found = _range_fault(value, definition, given)
        if found:
            return found
    if definition.options is None or _is_option(value, definition):
        return None
    shown = f"(list of length {len(definition.options)})"
    fault = _fault(definition, "value_not_in_list", "Value not in list", f"{name}: {value!r} not in {shown}", given)
    on_disk = isinstance(value, str) and (definition.on_disk or is_file_name(value))
    if on_disk and any(definition.config.get(key) for key in ("image_upload", "video_upload", "audio_upload")):
        # Such nodes look for the file themselves, so that what was uploaded just now is found.
        message = "Custom validation failed for node"
        return attrs.evolve(
            fault, type="custom_validation_failed", message=message, details=f"{name} - {value}", on_disk=True
        )
    return attrs.evolve(fault, on_disk=on_disk)


def _range_fault(value: Any, definition: InputDefinition, given: object) -> Fault | None:
    low, high = definition.config.get("min"), definition.config.get("max")
    try:
        if low is not None and value < low:
            message = f"Value {value} smaller than min of {low}"
            return _fault(definition, "value_smaller_than_min", message, definition.name, given)
        if high is not None and value > high:
            message = f"Value {value} bigger than max of {high}"
            return _fault(definition, "value_bigger_than_max", message, definition.name, given)
    except TypeError as error:
        raise _CannotLookError(definition.name, given, str(error)) from None
    return None


def _is_option(value: Any, definition: InputDefinition) -> bool:
    options = definition.options or ()
    if isinstance(value, list):
        return bool(definition.config.get("multiselect")) and all(one in options for one in value)
    try:
        return value in options
    except TypeError:  # an object is no option of a set
        return False
