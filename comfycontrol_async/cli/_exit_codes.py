"""Exit codes of the commands, which error ends with which, and what to do about it."""

import re

from comfycontrol_async import (
    AuthenticationError,
    ComfyControlError,
    ConfigurationError,
    ConnectionFailedError,
    GraphError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitedError,
    RateLimitWaitError,
    RequestTimeoutError,
    ResponseLostError,
    TooManyFailuresError,
    TransportError,
    WaitTimeoutError,
    WorkflowError,
)

TOKEN_VARIABLE = "COMFYCONTROL_API_TOKEN"

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


# The id in the path of one workflow, runner or template.
_ID = re.compile(r"/v\d+/[^/]+/[^/]*\d")


class MissingTokenError(ConfigurationError):
    """No token is set: the one setting whose absence is a failed authentication."""


def exit_code_of(error: ComfyControlError) -> int:
    """Return the exit code for an error; 1 for one that has none of its own."""
    if isinstance(error, MissingTokenError):
        return AUTHENTICATION
    return next((code for kind, code in _CODES if isinstance(error, kind)), UNEXPECTED)


_ADVICE: tuple[tuple[type[Exception], str], ...] = (
    (AuthenticationError, f"set {TOKEN_VARIABLE} or --token-file to a token that is valid"),
    (NotFoundError, "check the server's address"),
    (RateLimitedError, "another program behind this address uses the budget up; wait, or share one limiter"),
    (RequestTimeoutError, "the service or the way to it is slow: try again"),
    (ConnectionFailedError, "check the network, the proxy settings and the server's address"),
)


def advice_for(error: ComfyControlError) -> str:
    """Return what to do about an answer of the API, or the lack of one; empty where the error says it itself."""
    # Not the API but a ComfyUI: the error's own text says what to do.
    if (isinstance(error, TransportError) and not error.method) or getattr(error, "path", "").startswith("http"):
        return ""
    if isinstance(error, NotFoundError) and _ID.match(error.path):
        return "check the id, and that the token is of the same account"
    return next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")
