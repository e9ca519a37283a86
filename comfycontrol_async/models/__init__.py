"""Every object and enum of the API as frozen attrs classes."""

from comfycontrol_async.models._enums import (
    OpenEnum,
    RunnerStatus,
    RunnerType,
    UserProvider,
    UserTier,
    WorkflowStatus,
)
from comfycontrol_async.models.page import InvalidItem, Page
from comfycontrol_async.models.runner import DeviceStats, ManagedRunner, Runner, RunnerStats, SystemStats
from comfycontrol_async.models.template import Template, TemplateSummary
from comfycontrol_async.models.user import User
from comfycontrol_async.models.workflow import FailureCause, Output, Workflow, WorkflowSummary, WorkflowUpdate

__all__ = [
    "DeviceStats",
    "FailureCause",
    "InvalidItem",
    "ManagedRunner",
    "OpenEnum",
    "Output",
    "Page",
    "Runner",
    "RunnerStats",
    "RunnerStatus",
    "RunnerType",
    "SystemStats",
    "Template",
    "TemplateSummary",
    "User",
    "UserProvider",
    "UserTier",
    "Workflow",
    "WorkflowStatus",
    "WorkflowSummary",
    "WorkflowUpdate",
]
