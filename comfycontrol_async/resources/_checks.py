"""Arguments that the API is known to refuse, found before a request is spent.

Every function returns the value it was given, in the form that is sent, or raises `InvalidArgumentError`.
"""

import re
from collections.abc import Iterable, Mapping

from yarl import URL

from comfycontrol_async._settings import check_count
from comfycontrol_async.errors import InvalidArgumentError

# UUID-like: the API's own examples are no valid UUIDs (`t1e2m3p4-l5a6-7890-abcd-ef1234567890`).
_ID = re.compile(r"[0-9A-Za-z]{8}(-[0-9A-Za-z]{4}){3}-[0-9A-Za-z]{12}", re.ASCII)


def is_id(text: str) -> bool:
    """Tell whether a text is UUID-like."""
    return _ID.fullmatch(text) is not None


def check_id(value: str) -> str:
    """Take an id of UUID-like text."""
    text = str(value)
    if not is_id(text):
        raise InvalidArgumentError(f"an id is text like '550e8400-e29b-41d4-a716-446655440000', not {text[:60]!r}")
    return text


def check_text(what: str, value: object, longest: int) -> str:
    """Take text of 1 to `longest` characters."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{what} must be text, not {type(value).__name__}")
    if not value.strip():
        raise InvalidArgumentError(f"{what} must not be empty")
    if len(value) > longest:
        raise InvalidArgumentError(f"{what} has {len(value)} characters, but the API takes at most {longest}")
    return value


def check_endpoint(value: str) -> str:
    """Take an http or https URL."""
    try:
        url = URL(str(value))
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        shown = str(value).rpartition("@")[2][:60]  # before the @ may be a password
        raise InvalidArgumentError(f"an endpoint is a URL like 'https://comfy.example.com', not {shown!r}")
    return str(value)


def check_tags(value: object, most: int | None = None) -> list[str]:
    """Take texts that are not empty, at most `most` of them."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidArgumentError(f"tags must be a list of texts, not {value!r}: write tags=[{value!r}]")
    tags = list(value)
    for tag in tags:
        if not isinstance(tag, str) or not tag.strip():
            raise InvalidArgumentError(f"a tag is text that is not empty, not {tag!r}")
    if most is not None and len(tags) > most:
        raise InvalidArgumentError(f"there are {len(tags)} tags, but the API takes at most {most}")
    return tags


def join_tags(value: object) -> str:
    """Take tags for a workflow: they are sent as one text, separated by commas."""
    tags = check_tags(value)
    for tag in tags:
        if "," in tag:
            raise InvalidArgumentError(f"the tag {tag!r} has a comma, which separates tags on the wire: leave it out")
    return ",".join(tags)


def check_headers(value: object) -> dict[str, str]:
    """Take a mapping of header names to values; a value is never quoted in an error, it may be a secret."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"headers must be a mapping of names to texts, not {type(value).__name__}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InvalidArgumentError(f"the header {name!r} must have text as its value")
    return dict(value)


def check_per_page(value: object) -> int:
    """Take a page size of 1 to 100."""
    return check_count("per_page", value, InvalidArgumentError, least=1, most=100)
