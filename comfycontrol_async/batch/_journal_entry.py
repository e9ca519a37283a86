"""JournalEntry: what a journal says of a row, as columns of its table with a mark of their content."""

import hashlib
import json
from enum import StrEnum
from typing import Any

import attrs


class JournalState(StrEnum):
    """How far a row has come: planned, submitting, submitted, finished, downloaded; or cancelling, or failed.

    What each of them means: `Journal.rows`.
    """

    PLANNED = "planned"
    SUBMITTING = "submitting"  # a request may have been sent: look for its name before sending again
    SUBMITTED = "submitted"
    CANCELLING = "cancelling"  # the batch was left with on_cancel="cancel": submitted again if it was cancelled
    FINISHED = "finished"
    DOWNLOADED = "downloaded"
    FAILED = "failed"  # with an id: at the service; without one: it could not be submitted, and is tried again


@attrs.frozen(kw_only=True)
class JournalEntry:
    """A row of a journal.

    Attributes:
        key: what tells the row from the others.
        position: its index when it was first read.
        digest: 64 hex digits for what is sent.
        state: "planned", "submitting", "submitted", "cancelling", "finished", "downloaded" or "failed".
        name: the name of its workflow.
        sent_at, created_at: ISO 8601 by the server's clock; "" while there is none.
        id: of its workflow; "" while none is known.
        status: the last one seen.
        error: the class of the error and its text, when it failed.
        paths: the files that were written.
    """

    key: str
    position: int
    digest: str
    state: JournalState = JournalState.PLANNED
    name: str = ""
    sent_at: str = ""
    id: str = ""
    created_at: str = ""
    status: str = ""
    error: str = ""
    paths: tuple[str, ...] = ()


FIELDS = tuple(field.name for field in attrs.fields(JournalEntry))


def values_of(entry: JournalEntry) -> tuple[Any, ...]:
    """Return the columns of an entry, its mark last; what the service said may hold what no text can."""
    values = attrs.asdict(entry, recurse=False) | {"state": entry.state.value, "paths": json.dumps(entry.paths)}
    columns = tuple(
        value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for value in values.values()
    )
    return (*columns, _mark(columns))


def entry_of(columns: tuple[Any, ...]) -> JournalEntry | None:
    """Return the entry of some columns, None when they are not as they were written."""
    *values, mark = columns
    try:
        if mark != _mark(tuple(values)):
            return None
        fields = dict(zip(FIELDS, values, strict=True))
        return JournalEntry(
            **fields | {"state": JournalState(fields["state"]), "paths": tuple(json.loads(fields["paths"]))}
        )
    except (ValueError, TypeError, RecursionError):
        return None


def _mark(columns: tuple[Any, ...]) -> str:
    """Return the mark of an entry's columns; text in place of a number, and the other way round, has another one."""
    return hashlib.blake2b(repr(columns).encode(errors="surrogateescape"), digest_size=8).hexdigest()
