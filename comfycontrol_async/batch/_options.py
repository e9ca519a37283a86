"""What a batch is asked for, its rows, and what it says, as plain values."""

import hashlib
import json
import math
import os
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async._settings import is_number
from comfycontrol_async.errors import (
    ComfyControlError,
    InvalidArgumentError,
    WorkflowCancelledError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.graph._file import File
from comfycontrol_async.limits import RateLimitSnapshot
from comfycontrol_async.models import Output
from comfycontrol_async.resources._checks import join_tags
from comfycontrol_async.runs._names import safe_name
from comfycontrol_async.runs._run import WorkflowRun

# Bytes of a key in a file name; an index, an extension and a mark come behind it.
_LONGEST_STEM = 120

Row = Mapping[str, Any]
Rows = Iterable[Row] | AsyncIterable[Row]
Key = Callable[[Row], object] | str


@attrs.define(kw_only=True)
class MapResult:
    """What became of one row; the batch fills it in on the way.

    `run` is None when it could not be submitted; `error` is None when the workflow completed and everything wanted
    of it was fetched. A row that the journal says is done comes with its `paths` and without a request.
    """

    key: str
    index: int
    row: Row = attrs.field(repr=False)
    run: WorkflowRun | None = None
    outputs: list[Output] = attrs.field(factory=list)
    paths: list[Path] = attrs.field(factory=list)
    error: ComfyControlError | None = None


@attrs.frozen(kw_only=True)
class MapProgress:
    """How far a batch has come: rows read, workflows made, rows done, and how many of these have an error."""

    read: int = 0
    submitted: int = 0
    done: int = 0
    failed: int = 0


@attrs.frozen(kw_only=True)
class BatchPlan:
    """What a number of workflows will need: API requests, and the seconds in which the limit lets these through."""

    requests: int
    seconds: float


@attrs.frozen(kw_only=True)
class BatchOptions:
    """The options of `ComfyControl.map`, checked.

    Raises:
        InvalidArgumentError: one makes no sense.
    """

    key: Key | None
    name: str
    tags: tuple[str, ...]
    concurrency: int
    ordered: bool
    outputs: bool
    download_to: Path | None
    journal: Path | None
    timeout: float | None
    max_failures: int | None
    on_progress: Callable[[MapProgress], object] | None

    def __attrs_post_init__(self) -> None:
        if not _is_count(self.concurrency, 1):
            raise InvalidArgumentError(f"concurrency must be a whole number from 1, not {self.concurrency!r}")
        if self.max_failures is not None and not _is_count(self.max_failures, 0):
            raise InvalidArgumentError(f"max_failures must be a whole number from 0, not {self.max_failures!r}")
        if self.timeout is not None and not (is_number(self.timeout) and self.timeout > 0):
            raise InvalidArgumentError(f"timeout must be a positive number of seconds, not {self.timeout!r}")
        if not (self.key is None or isinstance(self.key, str) or callable(self.key)):
            raise InvalidArgumentError(f"key must be a parameter's name or a function of the row, not {self.key!r}")
        if not isinstance(self.name, str):
            raise InvalidArgumentError(f"name must be text, not {type(self.name).__name__}")
        join_tags(self.tags)
        self.name_of("key", 0)

    def key_of(self, row: Row, index: int) -> str:
        """Return the key of a row: what the caller's function or parameter says, else its index."""
        if self.key is None:
            return str(index)
        try:
            found = self.key(row) if callable(self.key) else row.get(self.key)
        except Exception as error:
            raise InvalidArgumentError(f"the key of row {index} cannot be told: {error!r}") from error
        if found is None or not str(found):
            raise InvalidArgumentError(f"row {index} has no key")
        return str(found)

    def name_of(self, key: str, index: int) -> str:
        """Return the name that a row's workflow begins with."""
        try:
            return self.name.format(key=key, index=index) or key
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InvalidArgumentError(
                f"the name {self.name!r} cannot be filled in ({error}); its fields are key and index"
            ) from error


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# Requests for each workflow's share of being watched, as `_watch_plan` reckons.
_WATCH_SHARE = 0.05


def plan_batch(n: int, *, outputs: bool, limits: RateLimitSnapshot) -> BatchPlan:
    """Reckon what `n` workflows will need; the workflows' own duration comes on top."""
    if not _is_count(n, 0):
        raise InvalidArgumentError(f"n must be a whole number of workflows from 0, not {n!r}")
    requests = n * (2 if outputs else 1) + math.ceil(n * _WATCH_SHARE)
    waiting = sum(limits.waiting.values())
    queued = max(0, requests + waiting - limits.available)
    # What is free goes at once; the rest follows at the limit's pace.
    seconds = limits.cooldown + queued * limits.period / limits.limit
    return BatchPlan(requests=requests, seconds=seconds)


async def walk(rows: Rows) -> AsyncGenerator[Row, None]:
    """Walk any iterable, lazily."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


def check_rows(rows: object) -> None:
    """Refuse what can be no rows."""
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, (Iterable, AsyncIterable)):
        raise InvalidArgumentError(
            f"rows must be an iterable of mappings of parameter names to values, not {type(rows).__name__}"
        )


def check_directory(directory: Path | None) -> None:
    """Refuse a directory that can never be made, for something else has its name or that of a parent; blocking."""
    for path in () if directory is None else (directory, *directory.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise InvalidArgumentError(f"download_to must be a directory, but {str(path)!r} is none")
            return


def stem_of(key: str) -> str:
    """Return what the file names of a row begin with: its key, where that is harmless, with a mark where it is not.

    Without the mark two keys, such as `a/b` and `a:b`, might get one name.
    """
    safe = safe_name(key).encode(errors="ignore")[:_LONGEST_STEM].decode(errors="ignore")
    if safe == key:
        return key
    return f"{safe}-{hashlib.blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def digest_of(row: Row) -> str:
    """Return what tells a row from another one, without keeping its content."""

    def plain(value: object) -> object:
        if isinstance(value, File):
            return ["file", plain(value.path or value.source), value.filename]
        if isinstance(value, bytes):
            return ["bytes", hashlib.sha256(value).hexdigest()]
        return str(value) if isinstance(value, Path) else type(value).__name__

    try:
        text = json.dumps(dict(row), sort_keys=True, default=plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the row is no mapping of parameter names to values: {error}") from error
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def error_of(run: WorkflowRun, status: str, message: str) -> WorkflowError:
    """Make the error that a journal remembers of a workflow."""
    classes = {"cancelled": WorkflowCancelledError, "invalid": WorkflowInvalidError}
    return classes.get(status, WorkflowFailedError)(message, id=run.id, name=run.name, status=status)
