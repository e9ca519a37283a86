"""The options of `ComfyControl.map`, checked before anything is read or sent."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from comfycontrol_async._settings import check_count, check_seconds
from comfycontrol_async.batch._columns import ParamsOf, call
from comfycontrol_async.batch._progress import OnProgress
from comfycontrol_async.batch._rows import STRAY, Row, left_out
from comfycontrol_async.batch._templates import DEFAULT_TEMPLATE, check_pattern, columns_in, fill_in
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.graph._issues import shown
from comfycontrol_async.graph._json import has_surrogate
from comfycontrol_async.resources._checks import check_tags, join_tags

Key = Callable[[Row], object] | str
Params = Iterable[str] | ParamsOf
# What happens to a workflow that is not waited for any longer.
OnEnd = Literal["detach", "cancel"]


def _tags(tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(check_tags(tags))


def _names(params: Params | None) -> tuple[str, ...] | ParamsOf | None:
    if params is None or callable(params):
        return params
    if isinstance(params, (str, bytes, Mapping)) or not isinstance(params, Iterable):
        raise InvalidArgumentError(
            f"params must be names of columns, or a function of the row that returns a mapping, not {shown(params)}"
        )
    names = tuple(params)
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"params must be names of columns, not {shown(name)}")
    return names


def _path(what: str, path: object) -> Path | None:
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidArgumentError(f"{what} must be a path, not {shown(path)}")
    return Path(path)


def _directory(path: str | os.PathLike[str] | None) -> Path | None:
    return _path("download_to", path)


def _journal(path: str | os.PathLike[str] | None) -> Path | None:
    return _path("journal", path)


@attrs.frozen(eq=False, repr=False, kw_only=True)
class BatchOptions:
    """The options of a batch.

    Raises:
        InvalidArgumentError: one is invalid; the text names it.
    """

    key: Key | None = None
    name: str = "{key}"
    tags: tuple[str, ...] = attrs.field(default=(), converter=_tags)
    params: tuple[str, ...] | ParamsOf | None = attrs.field(default=None, converter=_names)
    concurrency: int = 100
    ordered: bool = False
    outputs: bool = True
    download_to: Path | None = attrs.field(default=None, converter=_directory)
    template: str | None = None
    journal: Path | None = attrs.field(default=None, converter=_journal)
    retry_failed: bool = False
    timeout: float | None = None
    on_timeout: OnEnd = "detach"
    on_cancel: OnEnd = "detach"
    max_failures: int | None = None
    on_progress: OnProgress | None = None

    def __attrs_post_init__(self) -> None:
        check_count("concurrency", self.concurrency, InvalidArgumentError, least=1)
        if self.max_failures is not None:
            check_count("max_failures", self.max_failures, InvalidArgumentError)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, InvalidArgumentError, positive=True)
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            raise InvalidArgumentError(f"key must be a column's name or a function of the row, not {shown(self.key)}")
        if self.on_progress is not None and not callable(self.on_progress):
            raise InvalidArgumentError(f"on_progress must be a function, not {shown(self.on_progress)}")
        for what, choice in (("on_timeout", self.on_timeout), ("on_cancel", self.on_cancel)):
            if choice not in ("detach", "cancel"):
                raise InvalidArgumentError(f"{what} must be 'detach' or 'cancel', not {shown(choice)}")
        check_pattern("name", self.name)
        join_tags(self.tags)
        for tag in self.tags:
            check_pattern("a tag", tag)
        if self.template is not None:
            check_pattern("template", self.template, path=True)
        if self.retry_failed and self.journal is None:
            raise InvalidArgumentError("retry_failed needs a journal, which knows what failed")

    @property
    def pattern(self) -> str:
        """What the file names are made of."""
        return DEFAULT_TEMPLATE if self.template is None else self.template

    def needed(self) -> dict[str, str]:
        """Return the columns that every row must have, each with what needs it."""
        needed = {self.key: "it is the key"} if isinstance(self.key, str) else {}
        used = {"name": columns_in(self.name), "template": columns_in(self.pattern, path=True)}
        used["tags"] = [column for tag in self.tags for column in columns_in(tag)]
        return needed | {column: f"{what} uses it" for what, columns in used.items() for column in columns}

    def key_of(self, row: Row, columns: Mapping[str, Any], index: int) -> str:
        """Return the key of a row: what the caller's function or column says, else its index.

        Raises:
            InvalidArgumentError: there is none, or it cannot be written.
        """
        if self.key is None:
            return str(index)
        found = call(self.key, row, "key") if callable(self.key) else columns.get(self.key)
        try:
            key = "" if left_out(found) else str(found)
        except STRAY as error:  # a caller's own type, or a number too long to write out
            raise InvalidArgumentError(f"the key of row {index} cannot be written: {shown(error)}") from error
        if not key:
            raise InvalidArgumentError(f"row {index} has no key")
        if has_surrogate(key):
            raise InvalidArgumentError(f"the key of row {index} holds half a surrogate pair, which is no text")
        return key

    def name_of(self, values: Mapping[str, Any]) -> str:
        """Return the name that a row's workflow begins with, from its columns, key and index."""
        return fill_in("name", self.name, values).strip() or str(values["key"])

    def tags_of(self, values: Mapping[str, Any]) -> list[str]:
        """Return the tags of a row; one that nothing is left of is left out."""
        tags = [text for text in (fill_in("a tag", tag, values).strip() for tag in self.tags) if text]
        join_tags(tags)
        return tags


def check_directory(directory: Path | None) -> None:
    """Make the directory of downloads and write into it, as a test; blocking.

    Raises:
        InvalidArgumentError: it cannot be made, or takes no files.
    """
    import tempfile

    if directory is None:
        return
    for path in (directory, *directory.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise InvalidArgumentError(f"download_to must be a directory, but {str(path)!r} is none")
            break
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"download_to: no file can be written in {str(directory)!r}: {reason}") from error
