"""Keys: two submits with one key give one workflow, from whatever process or machine they come.

Before anything is sent, the listing is read back to `key_max_age` seconds ago and searched for the key's mark, which
stands in the workflow's name. What is found is adopted. All keyed submits of a client share one index of marks and its
looks (`_key_index`).

Two callers at once may both create. So each create is confirmed by a look right after it, or by the first that shows
it: the oldest is the one that counts; a younger one is cancelled if it still waits, by its own caller, else by the
oldest one's a few seconds later. The times are whole seconds: within one the order of the listing, newest first, tells
which is older. What remains possible is that two run: if the younger has begun by then. That is logged.
"""

import logging
from collections.abc import Collection

from comfycontrol_async.errors import ComfyControlError, KeyConflictError, SubmitOutcomeUnknownError
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary
from comfycontrol_async.runs._cancel import cancel_for_good
from comfycontrol_async.runs._draft import Draft
from comfycontrol_async.runs._key_index import KeyIndex
from comfycontrol_async.runs._submit import WAITING, Submitter

log = logging.getLogger("comfycontrol_async")

# Seconds in which another caller should have cancelled its younger workflow of the same key.
_GRACE = 5.0
# Times that a key is created again because both of two callers took the other's for the older one.
_MOST_RACES = 3


async def submit_once(index: KeyIndex, submitter: Submitter, draft: Draft, max_age: float) -> WorkflowSummary:
    """Adopt the workflow that was made with the draft's key, or create it.

    Raises:
        KeyConflictError: the key was used before, for another content.
        SubmitOutcomeUnknownError, TransportError, APIError, RateLimitWaitError: as `Submitter.submit`.
    """
    assert draft.marks is not None  # drafts with a key have marks
    asked = index.clock.monotonic()
    async with index.lock(draft.marks.key):
        for _ in range(_MOST_RACES):
            if max_age > 0 and (found := await _find(index, submitter, draft, max_age, asked)) is not None:
                submitter.ledger.adopt(found.id)
                log.info("the key of %r was used before: it is %s", draft.name, found.id)
                return found
            known = index.ids(draft.marks.key)
            made = await _create(index, submitter, draft, known)
            counting = await _confirm(index, submitter, draft, made, known) if max_age > 0 else made
            if counting is not None:
                return counting
            asked = index.clock.monotonic()  # what was known before is out of date
    raise SubmitOutcomeUnknownError(draft.name, sorted(index.ids(draft.marks.key)))


async def _find(
    index: KeyIndex, submitter: Submitter, draft: Draft, max_age: float, asked: float
) -> WorkflowSummary | None:
    assert draft.marks is not None  # as above
    looked = False
    while True:
        found = index.find(draft.marks.key, max_age)
        if not found:
            if looked:
                return None
            await index.look(submitter.route, max_age)
            looked = True
            continue
        if (summary := await index.check(submitter.route, found[0], asked)) is None:
            continue
        if found[0].marks.content != draft.marks.content:
            raise KeyConflictError(draft.key or "", summary.id)
        return summary


async def _create(index: KeyIndex, submitter: Submitter, draft: Draft, known: Collection[str]) -> WorkflowSummary:
    index.sending += 1
    try:
        return await submitter.submit(draft.form, draft.name, unique=True, rivals=known)
    finally:
        index.sending -= 1


async def _confirm(
    index: KeyIndex, submitter: Submitter, draft: Draft, made: WorkflowSummary, known: Collection[str]
) -> WorkflowSummary | None:
    """See whether another caller made one with this key since what was known, and let the oldest count.

    None when that one was cancelled, too: each caller took the other's for the older.
    """
    assert draft.marks is not None  # as above
    try:
        await index.confirm(submitter.route, made)
    except ComfyControlError as error:
        log.warning("it could not be confirmed that %s is the only workflow of its key: %s", made.id, error)
        return made
    counting = [one for one in index.find(draft.marks.key, None) if one.summary.id not in known]
    if not counting or counting[0].summary.id == made.id:
        if younger := [one.summary for one in counting[1:]]:
            submitter.background.spawn(_end(submitter, made, younger), f"rivals of {made.id}")
        return made
    oldest = counting[0]
    winner = oldest.summary
    if index.last(made).status not in WAITING:
        log.warning("two workflows of one key run: %s was made first, and %s has begun too", winner.id, made.id)
        return made
    log.info("another caller made %s with the key of %s first: cancelling the younger", winner.id, made.id)
    ended = await cancel_for_good(submitter.route.workflows, made.id, submitter.clock)
    if ended is not None and ended.status != WorkflowStatus.CANCELLED:
        log.warning("two workflows of one key ran: %s was made first, and %s %s too", winner.id, made.id, ended.status)
    if oldest.marks.content != draft.marks.content:
        raise KeyConflictError(draft.key or "", winner.id)
    submitter.ledger.adopt(winner.id)
    return await index.check(submitter.route, oldest, index.clock.monotonic())


async def _end(submitter: Submitter, made: WorkflowSummary, younger: list[WorkflowSummary]) -> None:
    """Cancel the younger workflows of a key whose own callers have not done it, for they may have died.

    One that had begun stays its caller's, and of one second each caller may take its own for the older.
    """
    await submitter.clock.sleep(_GRACE)
    for rival in younger:
        workflow = await submitter.route.workflows.get(rival.id)
        if workflow.status == WorkflowStatus.CANCELLED:
            continue
        if {rival.status, workflow.status} <= WAITING and rival.created_at > made.created_at:
            await submitter.cancel_double(workflow)
        else:
            log.warning("two workflows of one key run: %s, and %s of another caller", made.id, rival.id)
