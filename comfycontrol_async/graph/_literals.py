"""Python source for values of JSON and for names, laid out as formatters (ruff, black) leave it."""

import keyword
import re
import unicodedata
from collections.abc import Collection

from comfycontrol_async.graph._json import Json

# The default line length of formatters. What is longer is broken with a trailing comma, which
# they keep at any length.
LINE = 88
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
# No keyword, but no name that can be given a value either.
_TAKEN = frozenset({"__debug__"})


def text_literal(text: str) -> str:
    """Write a text in double quotes, or in single ones where those need fewer backslashes."""
    body = repr(text)
    if body[0] == "'":
        body = _ESCAPE.sub(lambda found: "'" if found[1] == "'" else found[0], body)
    body = body[1:-1]
    double, single = text.count('"'), text.count("'")
    if double > single:
        return "'" + body.replace("'", "\\'") + "'"
    return '"' + body.replace('"', '\\"') + '"'


def literal(value: Json, indent: int, before: int = 0) -> str:
    """Write a value, whose first line has `before` characters before it and whose others begin at `indent`.

    Objects have a line for each item, lists only where they do not fit on one.
    """
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        if not value:
            return "{}"
        lines = []
        for key, item in value.items():
            start = f"{inner}{text_literal(key)}: "
            lines.append(f"{start}{literal(item, indent + 4, len(start))},\n")
        return "{\n" + "".join(lines) + " " * indent + "}"
    if isinstance(value, list):
        line = f"[{', '.join(literal(item, 0) for item in value)}]"
        if "\n" not in line and before + len(line) + 1 <= LINE:
            return line
        items = "".join(f"{inner}{literal(item, indent + 4, indent + 4)},\n" for item in value)
        return "[\n" + items + " " * indent + "]"
    if isinstance(value, float):
        return repr(value).replace("e+", "e")  # as formatters write it
    return text_literal(value) if isinstance(value, str) else repr(value)


def names(wanted: Collection[str], taken: Collection[str], otherwise: str) -> dict[str, str]:
    """Return a valid, distinct Python name for each of these, as close to it as can be; the order does not count."""
    given: dict[str, str] = {}
    used = {*taken, *_TAKEN}
    # Names that are valid as they are keep themselves, whatever others are made into.
    for text in sorted(wanted, key=lambda text: (_name(text, otherwise) != text, text)):
        base = name = _name(text, otherwise)
        if name in used or keyword.iskeyword(name):
            name = f"{base}_"
        number = 2
        while name in used:
            name, number = f"{base}_{number}", number + 1
        used.add(name)
        given[text] = name
    return given


def _name(text: str, otherwise: str) -> str:
    name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", text))
    name = name if text and name == text else name.strip("_") or otherwise
    name = name if name.isidentifier() else f"_{name}"
    # Python reads names in NFKC form, and some letters of `\w` are no part of names.
    return name if name.isidentifier() and unicodedata.normalize("NFKC", name) == name else otherwise
