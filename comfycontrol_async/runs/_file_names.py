"""File names of downloads: one path component, valid on every operating system, and distinct on each.

The texts come from the service, from URLs and from templates, so they are untrusted.
"""

import ntpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from string import Formatter
from typing import Any
from urllib.parse import unquote, urlsplit

from comfycontrol_async.errors import InvalidArgumentError

# Control characters, path separators, characters reserved on Windows, bidirectional controls, line separators, and lone
# surrogates, which file systems cannot store.
_UNSAFE = re.compile(
    '[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]'
)
# In bytes: what file systems count; 255 is the usual bound.
_LONGEST_NAME = 200
_LONGEST_EXTENSION = 12
# A width or precision that no file name needs.
_WIDE = re.compile(r"\d{4}")

# Device names of Windows, reserved with any extension (Microsoft: "Naming Files, Paths, and Namespaces").
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "123456789\u00b9\u00b2\u00b3"]
)


def _is_device(name: str) -> bool:
    return name.partition(".")[0].rstrip(" ").casefold() in _DEVICES


# Python 3.13 knows the rule itself.
_is_reserved: Callable[[str], bool] = getattr(ntpath, "isreserved", _is_device)


def extension(url: str) -> str:
    """Return the extension that a URL's path ends with, such as ".png"; "" when it has none."""
    suffix = PurePosixPath(_last_part(url)).suffix
    return suffix if re.fullmatch(r"\.[0-9A-Za-z]{1,10}", suffix) else ""


def name_of(url: str, place: int) -> str:
    """Return a harmless file name for the output at `place` (from 0): the one at the end of its URL's path, if any."""
    last = _last_part(url)
    return safe_name(last) if last.strip(". ") else f"output-{place + 1:03}"


def _last_part(url: str) -> str:
    try:
        return unquote(urlsplit(url).path.rpartition("/")[2])
    except ValueError:
        return ""  # no URL at all, as fetching it will say


def safe_name(text: str) -> str:
    """Reduce text to one path component that is harmless on every system; a safe name stays as it is."""
    name = _without_unsafe(text).strip().rstrip(". ")
    if name.startswith((".", "-")) or not name or _is_reserved(name):
        # A hidden file, an option to a command, an empty name, or a device.
        name = "_" + name
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, dot, end = name.rpartition(".")
    if not dot or len(end.encode()) >= _LONGEST_EXTENSION:
        return _cut(name, _LONGEST_NAME)
    return _cut(stem, _LONGEST_NAME - len(end.encode()) - 1) + dot + end


def _without_unsafe(text: str) -> str:
    return unicodedata.normalize("NFC", _UNSAFE.sub("_", text))


def _cut(text: str, size: int) -> str:
    """Return as much of the beginning as fits in `size` bytes, and may stand at the end of a name."""
    return text.encode()[:size].decode(errors="ignore").rstrip(". ")


def folded(name: str) -> str:
    """Return a key that is equal for names which a file system that ignores case or Unicode form takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def target_names(template: str, extensions: Sequence[str], *, name: str, id: str) -> list[str]:
    """Return a file name for each output: the template with `{name}`, `{index}` (from 1), `{ext}` and `{id}` filled in.

    Args:
        template: as `WorkflowRun.download` takes it.
        extensions: of the outputs, in their order.
        name, id: of the workflow. A name that makes a file name too long is cut, so that its index and extension stay.

    Raises:
        InvalidArgumentError: the template has an unknown field, or gives two outputs names that are one file on some
            system (equal but for case, or for the form of an accent).
    """
    names = [
        safe_name(_filled(template, name, {"index": index, "ext": ext, "id": id}))
        for index, ext in enumerate(extensions, 1)
    ]
    if len({folded(name) for name in names}) < len(names):
        raise InvalidArgumentError(f"the template {template!r} gives several outputs one name: use {{index}} in it")
    return names


def check_widths(what: str, template: str) -> None:
    """Refuse a field that would be padded to thousands of characters, and take the memory for them.

    Raises:
        InvalidArgumentError: there is one.
    """
    try:
        wide = [field for _, field, spec, _ in Formatter().parse(template) if spec and _WIDE.search(spec)]
    except ValueError:
        return  # filling it in says what is wrong
    if wide:
        raise InvalidArgumentError(f"{what} {template!r:.200} cannot be filled in: {{{wide[0]}}} is too wide")


def _filled(template: str, name: str, fields: dict[str, Any]) -> str:
    """Return the filled template, with as much of the name as leaves it short enough."""
    if not isinstance(template, str):
        raise InvalidArgumentError(f"the template must be text, not {type(template).__name__}")
    check_widths("the template", template)
    name = _without_unsafe(name)
    while True:
        try:
            text = _without_unsafe(template.format(name=name, **fields))
        except (KeyError, IndexError, ValueError, AttributeError, TypeError, OverflowError, MemoryError) as error:
            raise InvalidArgumentError(
                f"the template {template!r} cannot be filled in ({error}); its fields are name, index, ext and id"
            ) from error
        excess = len(text.encode()) - _LONGEST_NAME
        if excess <= 0 or not name:
            return text
        # A template may hold the name several times.
        name = _cut(name, max(0, len(name.encode()) - -(-excess // max(1, template.count("{name")))))
