"""JSON to models: the cattrs converter, the only place that knows cattrs.

Tolerant where the API is silent: unknown keys are passed over, an unknown enum value keeps its text and is logged once,
`null` for a list is an empty list, and one malformed item does not lose its page. What a model needs and does not get
is a `ResponseFormatError` with the JSON path of the first fault. No fault text quotes a value: it might be a secret.
"""

import logging
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter
from cattrs.gen import make_dict_structure_fn

from comfycontrol_async._http._drift import note_fields, note_value
from comfycontrol_async.errors import ResponseFormatError
from comfycontrol_async.models import InvalidItem, OpenEnum, Page

log = logging.getLogger("comfycontrol_async")

T = TypeVar("T")


def structurer(cls: type[T]) -> Callable[[Any], T]:
    """Return a function from JSON to a model `cls`, or to a `list` of models.

    The function raises `ResponseFormatError` with the JSON path of the first fault.
    """

    model: Any = cls

    def structure(value: Any) -> T:
        try:
            return cast(T, _hook(model)(value, model))  # a hook gives what its type says
        except Exception as error:
            message, path = _first_fault(error, "$")
            raise ResponseFormatError(message, json_path=path) from error

    return structure


def page_structurer(cls: type[T], key: str, number: int, per_page: int) -> Callable[[Any], Page[T]]:
    """Return a function from a listing's JSON, `{key: [...], "total": n}`, to a page whose faulty items stand apart."""

    def structure(value: Any) -> Page[T]:
        raw = value.get(key) if isinstance(value, dict) else None
        if raw is None and isinstance(value, dict) and key in value:
            raw = []
        if not isinstance(raw, list):
            path = f"$.{key}" if isinstance(value, dict) else "$"
            raise ResponseFormatError(f"expected a list of {key}, found {_kind(raw)}", json_path=path)
        items: list[T] = []
        invalid: list[InvalidItem] = []
        model: Any = cls
        hook = _hook(model)
        for index, item in enumerate(raw):
            try:
                items.append(hook(item, cls))
            except Exception as error:
                message, path = _first_fault(error, f"$.{key}[{index}]")
                log.warning("a listed item is malformed at %s: %s", path, message)
                invalid.append(InvalidItem(index=index, message=f"{path}: {message}", raw=item))
        total = value.get("total")
        if isinstance(total, bool) or not isinstance(total, int):
            # The total is unknown: after a full page at least one more, so that a walk goes on.
            total = (number - 1) * per_page + len(raw) + (len(raw) >= per_page)
        return Page(
            items=items,
            total=total,
            number=number,
            per_page=per_page,
            invalid_items=invalid,
        )

    return structure


@cache
def _hook(cls: Any) -> Callable[[Any, Any], Any]:
    return _converter().get_structure_hook(cls)


