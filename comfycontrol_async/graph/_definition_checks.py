"""Issues that node definitions show: what ComfyUI would refuse once the placeholders are filled in, in plain words."""

from collections.abc import Iterable, Iterator, Mapping

import attrs

from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._issues import HINTS, GraphIssue, hint, shown
from comfycontrol_async.graph._json import Json, inputs_of, text_of
from comfycontrol_async.graph._node_classes import InputDefinition
from comfycontrol_async.graph._parameters import Field
from comfycontrol_async.graph._placeholders import BOOLEANS, Parameter, parse, service_call
from comfycontrol_async.graph._validate import Fault, OneOf, faults_of

# What the service fills in: a random whole number of 64 bits, milliseconds since 1970.
_DRAWN = {"random": 2**64 - 1, "timestamp": 1_800_000_000_000}
_FALSE = frozenset({"false", "0", "no", "off"})


@attrs.frozen
class Spot:
    """An input whose whole value is a placeholder: a parameter's, or one that the service fills in by itself."""

    node: str
    input: str
    parameter: Parameter | None
    drawn: str = ""


def spots_of(nodes: Mapping[str, Json], parameters: Iterable[Parameter]) -> Iterator[Spot]:
    """Yield the inputs whose values are placeholders, with the parameter of the graph that each asks for."""
    known = {(parameter.name, parameter.kind): parameter for parameter in parameters}
    for id, node in nodes.items():
        for name, value in inputs_of(node).items():
            if not isinstance(value, str) or not value.startswith("$"):
                continue
            parameter, drawn = parse(value)[0], service_call(value)
            if parameter is not None:
                # Of several placeholders of one name the first default counts, and is sent to all.
                yield Spot(id, name, known.get((parameter.name, parameter.kind), parameter))
            elif drawn:
                yield Spot(id, name, None, drawn)


def with_definitions(
    nodes: Mapping[str, Json],
    spots: Iterable[Spot],
    fields: Iterable[Field] | None,
    issues: Iterable[GraphIssue],
    definitions: NodeDefinitions,
) -> list[GraphIssue]:
    """Add what the definitions show to the issues found without them, and drop what they show to be none.

    `fields` are the values that will be sent; with None defaults count, and every option of a choice.
    """
    filled, drawn = _fill(nodes, spots, None if fields is None else dict(fields), definitions)
    known = list(issues)
    failed = {issue.place for issue in known if issue.severity == "error"}
    shown_now: list[GraphIssue] = []
    hints = HINTS
    for fault in faults_of(filled, definitions):
        place = f"{fault.node}.{fault.input}" if fault.input else fault.node
        if place in failed:
            continue
        text = _describe(fault, drawn.get(place, ""), filled, definitions if hints > 0 else None)
        hints -= 1
        shown_now.append(GraphIssue("warning" if fault.on_disk else "error", place, f"{text} ({fault.type})"))
    shown_now += _slips(filled, definitions)
    failed = {issue.place for issue in shown_now if issue.severity == "error"}
    kept = [issue for issue in known if issue.severity == "error" or not _is_settled(issue, failed, nodes, definitions)]
    return [*kept, *shown_now]


def _fill(
    nodes: Mapping[str, Json],
    spots: Iterable[Spot],
    fields: Mapping[str, object] | None,
    definitions: NodeDefinitions,
) -> tuple[dict[str, object], dict[str, str]]:
    """Return the nodes with what each placeholder may become, and the places that the service fills in."""
    filled: dict[str, object] = dict(nodes)
    drawn: dict[str, str] = {}
    changed: dict[str, dict[str, object]] = {}
    for spot in spots:
        if spot.node not in changed:
            node = nodes[spot.node]
            changed[spot.node] = dict(inputs_of(node))
            filled[spot.node] = {**(node if isinstance(node, dict) else {}), "inputs": changed[spot.node]}
        if spot.drawn:
            drawn[f"{spot.node}.{spot.input}"] = spot.drawn
        definition = _definition(spot.node, spot.input, nodes, definitions)
        changed[spot.node][spot.input] = _values(spot, fields, definition)
    return filled, drawn


def _values(spot: Spot, fields: Mapping[str, object] | None, definition: InputDefinition | None) -> OneOf:
    parameter = spot.parameter
    if parameter is None:
        return OneOf((_DRAWN[spot.drawn],))
    if parameter.kind == "file":
        # It becomes the name of the uploaded file, which every input but a number takes.
        number = definition is not None and definition.type in ("INT", "FLOAT")
        return OneOf(("the name of a file",) if number else ())
    if fields is not None:
        return OneOf((fields[parameter.field],)) if parameter.field in fields else OneOf()
    if parameter.kind == "choice":
        return OneOf(parameter.choices)
    return OneOf() if parameter.default is None else OneOf((parameter.default,))


