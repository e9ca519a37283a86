"""Reads the newest workflows of the listing, page by page, until they are older than what is looked for."""

from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from comfycontrol_async.models import Page, WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource

PER_PAGE = 100


async def newest_pages(
    workflows: WorkflowsResource, until: Callable[[], datetime]
) -> AsyncGenerator[Page[WorkflowSummary], None]:
    """Give the first page of the listing whole, and those after it down to a time of the service's clock.

    `until` is asked after each page, for the answer itself tells the service's time. It ends, too, at a page that
    brings nothing new: such a listing does not go on, whatever its total says.
    """
    seen: set[str] = set()
    number = 1
    while True:
        page = await workflows.list(per_page=PER_PAGE).page(number)
        yield page
        ids = {item.id for item in page.items}
        count = len(page.items) + len(page.invalid_items)
        oldest = min((item.created_at for item in page.items), default=None)
        if count < PER_PAGE or not ids - seen or oldest is None or oldest < until():
            return
        seen |= ids
        number += 1
