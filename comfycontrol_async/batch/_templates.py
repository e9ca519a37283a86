"""Templates: names, tags and file names of a row, filled in from its key, its index and its columns."""

import hashlib
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfycontrol_async.batch._rows import left_out
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._issues import shown
from comfycontrol_async.runs._file_names import check_widths, safe_name

DEFAULT_TEMPLATE = "{key}-{index:03}{ext}"
# What `WorkflowRun.download` fills in itself.
_OF_DOWNLOAD = frozenset({"index", "ext"})
# Known to `WorkflowRun.download` too, but a column of that name is meant first.
_OF_WORKFLOW = frozenset({"id", "name"})
# Bytes of a key in a file name; an index, an extension and a mark come behind it.
_LONGEST_STEM = 120

Piece = tuple[str, str | None, str, str]


def check_pattern(what: str, pattern: object, *, path: bool = False) -> None:
    """Refuse a pattern whose fields are not simple names in braces.

    Raises:
        InvalidArgumentError: it is none; `what` names the option.
    """
    if not isinstance(pattern, str):
        raise InvalidArgumentError(f"{what} must be text, not {type(pattern).__name__}")
    fields = list(_pieces(what, pattern))
    check_widths(what, pattern)
    for _, field, _, conversion in fields:
        if field is not None and (not field.strip() or field.isdigit() or set(field) & set(".[]")):
            raise InvalidArgumentError(
                f"{what} {pattern!r} cannot be filled in: {{{field}}} is not the name of a column"
            )
        if conversion not in ("", "s", "r", "a"):
            raise InvalidArgumentError(f"{what} {pattern!r} cannot be filled in: !{conversion} is no conversion")
    folders = pattern.split("/")[:-1]
    if path and (not pattern or Path(pattern).is_absolute() or {"..", ""} & set(folders)):
        raise InvalidArgumentError(f"{what} {pattern!r} must name a file below download_to")
    if path and any(field in _OF_DOWNLOAD for folder in folders for _, field, _, _ in _pieces(what, folder)):
        raise InvalidArgumentError(f"{what} {pattern!r}: {{index}} and {{ext}} belong to the file, not to its folder")


def columns_in(pattern: str, *, path: bool = False) -> list[str]:
    """Return the columns that a pattern needs."""
    known = {"key", "index"} | (_OF_DOWNLOAD | _OF_WORKFLOW if path else set())
    return [field for _, field, _, _ in _pieces("", pattern) if field is not None and field not in known]


def _pieces(what: str, pattern: str) -> Iterator[Piece]:
    """Yield the parts of a pattern: a text, the field behind it or None, its format and its conversion."""
    try:
        for text, field, spec, conversion in string.Formatter().parse(pattern):
            yield text, field, spec or "", conversion or ""
    except ValueError as error:
        raise InvalidArgumentError(f"{what} {pattern!r} cannot be filled in: {error}") from error


def fill_in(what: str, pattern: str, values: Mapping[str, Any]) -> str:
    """Fill in a pattern; what is None or NaN is an empty text.

    Raises:
        InvalidArgumentError: a value cannot be written so, or there is none.
    """
    return "".join(text + _value(what, piece, values) for text, *piece in _pieces(what, pattern))


def _value(what: str, piece: list[Any], values: Mapping[str, Any]) -> str:
    field, spec, conversion = piece
    if field is None:
        return ""
    if field not in values:
        raise InvalidArgumentError(f"{what} needs the column {shown(field)}, which this row does not have")
    value = values[field]
    if left_out(value):
        return ""
    try:
        if conversion:
            value = string.Formatter().convert_field(value, conversion)
        return format(value, spec)
    except Exception as error:  # a caller's own type may do anything
        raise InvalidArgumentError(f"{what} cannot write the column {shown(field)}: {shown(error)}") from error


def place_of(pattern: str, key: str, values: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the folder, below `download_to`, and the template of the file names of a row.

    A `/` of the pattern separates folders, one of a value does not: every value becomes harmless as a file name. The
    template still has `{index}` and `{ext}` in it, for `WorkflowRun.download`.
    """
    *folders, last = pattern.split("/")
    kept = _OF_DOWNLOAD | (_OF_WORKFLOW - set(values))
    folder = Path(*(safe_name(_component(part, key, values, frozenset())) for part in folders))
    return folder, _component(last, key, values, kept)


def _component(pattern: str, key: str, values: Mapping[str, Any], kept: frozenset[str]) -> str:
    """Fill in one part of a path; fields in `kept` stay, and then the braces of everything else are doubled."""
    filled = ""
    for text, field, spec, conversion in _pieces("template", pattern):
        if field is None:
            value = ""
        elif field in kept:
            value = "{" + field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
        else:
            known = stem_of(key) if field == "key" else _value("template", [field, spec, conversion], values)
            value = safe_name(known) if known else ""
            value = _escaped(value) if kept else value
        filled += (_escaped(text) if kept else text) + value
    return filled


def shape_of(pattern: str) -> re.Pattern[str]:
    """Return what matches every path that a pattern can give."""
    shapes = {"index": r"\d+", "ext": r"(\.\w+)?"}
    parts = (
        re.escape(text) + ("" if field is None else shapes.get(field, "[^/]+"))
        for text, field, _, _ in _pieces("template", pattern)
    )
    return re.compile("".join(parts))


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def stem_of(key: str) -> str:
    """Return what the file names of a row begin with: its key, where that is harmless, with a mark where it is not.

    Without the mark two keys, such as `a/b` and `a:b`, might get one name.
    """
    safe = safe_name(key).encode(errors="ignore")[:_LONGEST_STEM].decode(errors="ignore")
    if safe == key:
        return key
    return f"{safe}-{hashlib.blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"