def _definition(id: str, name: str, nodes: Mapping[str, Json], definitions: NodeDefinitions) -> InputDefinition | None:
    known = definitions._class(_class_of(nodes.get(id)))
    return None if known is None else known.inputs.get(name)


def _is_settled(warning: GraphIssue, failed: set[str], nodes: Mapping[str, Json], definitions: NodeDefinitions) -> bool:
    """Tell whether a warning says less than an error at its place, or what the definitions show to be no matter."""
    if warning.place in failed:
        return True
    if not warning.message.endswith(BOOLEANS):
        return False
    id, _, name = warning.place.rpartition(".")
    definition = _definition(id, name, nodes, definitions)
    return definition is not None and definition.type != "BOOLEAN"


def _slips(nodes: Mapping[str, object], definitions: NodeDefinitions) -> Iterator[GraphIssue]:
    """Find what ComfyUI takes, but never as it was meant: texts that say false."""
    for id, node in nodes.items():
        known = definitions._class(_class_of(node))
        for name in known.booleans if known is not None and isinstance(node, dict) else ():
            for one in _candidates(inputs_of(node).get(name)):
                if isinstance(one, str) and one.strip().casefold() in _FALSE:
                    yield GraphIssue("error", f"{id}.{name}", f"{shown(one)} counts as true: {BOOLEANS}")
                    break


def _candidates(value: object) -> tuple[object, ...]:
    return value.values if isinstance(value, OneOf) else (value,)


def _class_of(node: object) -> str:
    return text_of(node, "class_type") if isinstance(node, dict) else ""


def _describe(fault: Fault, drawn: str, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    """Say in plain words what ComfyUI refuses; hints are left out without definitions."""
    write = _TEXTS.get(fault.type)
    if write is None:
        return fault.message
    text = write(fault, nodes, definitions)
    return f"${drawn}() may give {fault.received}: {text}" if drawn else text


def _class_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    advice = hint(fault.class_type, definitions) if definitions is not None else ""
    return f"this ComfyUI has no class {shown(fault.class_type)}{advice}"


def _outputs_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    return "the graph has no output node: no class in it saves or shows a result; add one such as SaveImage"


def _missing_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    wanted = fault.definition.type if fault.definition else ""
    return f"{fault.class_type} requires this input ({wanted}), but it is missing"


def _type_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    wanted = fault.definition.type if fault.definition else ""
    advice = ""
    try:
        number = float(fault.received)
        if wanted == "INT" and number.is_integer():
            advice = f": write {int(number)}"
    except (TypeError, ValueError, OverflowError):
        pass
    return f"{fault.class_type} takes {wanted} here, which {shown(fault.received)} is not{advice}"


def _range_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    config = fault.definition.config if fault.definition else {}
    if fault.type == "value_smaller_than_min":
        return f"{shown(fault.received)} is smaller than the minimum {config.get('min')}"
    return f"{shown(fault.received)} is bigger than the maximum {config.get('max')}"


def _option_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    if fault.on_disk:
        return f"this ComfyUI has no file {shown(fault.received)} for {fault.class_type}"
    options = fault.definition.options if fault.definition else None
    names = sorted(map(str, options or ()))
    advice = hint(str(fault.received), names) if definitions is not None else ""
    return f"{fault.class_type} has no option {shown(fault.received)}{advice}"


def _mismatch_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    source, slot = fault.received
    return (
        f"{fault.class_type} takes {fault.definition.type if fault.definition else ''} here, but output {slot} of "
        f"node {source} ({_class_of(nodes.get(source))}) is something else: {fault.details}"
    )


def _list_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    return f"ComfyUI takes every list for a link, [node id, output number], but this is {shown(fault.received)}"


def _trip_text(fault: Fault, nodes: Mapping[str, object], definitions: NodeDefinitions | None) -> str:
    match fault.received:
        case [str(source), slot] if source in nodes:
            name = _class_of(nodes.get(source))
            return f"node {source} ({name}) has no output {slot}; they count from 0"
    return f"ComfyUI cannot look at this input: {fault.details}"


_TEXTS = {
    "invalid_prompt": _class_text,
    "prompt_no_outputs": _outputs_text,
    "required_input_missing": _missing_text,
    "invalid_input_type": _type_text,
    "value_smaller_than_min": _range_text,
    "value_bigger_than_max": _range_text,
    "value_not_in_list": _option_text,
    "custom_validation_failed": _option_text,
    "return_type_mismatch": _mismatch_text,
    "bad_linked_input": _list_text,
    "exception_during_inner_validation": _trip_text,
    "exception_during_validation": _trip_text,
}
