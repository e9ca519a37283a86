"""JSON Schema of a graph's parameters, for forms, OpenAPI and tools that call functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from comfycontrol_async.graph._json import Json, text_of
from comfycontrol_async.graph._placeholders import Parameter


def ask(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return one parameter for each name: required ones first, then by name, so that node order does not count.

    A text and a choice of one name share their value, so that the choice's options hold for both.
    """
    found: dict[str, Parameter] = {}
    for parameter in parameters:
        if parameter.name not in found or parameter.kind == "choice":
            found[parameter.name] = parameter
    return sorted(found.values(), key=lambda parameter: (not parameter.required, parameter.name))


def json_schema(nodes: Mapping[str, Json], parameters: Iterable[Parameter]) -> dict[str, Any]:
    """Write the schema of an object that `params` may be (JSON Schema 2020-12)."""
    known = ask(parameters)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {parameter.name: _property(nodes, parameter) for parameter in known},
        "required": [parameter.name for parameter in known if parameter.required],
        "additionalProperties": False,
    }


def _property(nodes: Mapping[str, Json], parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": describe(nodes, parameter)}
    if parameter.kind == "file":
        return {"type": "string", "format": "binary", **schema}
    if parameter.kind == "choice":
        return {"type": "string", "enum": list(parameter.choices), "default": parameter.default, **schema}
    schema = {"type": ["string", "number", "boolean"], **schema}
    return schema if parameter.required else {**schema, "default": parameter.default}


def describe(nodes: Mapping[str, Json], parameter: Parameter) -> str:
    """Say where a parameter goes: "text of Positive (CLIPTextEncode)", on one line, blind to node order."""
    places = sorted(parameter.places, key=_natural)
    return ", ".join(dict.fromkeys(_place_text(nodes, place) for place in places))


def _place_text(nodes: Mapping[str, Json], place: str) -> str:
    id, _, input = place.partition(".")
    while id not in nodes and "." in input:  # an id may have points in it
        more, _, input = input.partition(".")
        id = f"{id}.{more}"
    node = nodes.get(id)
    title, name = text_of(node, "_meta", "title"), text_of(node, "class_type")
    whose = f"{title} ({name})" if title and title != name else name or f"node {id}"
    return " ".join(f"{input} of {whose}".split())


def _natural(place: str) -> tuple[int, str]:
    id = place.partition(".")[0]
    return (int(id) if id.isascii() and id.isdigit() and len(id) < 100 else -1, place)
