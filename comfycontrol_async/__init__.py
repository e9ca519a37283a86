"""An asyncio client for ComfyControl with a rate limiter that never exceeds the server's limit.

async with ComfyControl() as comfy:
    run = await comfy.run("workflow.json", params={"prompt": "a cat"}, timeout=600)
    paths = await run.download("out/")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from comfycontrol_async._settings import __version__

if TYPE_CHECKING:
    from comfycontrol_async._client import ComfyControl
    from comfycontrol_async._http._config import Timeouts, WatchPolicy
    from comfycontrol_async._http._paginate import Pager
    from comfycontrol_async._http._request import RawResponse
    from comfycontrol_async._http._retry import RetryPolicy
    from comfycontrol_async.batch import BatchPlan, Journal, JournalEntry, JournalState, MapProgress, MapResult
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
    from comfycontrol_async.limits import Limiter, LocalLimiter, Permit, Priority, RateLimitSnapshot, Stage
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
    "Journal",
    "JournalEntry",
    "JournalState",
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
    "RawResponse",
    "RequestTimeoutError",
    "ResponseFormatError",
    "ResponseLostError",
    "RetryPolicy",
    "Runner",
    "RunnerStats",
    "RunnerStatus",
    "RunnerType",
    "ServerError",
    "Stage",
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

# A name is loaded when it is first used: a command line that shows its help, a pytest that only loads our plugin, a
# program that checks graphs load neither aiohttp nor the rest.
_HOMES = {
    "_client": "ComfyControl",
    "_http._config": "Timeouts WatchPolicy",
    "_http._paginate": "Pager",
    "_http._request": "RawResponse",
    "_http._retry": "RetryPolicy",
    "batch": "BatchPlan Journal JournalEntry JournalState MapProgress MapResult",
    "errors": "APIError AuthenticationError BadRequestError ClientClosedError ClientLoopError ComfyControlError "
    "ConfigurationError ConnectionFailedError DownloadError GraphError InvalidArgumentError "
    "KeyConflictError NotFoundError PermissionDeniedError RateLimitedError RateLimitWaitError "
    "RequestTimeoutError ResponseFormatError ResponseLostError ServerError SubmitOutcomeUnknownError "
    "TooManyFailuresError TransportError WaitTimeoutError WorkflowCancelledError WorkflowError "
    "WorkflowFailedError WorkflowInvalidError WorkflowNotFinishedError",
    "graph._definitions": "NodeDefinitions",
    "graph._file": "File",
    "graph._graph": "Graph",
    "graph._issues": "GraphIssue",
    "graph._placeholders": "Parameter",
    "limits": "Limiter LocalLimiter Permit Priority RateLimitSnapshot Stage",
    "models": "DeviceStats FailureCause InvalidItem ManagedRunner Output Page Runner RunnerStats RunnerStatus "
    "RunnerType SystemStats Template TemplateSummary User UserProvider UserTier Workflow WorkflowStatus "
    "WorkflowSummary WorkflowUpdate",
    "runs._output_file": "OutputFile",
    "runs._run": "WorkflowRun",
    "runs._stores": "ObjectStore",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_ROOMS = ("batch", "errors", "events", "graph", "limits", "models", "resources", "runs")

if not TYPE_CHECKING:  # where types are checked, the imports above say what there is, and nothing else is

    def __getattr__(name: str) -> object:
        """Load a public name, or a public room, at its first use (PEP 562)."""
        if name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """List what can be had, loaded or not."""
        return sorted({*globals(), *__all__, *_ROOMS})
