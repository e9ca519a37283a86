"""Exit codes of the commands, and which error ends with which."""

from comfycontrol_async import (
    AuthenticationError,
    ComfyControlError,
    ConfigurationError,
    ConnectionFailedError,
    GraphError,
    InvalidArgumentError,
    RateLimitedError,
    RateLimitWaitError,
    RequestTimeoutError,
    ResponseLostError,
    TooManyFailuresError,
    WaitTimeoutError,
    WorkflowError,
)

DONE = 0
UNEXPECTED = 1
USAGE = 2
WORKFLOW_FAILED = 3
AUTHENTICATION = 4
RATE_LIMIT = 5
TIMED_OUT = 6
NOT_CONNECTED = 7
INTERRUPTED = 130

# The first that fits counts: a WaitTimeoutError is a WorkflowError too.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (WaitTimeoutError, TIMED_OUT),
    (WorkflowError, WORKFLOW_FAILED),
    (TooManyFailuresError, WORKFLOW_FAILED),
    (AuthenticationError, AUTHENTICATION),
    (RateLimitedError, RATE_LIMIT),
    (RateLimitWaitError, RATE_LIMIT),
    (RequestTimeoutError, TIMED_OUT),
    (ConnectionFailedError, NOT_CONNECTED),
    (ResponseLostError, NOT_CONNECTED),
    (GraphError, USAGE),
    (InvalidArgumentError, USAGE),
    (ConfigurationError, USAGE),
)


class MissingTokenError(ConfigurationError):
    """No token is set: the one setting whose absence is a failed authentication."""


def exit_code_of(error: ComfyControlError) -> int:
    """Return the exit code for an error; 1 for one that has none of its own."""
    if isinstance(error, MissingTokenError):
        return AUTHENTICATION
    return next((code for kind, code in _CODES if isinstance(error, kind)), UNEXPECTED)
