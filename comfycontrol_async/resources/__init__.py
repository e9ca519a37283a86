"""One class for each area of the API."""

from comfycontrol_async.resources.managed_runners import ManagedRunnersResource
from comfycontrol_async.resources.runners import RunnersResource
from comfycontrol_async.resources.templates import TemplatesResource
from comfycontrol_async.resources.user import UserResource
from comfycontrol_async.resources.workflows import WorkflowsResource

__all__ = [
    "ManagedRunnersResource",
    "RunnersResource",
    "TemplatesResource",
    "UserResource",
    "WorkflowsResource",
]
