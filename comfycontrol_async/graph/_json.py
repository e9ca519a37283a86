"""What JSON can say: copying values into it, and looking into it."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._issues import JsonPath, place_of, refusal, shown
from comfycontrol_async.graph._numbers import number_of

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_MAX_DEPTH = 100
_SURROGATE = re.compile("[\ud800-\udfff]")


def has_surrogate(text: str) -> bool:
    """Tell whether a text holds half a surrogate pair, which UTF-8 cannot carry."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def strings_in(value: Json, path: JsonPath) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every string in a value."""
    if isinstance(value, str):
        yield place_of(path), value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings_in(item, (*path, key))


def _copy(value: object, path: JsonPath) -> Json:
    """Copy a value as JSON would say it, or refuse what JSON cannot say."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        if has_surrogate(value):
            raise refusal(path, "half a surrogate pair is no text")
        return str.__str__(value)
    if len(path) >= _MAX_DEPTH:
        raise refusal(path[:4], f"it nests deeper than {_MAX_DEPTH} levels, or holds itself")
    if isinstance(value, (list, tuple)):
        return [_copy(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return copy_object(value, path)
    return _copy_number(value, path)


def _copy_number(value: object, path: JsonPath) -> Json:
    try:
        number = number_of(value)
        if isinstance(number, int):
            str(number)  # Python writes out so many digits only
        elif isinstance(number, float) and not math.isfinite(number):
            if not _unread(path):
                raise ValueError(f"it is {number}")
            return None
    except (OverflowError, ValueError) as error:
        raise refusal(path, f"this number cannot stand in JSON: {error}") from error
    if number is None:
        advice = "; put $file(name) there and give the file in params" if isinstance(value, (File, Path, bytes)) else ""
        raise refusal(path, f"a value of type {type(value).__name__} cannot stand in JSON{advice}")
    return number


def _unread(path: JsonPath) -> bool:
    """Tell whether a place is one that the service and ComfyUI leave alone, such as `is_changed` of a saved picture."""
    return len(path) > 1 and path[1] not in ("inputs", "class_type")


def copy_object(value: Mapping[Any, object], path: JsonPath) -> dict[str, Json]:
    """Copy an object as JSON would say it, or refuse what JSON cannot say.

    Raises:
        GraphError: the first thing that cannot be said, with its place.
    """
    copied: dict[str, Json] = {}
    for key, item in value.items():
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise refusal(path, f"a key must be a str, but {shown(key)} is not")
        name = key if type(key) is str and key.isascii() else str(_copy(key, path))
        if name in copied:
            raise refusal(path, f"the key {shown(name)} is there twice")
        # Short cut for most leaves: a path is built only where one may be needed.
        copied[name] = item if type(item) is str and item.isascii() else _copy(item, (*path, name))
    return copied


def view(value: Json) -> Any:
    """Return a read-only view of a value."""
    if isinstance(value, dict):
        return MappingProxyType({key: view(item) for key, item in value.items()})
    return [view(item) for item in value] if isinstance(value, list) else value


def name_links(nodes: Mapping[str, Json]) -> None:
    """Write the node ids of links as texts, in place: ComfyUI knows nodes by texts only."""
    for node in nodes.values():
        for value in inputs_of(node).values():
            match value:
                case [int(source), int()] if not isinstance(source, bool) and str(source) in nodes:
                    value[0] = str(source)


def inputs_of(node: object) -> dict[str, Json]:
    """Return the inputs of a node, none when it has no such object."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def text_of(value: object, *keys: str) -> str:
    """Return the text under some keys, one within the other, or nothing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
