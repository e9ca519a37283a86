"""The table of all endpoints."""

from collections.abc import Awaitable, Callable

import attrs

from comfycontrol_async.testing.server import _handlers_runners as runners
from comfycontrol_async.testing.server import _handlers_templates as templates
from comfycontrol_async.testing.server import _handlers_workflows as workflows
from comfycontrol_async.testing.server._call import Call
from comfycontrol_async.testing.server._handlers_stream import subscribe_workflow
from comfycontrol_async.testing.server._records import Answer, ApiError, Stream
from comfycontrol_async.testing.server._validation import check_id

Handler = Callable[[Call], Awaitable[Answer | Stream]]

_ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/v1/runner"): runners.list_runners,
    ("POST", "/v1/runner"): runners.create_runner,
    ("GET", "/v1/runner/{id}"): runners.get_runner,
    ("PUT", "/v1/runner/{id}"): runners.update_runner,
    ("POST", "/v1/runner/{id}/interrupt"): runners.interrupt_runner,
    ("GET", "/v1/runner/{id}/history"): runners.runner_history,
    ("GET", "/v1/managed-runner"): runners.list_managed_runners,
    ("GET", "/v1/managed-runner/{id}"): runners.get_managed_runner,
    ("GET", "/v1/managed-runner/{id}/history"): runners.managed_runner_history,
    ("GET", "/v1/managed-runner/{id}/stats"): runners.managed_runner_stats,
    ("GET", "/v1/workflow"): workflows.list_workflows,
    ("POST", "/v1/workflow"): workflows.create_workflow,
    ("GET", "/v1/workflow/{id}"): workflows.get_workflow,
    ("POST", "/v1/workflow/{id}/cancel"): workflows.cancel_workflow,
    ("POST", "/v1/workflow/{id}/rerun"): workflows.rerun_workflow,
    ("GET", "/v1/workflow/{id}/outputs"): workflows.workflow_outputs,
    ("GET", "/v1/workflow/{id}/subscribe"): subscribe_workflow,
    ("GET", "/v1/template"): templates.list_templates,
    ("POST", "/v1/template"): templates.create_template,
    ("GET", "/v1/template/{id}"): templates.get_template,
    ("PUT", "/v1/template/{id}"): templates.update_template,
    ("GET", "/v1/user"): runners.get_user,
}
_PATHS = {path for _, path in _ROUTES}


@attrs.frozen
class Route:
    """Where a request goes: the endpoint's path with `{id}`, and the id in it."""

    template: str
    id: str


def route_of(path: str) -> Route:
    """Return the endpoint that `path` names, known or not."""
    parts = path.split("/", 4)
    if len(parts) < 4:
        return Route(path, "")
    return Route("/".join((*parts[:3], "{id}", *parts[4:])), parts[3])


def handler_of(method: str, route: Route) -> Handler:
    """Return the handler of an endpoint, or end the request with the right error."""
    handler = _ROUTES.get((method, route.template))
    if handler is None:
        known = route.template in _PATHS
        raise ApiError(405 if known else 404, "method not allowed" if known else "requested entity not found")
    if route.id:
        check_id(route.id)
    return handler
