"""MapResult and MapProgress: what a batch gives."""

from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.errors import ComfyControlError
from comfycontrol_async.models import Output
from comfycontrol_async.runs._run import WorkflowRun


@attrs.define(kw_only=True)
class MapResult:
    """What became of one row; the batch fills it in on the way.

    Attributes:
        key: what tells this row from the others; its index where no key was asked for or could be told.
        index: its place among the rows, from 0.
        row: the row as it was given, columns that ride along included; a dict for a row of a table.
        run: its workflow; None when it could not be submitted.
        outputs: what the workflow made; empty for a row whose files an earlier start wrote.
        paths: the files that were written, when `download_to` was given.
        error: None when the workflow completed and everything wanted of it was fetched.
    """

    key: str
    index: int
    row: Any = attrs.field(repr=False)
    run: WorkflowRun | None = None
    outputs: list[Output] = attrs.field(factory=list)
    paths: list[Path] = attrs.field(factory=list)
    error: ComfyControlError | None = None


@attrs.frozen(kw_only=True)
class MapProgress:
    """How far a batch has come.

    Attributes:
        read: rows that were read.
        submitted: rows that have a workflow, those of an earlier start included.
        running: workflows that have not ended yet, as far as is known.
        done: rows that have their result.
        failed: how many of these have an error.
        requests: what this client has sent since the batch began, repeated requests and polls included.
        rate: rows that this start has finished, in each second of it; what the journal had done does not count.
        eta: seconds until all rows are done, if it goes on at this rate; None while that is not known: before the
            first row is done, or while rows that have no length are still being read.
        waiting_for_limit: seconds until the rate limit lets the next request out; 0.0 when none waits for it.
    """

    read: int = 0
    submitted: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    requests: int = 0
    rate: float = 0.0
    eta: float | None = None
    waiting_for_limit: float = 0.0
