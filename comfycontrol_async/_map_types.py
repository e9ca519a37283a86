"""What a batch is asked for and what it says, as plain values."""

import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.errors import ComfyControlError, InvalidArgumentError
from comfycontrol_async.limits import RateLimitSnapshot
from comfycontrol_async.models import Output
from comfycontrol_async.resources._checks import join_tags
from comfycontrol_async.runs import WorkflowRun

Row = Mapping[str, Any]
Rows = Iterable[Row] | AsyncIterable[Row]
Key = Callable[[Row], object] | str


@attrs.frozen(kw_only=True)
class MapResult:
    """What became of one row.

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
        if isinstance(self.concurrency, bool) or not isinstance(self.concurrency, int) or self.concurrency < 1:
            raise InvalidArgumentError(f"concurrency must be a whole number from 1, not {self.concurrency!r}")
        if self.max_failures is not None and self.max_failures < 0:
            raise InvalidArgumentError(f"max_failures must be a whole number from 0, not {self.max_failures!r}")
        if self.timeout is not None and not self.timeout > 0:
            raise InvalidArgumentError(f"timeout must be a positive number of seconds, not {self.timeout!r}")
        join_tags(self.tags)
        self.name_of("key", 0)

    def key_of(self, row: Row, index: int) -> str:
        """Return the key of a row: what the caller's function or parameter says, else its index."""
        if self.key is None:
            return str(index)
        found = self.key(row) if callable(self.key) else row.get(self.key)
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


# Requests for each workflow's share of being watched, as `_watch_plan` reckons.
_WATCH_SHARE = 0.05


def plan_batch(n: int, *, outputs: bool, limits: RateLimitSnapshot) -> BatchPlan:
    """Reckon what `n` workflows will need; the workflows' own duration comes on top."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise InvalidArgumentError(f"n must be a whole number of workflows from 0, not {n!r}")
    requests = n * (2 if outputs else 1) + math.ceil(n * _WATCH_SHARE)
    waiting = sum(limits.waiting.values())
    queued = max(0, requests + waiting - limits.available)
    # What is free goes at once; the rest follows at the limit's pace.
    seconds = limits.cooldown + queued * limits.period / limits.limit
    return BatchPlan(requests=requests, seconds=seconds)
