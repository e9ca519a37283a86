"""leave: what a batch that is left before its end does about its rows and the workflows that run for them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import attrs

from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._row_work import RowWork
from comfycontrol_async.errors import ComfyControlError

log = logging.getLogger("comfycontrol_async.batch")

# Seconds in which the answer of a create that has left should come.
ANSWER_TIME = 5.0
# Seconds in which a workflow that is not queued yet should be; and requests per second, one for each cancel.
_LONGEST = 30.0
_PER_SECOND = 4.0


async def leave(
    work: RowWork,
    tasks: set[asyncio.Task[None]],
    journal: BatchJournal | None,
    cancel: Callable[[str], Awaitable[object]] | None,
) -> None:
    """Drop the rows that are not sent yet; with `cancel`, cancel the workflows that run, within 30 s + n/4 s.

    A create that has left is waited for: what it made is cancelled too, and a journal that knows its answer has nothing
    to look for at the next start, which takes 30 s.
    """
    work.leaving = True
    sent = {task for task in tasks if task in work.sent}
    for task in tasks - sent:
        task.cancel()
    if sent:
        await asyncio.wait(sent, timeout=ANSWER_TIME if cancel is None else _LONGEST)
    if cancel is not None and work.under_way:
        await _cancel_all(work, journal, cancel)


async def _cancel_all(work: RowWork, journal: BatchJournal | None, cancel: Callable[[str], Awaitable[object]]) -> None:
    runs = list(work.under_way.values())

    async def one(id: str, entry: JournalEntry) -> None:
        if journal is not None:
            await journal.put(attrs.evolve(entry, state=JournalState.CANCELLING))
        await cancel(id)

    cancelling = {asyncio.ensure_future(one(run.id, entry)) for run, entry in runs}
    done, late = await asyncio.wait(cancelling, timeout=_LONGEST + len(cancelling) / _PER_SECOND)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    failed = [task for task in done if not task.cancelled() and isinstance(task.exception(), ComfyControlError)]
    if late or failed:
        count = len(late) + len(failed)
        log.warning("%d of %d workflows could not be cancelled: they go on at the service", count, len(runs))
