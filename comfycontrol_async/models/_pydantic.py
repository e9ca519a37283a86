"""Models and enums as pydantic field types, without pydantic: plain dicts of its core schema.

pydantic calls `__get_pydantic_core_schema__` of a field's type with a handler that makes the schemas of other types
(pydantic documentation: custom types). A value may be an instance, which is taken as it is, or a mapping with the API's
names; what is dumped can be validated again, unknown words of an enum included.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar, get_args, get_origin

import attrs

Schema = dict[str, Any]


class Handler(Protocol):
    """What pydantic hands over to make the schemas of other types."""

    def generate_schema(self, source: Any, /) -> Any:
        """Return the schema of a type."""


class PydanticModel:
    """Base of the models: says to pydantic what a field of this type takes and gives."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Handler) -> Schema:
        """Return pydantic's core schema, made of the attrs fields."""
        # `Page[User]` is given with its argument, and the fields of `Page` name it.
        given = dict(zip(getattr(cls, "__parameters__", ()), get_args(source), strict=False))
        model: Any = cls  # each class that inherits this is one of attrs
        fields, empty = {}, {}
        for field in attrs.fields(model):
            kind = _filled(field.type, given)
            default = field.default
            if isinstance(default, attrs.Factory) and get_origin(field.type) in (list, dict):  # type: ignore[arg-type] # a class
                empty[field.name] = default.factory
            required = default is attrs.NOTHING
            fields[field.name] = {
                "type": "typed-dict-field",
                "schema": handler.generate_schema(kind),
                "required": required,
            }
        optional = {name for name, field in fields.items() if not field["required"]}
        mapping = {
            "type": "function-before",
            "function": {"type": "no-info", "function": lambda value: _without_nulls(value, empty)},
            "schema": {"type": "typed-dict", "fields": fields, "extra_behavior": "ignore", "cls_name": cls.__name__},
        }
        made = {
            "type": "function-after",
            "function": {"type": "no-info", "function": lambda values: cls(**_in_utc(values, optional))},
            "schema": mapping,
        }
        return {
            "type": "json-or-python",
            "json_schema": made,
            "python_schema": {"type": "union", "choices": [{"type": "is-instance", "cls": cls}, made]},
            "serialization": {
                "type": "function-plain",
                "function": lambda value: {field.name: getattr(value, field.name) for field in attrs.fields(model)},
                "return_schema": mapping,
            },
        }


class PydanticWord:
    """Base of the open enums: any text is a value, known or not."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Handler) -> Schema:
        """Return pydantic's core schema: text, as a member of the enum."""
        return {
            "type": "function-after",
            "function": {"type": "no-info", "function": cls},
            "schema": {"type": "str"},
            "serialization": {
                "type": "function-plain",
                "function": str,
                "when_used": "json",
                "return_schema": {"type": "str"},
            },
        }


def _filled(kind: Any, given: Mapping[Any, Any]) -> Any:
    """Return a field's type with the arguments of its generic class."""
    if isinstance(kind, TypeVar):
        return given.get(kind, Any)
    wanted = getattr(kind, "__parameters__", ())
    return kind[tuple(given.get(parameter, Any) for parameter in wanted)] if wanted else kind


def _without_nulls(value: Any, empty: Mapping[str, Callable[[], Any]]) -> Any:
    """Return a mapping with an empty list or object in the place of null, as the API's answers are read."""
    if not isinstance(value, Mapping):
        return value
    return {key: empty[key]() if item is None and key in empty else item for key, item in value.items()}


def _in_utc(values: dict[str, Any], optional: set[str]) -> dict[str, Any]:
    """Return the fields with their times in UTC; one of year 1, which was never set, is left out where it may be."""
    read = {}
    for name, value in values.items():
        if isinstance(value, datetime):
            if value.year == 1:
                if name in optional:
                    continue
            else:
                value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        read[name] = value
    return read
