"""An asyncio client for ComfyControl with a rate limiter that never exceeds the server's limit.

async with ComfyControl() as comfy:
    run = await comfy.run("workflow.json", params={"prompt": "a cat"}, timeout=600)
    paths = await run.download("out/")
"""

from comfycontrol_async._client import ComfyControl
from comfycontrol_async._http._config import Timeouts, WatchPolicy
from comfycontrol_async._http._paginate import Pager
from comfycontrol_async._http._retry import RetryPolicy
from comfycontrol_async._settings import __version__
from comfycontrol_async.batch._options import BatchPlan, MapProgress, MapResult
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ClientLoopError,
    ComfyControlError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    GraphError,
    InvalidArgumentError,
    KeyConflictError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RateLimitWaitError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    SubmitOutcomeUnknownError,
    TooManyFailuresError,
    TransportError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
    WorkflowNotFinishedError,
)
from comfycontrol_async.graph._definitions import NodeDefinitions
from comfycontrol_async.graph._file import File
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.graph._issues import GraphIssue
from comfycontrol_async.graph._placeholders import Parameter
from comfycontrol_async.limits import Limiter, LocalLimiter, Permit, Priority, RateLimitSnapshot
from comfycontrol_async.models import (
    DeviceStats,
    FailureCause,
    InvalidItem,
    ManagedRunner,
    Output,
    Page,
    Runner,
    RunnerStats,
    RunnerStatus,
    RunnerType,
    SystemStats,
    Template,
    TemplateSummary,
    User,
    UserProvider,
    UserTier,
    Workflow,
    WorkflowStatus,
    WorkflowSummary,
    WorkflowUpdate,
)
from comfycontrol_async.runs._output_file import OutputFile
from comfycontrol_async.runs._run import WorkflowRun
from comfycontrol_async.runs._stores import ObjectStore

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BatchPlan",
    "ClientClosedError",
    "ClientLoopError",
    "ComfyControl",
    "ComfyControlError",
    "ConfigurationError",
    "ConnectionFailedError",
    "DeviceStats",
    "DownloadError",
    "FailureCause",
    "File",
    "Graph",
    "GraphError",
    "GraphIssue",
    "InvalidArgumentError",
    "InvalidItem",
    "KeyConflictError",
    "Limiter",
    "LocalLimiter",
    "ManagedRunner",
    "MapProgress",
    "MapResult",
    "NodeDefinitions",
    "NotFoundError",
    "ObjectStore",
    "Output",
    "OutputFile",
    "Page",
    "Pager",
    "Parameter",
    "PermissionDeniedError",
    "Permit",
    "Priority",
    "RateLimitSnapshot",
    "RateLimitWaitError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ResponseFormatError",
    "ResponseLostError",
    "RetryPolicy",
    "Runner",
    "RunnerStats",
    "RunnerStatus",
    "RunnerType",
    "ServerError",
    "SubmitOutcomeUnknownError",
    "SystemStats",
    "Template",
    "TemplateSummary",
    "Timeouts",
    "TooManyFailuresError",
    "TransportError",
    "User",
    "UserProvider",
    "UserTier",
    "WaitTimeoutError",
    "WatchPolicy",
    "Workflow",
    "WorkflowCancelledError",
    "WorkflowError",
    "WorkflowFailedError",
    "WorkflowInvalidError",
    "WorkflowNotFinishedError",
    "WorkflowRun",
    "WorkflowStatus",
    "WorkflowSummary",
    "WorkflowUpdate",
    "__version__",
]
