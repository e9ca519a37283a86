"""leave: what a batch that is left with on_cancel="cancel" does about the workflows that run for it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import attrs

from comfycontrol_async.batch._journal import BatchJournal
from comfycontrol_async.batch._journal_entry import JournalEntry, JournalState
from comfycontrol_async.batch._row import RowWork
from comfycontrol_async.errors import ComfyControlError

log = logging.getLogger("comfycontrol_async.batch")

# Seconds in which a workflow that is not queued yet should be; and requests per second, one for each cancel.
_LONGEST = 30.0
_PER_SECOND = 4.0


async def leave(
    work: RowWork,
    tasks: set[asyncio.Task[None]],
    journal: BatchJournal | None,
    cancel: Callable[[str], Awaitable[object]],
) -> None:
    """Drop the rows that are not sent yet, and cancel the workflows that run, within 30 s + n/4 s."""
    work.leaving = True
    sent = {task for task in tasks if task in work.sent}
    for task in tasks - sent:
        task.cancel()
    if sent:
        await asyncio.wait(sent, timeout=_LONGEST)
    runs = list(work.under_way.values())

    async def one(id: str, entry: JournalEntry) -> None:
        if journal is not None:
            await journal.put(attrs.evolve(entry, state=JournalState.CANCELLING))
        await cancel(id)

    cancelling = {asyncio.ensure_future(one(run.id, entry)) for run, entry in runs}
    if not cancelling:
        return
    done, late = await asyncio.wait(cancelling, timeout=_LONGEST + len(cancelling) / _PER_SECOND)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)
    failed = [task for task in done if not task.cancelled() and isinstance(task.exception(), ComfyControlError)]
    if late or failed:
        log.warning(
            "%d of %d workflows could not be cancelled: they go on at the service", len(late) + len(failed), len(runs)
        )
