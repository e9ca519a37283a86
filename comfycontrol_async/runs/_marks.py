"""Marks: what a keyed submit writes into the name of its workflow, for the API has no idempotency key.

The name on the wire is `<name>~<mark of the key>-<mark of the content>`, with 16 hexadecimal digits (64 bits) for each
mark. Two keys of one account share a mark with a chance of 1 in 37 million once there are a million keys.
"""

import hashlib
import re
from typing import NamedTuple

from comfycontrol_async.graph._names import NAME_LIMIT

MARK_LENGTH = 16

_MARKED = re.compile(r"~([0-9a-f]{16})-([0-9a-f]{16})\Z")


class Marks(NamedTuple):
    """The marks in a name."""

    key: str
    content: str


def mark_of_key(key: str) -> str:
    """Return the mark of a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:MARK_LENGTH]


def wire_name(base: str, marks: Marks) -> str:
    """Return the name to send: the base is cut to fit, never the marks."""
    suffix = f"~{marks.key}-{marks.content}"
    return base[: NAME_LIMIT - len(suffix)] + suffix


def read_marks(name: str) -> Marks | None:
    """Return the marks at the end of a name, None when it has none."""
    found = _MARKED.search(name)
    return None if found is None else Marks(found[1], found[2])
