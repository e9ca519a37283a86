"""Cancel a workflow for good, also one that is not queued yet, which the API refuses to cancel until it is."""

import logging
from itertools import count

from comfycontrol_async._clock import Clock
from comfycontrol_async.errors import BadRequestError, ComfyControlError
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._deadline import Deadline

log = logging.getLogger("comfycontrol_async")

# Seconds for which a workflow that cannot be cancelled yet is tried to be cancelled.
LONGEST = 30.0


async def cancel_for_good(
    workflows: WorkflowsResource, id: str, clock: Clock, *, pause: float = 1.0, longest: float = LONGEST
) -> WorkflowSummary | None:
    """Cancel a workflow as soon as the API lets us; return how it ended if it ended otherwise, else None.

    It is tried again soon at first, for most are queued in a moment, then each `pause` seconds. One that could not be
    cancelled in time is logged as going on. Errors are logged too: the caller is on its way out.
    """
    try:
        async with Deadline(clock) as deadline:  # waiting for the rate limit and repeated requests included
            deadline.expire_in(longest)
            for tried in count():
                try:
                    await workflows.cancel(id)
                    return None
                except BadRequestError:
                    workflow = await workflows.get(id)
                    if workflow.status.terminal:
                        return workflow
                await clock.sleep(pause * 2.0 ** min(tried - 2, 0))
    except ComfyControlError as error:
        log.warning("workflow %s could not be cancelled, it goes on at the service: %s", id, error)
    else:
        log.warning("workflow %s could not be cancelled in %.0f s: it goes on at the service", id, longest)
    return None