@cache
def _converter() -> Converter:
    converter = Converter()
    converter.register_structure_hook(datetime, _datetime)
    converter.register_structure_hook(datetime | None, _optional_datetime)
    # cattrs looks for classes before it asks functions and factories, and has hooks of its own for `str`: so text and
    # the enums, which are text too, are registered by class.
    converter.register_structure_hook(str, _str)
    for enum in OpenEnum.__subclasses__():
        converter.register_structure_hook(enum, _enum_hook(enum))
    converter.register_structure_hook(int, _int)
    converter.register_structure_hook(bool, _bool)
    converter.register_structure_hook_factory(_is_list, lambda cls: _list_hook(converter, cls))
    converter.register_structure_hook_factory(_is_dict, lambda cls: _dict_hook(converter, cls))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _object_hook(converter, cls))
    return converter


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _datetime(value: Any, _: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected an ISO 8601 timestamp, found {_kind(value)}") from None
    # `fromisoformat` gives the UTC singleton for "Z", and the API says that all times are UTC.
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected an ISO 8601 timestamp, found one that is out of range") from None


def _optional_datetime(value: Any, _: Any) -> datetime | None:
    # "0001-01-01T00:00:00Z" is how Go writes a time that was never set.
    if value is None or (isinstance(value, str) and value.startswith("0001-")):
        return None
    return _datetime(value, _)


def _str(value: Any, _: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    raise ValueError(f"expected text, found {_kind(value)}")


def _int(value: Any, _: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(f"expected a whole number, found {_kind(value)}")


def _bool(value: Any, _: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false, found {_kind(value)}")


def _is_list(cls: Any) -> bool:
    return get_origin(cls) is list


def _is_dict(cls: Any) -> bool:
    return get_origin(cls) is dict


_seen_unknown: set[tuple[str, str]] = set()


def _enum_hook(cls: type[OpenEnum]) -> Callable[[Any, Any], OpenEnum]:
    known = {member.value: member for member in cls}

    def structure(value: Any, _: Any) -> OpenEnum:
        try:
            return known[value]
        except (KeyError, TypeError):
            pass
        if not isinstance(value, str):
            raise ValueError(f"expected text, found {_kind(value)}")
        note_value(cls.__name__, value)
        if (cls.__name__, value) not in _seen_unknown and len(_seen_unknown) < 100:
            _seen_unknown.add((cls.__name__, value))
            log.warning("the service knows a %s that this version does not: %.50r", cls.__name__, value)
        return cls(value)

    return structure


def _list_hook(converter: Converter, cls: Any) -> Callable[[Any, Any], list[Any]]:
    (item,) = get_args(cls)
    hook = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> list[Any]:
        if value is None:
            return []
        # Text is iterable too: "abc" must not become ["a", "b", "c"].
        if not isinstance(value, list):
            raise ValueError(f"expected a list, found {_kind(value)}")
        try:
            return [hook(entry, item) for entry in value]
        except Exception:
            return _list_with_place(value)

    def _list_with_place(value: list[Any]) -> list[Any]:
        for index, entry in enumerate(value):
            try:
                hook(entry, item)
            except Exception as error:
                raise _PlacedError(f"[{index}]", error) from error
        raise AssertionError("unreachable: an entry failed before")

    return structure


class _PlacedError(ValueError):
    """A fault inside a list or mapping, with its place there."""

    def __init__(self, place: str, fault: Exception) -> None:
        super().__init__(str(fault))
        self.place = place
        self.fault = fault


def _dict_hook(converter: Converter, cls: Any) -> Callable[[Any, Any], dict[Any, Any]]:
    _, item = get_args(cls)
    hook = converter.get_structure_hook(item)

    def structure(value: Any, _: Any) -> dict[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, found {_kind(value)}")
        if item is Any:
            return value
        result = {}
        for key, entry in value.items():
            try:
                result[key] = hook(entry, item)
            except Exception as error:
                raise _PlacedError(f".{key}", error) from error
        return result

    return structure


def _object_hook(converter: Converter, cls: Any) -> Callable[[Any, Any], Any]:
    generated = make_dict_structure_fn(cls, converter)
    known = frozenset(field.name for field in attrs.fields(cls))

    def structure(value: Any, cls: Any) -> Any:
        if type(value) is not dict:
            raise ValueError(f"expected an object, found {_kind(value)}")
        if not value.keys() <= known:
            note_fields(cls.__name__, value.keys() - known)
        return generated(value, cls)

    return structure


def _first_fault(error: BaseException, path: str) -> tuple[str, str]:
    """Return the text and the JSON path of the first fault inside a converter's error."""
    if isinstance(error, _PlacedError):
        return _first_fault(error.fault, path + error.place)
    if isinstance(error, ClassValidationError):
        (inner, note), *_ = error.group_exceptions()[0]  # no model checks more than its fields
        return _first_fault(inner, f"{path}.{note.name}")
    if isinstance(error, KeyError):
        return "missing", path
    return str(error), path
