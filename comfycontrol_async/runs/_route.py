"""Route: a way to the workflow endpoints, in one lane of the limiter."""

from collections.abc import Iterable

import attrs

from comfycontrol_async.limits import Priority
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.resources._calls import Open, Send


@attrs.frozen(eq=False, repr=False)
class Route:
    """A way to the service, in one lane: requests, the resource made of them, and how streams are opened."""

    send: Send
    workflows: WorkflowsResource
    open: Open
    priority: Priority = Priority.NORMAL


def highest(routes: Iterable[Route]) -> Route:
    """Return the one in the highest lane, the first of several."""
    return max(routes, key=lambda route: route.priority)
