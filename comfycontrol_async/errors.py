"""The whole error tree; whatever goes wrong in this package is one of these.

    ComfyControlError
    ├── ConfigurationError            a setting is missing or invalid
    ├── InvalidArgumentError          an argument that the API is known to refuse (also a ValueError)
    ├── GraphError                    a graph or its parameters cannot run; lists every issue
    ├── ClientClosedError             the client was closed before this call
    ├── ClientLoopError               the client or limiter belongs to another event loop that is still alive
    ├── KeyConflictError              a submit's `key` was used before, for another content
    ├── TransportError                no usable answer came
    │   ├── ConnectionFailedError     the request never reached the server
    │   ├── ResponseLostError         it may have reached it
    │   └── RequestTimeoutError       it may have reached it; no answer in time
    ├── APIError                      the server answered with an error
    │   ├── BadRequestError           400
    │   ├── AuthenticationError       401
    │   ├── PermissionDeniedError     403
    │   ├── NotFoundError             404
    │   ├── RateLimitedError          429
    │   └── ServerError               5xx
    ├── ResponseFormatError           the answer is not what the API documents
    ├── RateLimitWaitError            waiting for the rate limit would take longer than was allowed
    ├── SubmitOutcomeUnknownError     a workflow may or may not have been created
    ├── DownloadError                 an output could not be fetched or written
    ├── TooManyFailuresError          a batch was stopped: more rows failed than `max_failures`
    └── WorkflowError                 a workflow did not complete
        ├── WorkflowFailedError
        ├── WorkflowCancelledError
        ├── WorkflowInvalidError
        ├── WorkflowNotFinishedError
        └── WaitTimeoutError          (also a TimeoutError)

Facts are fields, `str()` is one line, the cause is attached as `__cause__`, and every error survives `copy` and
`pickle`. No error text holds a token, a request header or a signed URL's query.
"""

from collections.abc import Sequence
from typing import Any

_TEXT_LIMIT = 200


def _line(text: str) -> str:
    """Return `text` on one line, without what would steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _one_line(text: str) -> str:
    """Return text from outside on one line, cut at 200 characters."""
    line = _line(text)
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"


def _rebuild(cls: type["ComfyControlError"], args: tuple[Any, ...], state: dict[str, Any]) -> "ComfyControlError":
    """Make an error from its parts, for `copy` and `pickle`; keyword-only constructors are not called."""
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ComfyControlError(Exception):
    """Anything that this package raises on purpose.

    `workflow_id` is the id of the workflow that the call was about, where a workflow had been made: it goes on at the
    service, and `comfy.get_run(error.workflow_id)` makes a handle of it.
    """

    workflow_id: str | None = None

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return _line(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


class ConfigurationError(ComfyControlError):
    """A setting is missing or invalid; the text names it and says what to do."""


class InvalidArgumentError(ComfyControlError, ValueError):
    """An argument that the API is known to refuse, or that no call could use; no request was spent."""


class GraphError(ComfyControlError):
    """A graph or its parameters cannot run; no request was spent.

    `issues` holds every `GraphIssue` found, errors and warnings.
    """

    def __init__(self, message: str, *, issues: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.issues: tuple[Any, ...] = tuple(issues)


class ClientClosedError(ComfyControlError):
    """The client was closed before this call."""


class ClientLoopError(ComfyControlError):
    """The client or its limiter belongs to another event loop that is still alive."""


class KeyConflictError(ComfyControlError):
    """The `key` of a submit was used before for another content; nothing new goes on.

    `key` is the key, `id` the workflow that was made with it.
    """

    def __init__(self, key: str, id: str) -> None:
        super().__init__(
            f"the key {key[:60]!r} was used before, for another graph, parameters or files: "
            f"it made workflow {id}; use another key for another content"
        )
        self.key = key
        self.id = id
        self.workflow_id: str | None = id


class TransportError(ComfyControlError):
    """No usable answer came from the server."""

    def __init__(self, message: str, *, method: str = "", path: str = "") -> None:
        super().__init__(message)
        self.method = method
        self.path = path

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {_one_line(self.message)}" if self.method else _one_line(self.message)


class ConnectionFailedError(TransportError):
    """The request never reached the server (name not found, refused, no route, TLS failed, connect timeout)."""


class ResponseLostError(TransportError):
    """The request may have reached the server, but its answer did not come back whole."""


class RequestTimeoutError(TransportError):
    """The request may have reached the server, which did not answer in time."""


class APIError(ComfyControlError):
    """The server answered with an error.

    Attributes:
        status: the HTTP status.
        message: the server's own text, or what could be read from an HTML page.
        method, path: the request, without its query.
        request_id: Cloudflare's ray id (`cf-ray`), to quote to support; None when there was none.
        retry_after: seconds the server asked to wait; None when it did not say.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        method: str = "",
        path: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.method = method
        self.path = path
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        text = f"{self.status} {_one_line(self.message)}".rstrip()
        if self.method:
            text = f"{self.method} {self.path}: {text}"
        return f"{text} (request id {_one_line(self.request_id)})" if self.request_id else text


class BadRequestError(APIError):
    """400: a malformed id, a missing field, a wrong type or a broken constraint."""


class AuthenticationError(APIError):
    """401: the token is missing, invalid, expired or revoked."""


class PermissionDeniedError(APIError):
    """403: the tier's limit is reached, or the token lacks the permission."""


class NotFoundError(APIError):
    """404: it does not exist, was deleted, or belongs to someone else."""


class RateLimitedError(APIError):
    """429: the rate limit or its cooldown, for longer than the retry policy allows."""


class ServerError(APIError):
    """5xx: the service or the runner behind it is in trouble."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    429: RateLimitedError,
}


def _error_class(status: int) -> type[APIError]:
    """Return the class of the error for a status that is no success."""
    return _BY_STATUS.get(status) or (ServerError if status >= 500 else APIError)


class ResponseFormatError(ComfyControlError):
    """The answer is not what the API documents.

    `json_path` points at the first fault, such as `$.workflows[3].status`; `$` is the whole body.
    """

    def __init__(self, message: str, *, json_path: str = "$", method: str = "", path: str = "") -> None:
        super().__init__(message)
        self.json_path = json_path
        self.method = method
        self.path = path

    def __str__(self) -> str:
        text = f"unexpected answer at {_one_line(self.json_path)}: {_one_line(self.message)}"
        return f"{self.method} {self.path}: {text}" if self.method else text


class RateLimitWaitError(ComfyControlError):
    """Waiting for the rate limit would take `needed` seconds, but only `allowed` were given; nothing was sent."""

    def __init__(self, needed: float, allowed: float) -> None:
        super().__init__(f"the rate limit needs a wait of {needed:.2f} s, but at most {allowed:.2f} s are allowed")
        self.needed = needed
        self.allowed = allowed


class SubmitOutcomeUnknownError(ComfyControlError):
    """A workflow may or may not have been created, and the API could not tell which.

    `name` is the name it was submitted under; `candidates` are the ids of the workflows that may be it
    (`comfy.get_run(id)` makes a handle of one).
    """

    def __init__(self, name: str, candidates: Sequence[str] = (), message: str = "") -> None:
        found = f"{len(candidates)} workflows may be it" if candidates else "no workflow can be told to be it"
        super().__init__(message or f"it is not known whether workflow {name!r} was created: {found}")
        self.name = name
        self.candidates: tuple[str, ...] = tuple(candidates)

    def __str__(self) -> str:
        return _one_line(self.message)


class DownloadError(ComfyControlError):
    """An output could not be fetched or written; files that were finished before it stay.

    `path` is the file that is missing, `saved` are the paths that were finished.
    """

    def __init__(self, message: str, *, path: str = "", saved: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.saved: tuple[Any, ...] = tuple(saved)

    def __str__(self) -> str:
        return _one_line(self.message)


class TooManyFailuresError(ComfyControlError):
    """A batch was stopped: `failed` rows failed, `allowed` were. The results of all rows begun were given before."""

    def __init__(self, failed: int, allowed: int) -> None:
        super().__init__(f"the batch was stopped: {failed} rows failed, at most {allowed} were allowed")
        self.failed = failed
        self.allowed = allowed


class WorkflowError(ComfyControlError):
    """A workflow did not complete. `id`, `name` and `status` say which and how it was last seen."""

    def __init__(self, message: str, *, id: str, name: str = "", status: str | None = None) -> None:
        super().__init__(message)
        self.id: str = id
        self.workflow_id: str | None = id
        self.name = name
        self.status = status

    def __str__(self) -> str:
        label = f"workflow {self.id}" + (f" ({_one_line(self.name)})" if self.name else "")
        return f"{label}: {_one_line(self.message)}"


class WorkflowFailedError(WorkflowError):
    """The workflow failed on its runner.

    `node_id` and `node_type` say which node failed, `exception_type` and `exception_message` are ComfyUI's own words;
    each is None when the service did not say.
    """

    def __init__(
        self,
        message: str = "failed",
        *,
        id: str,
        name: str = "",
        status: str | None = "failed",
        node_id: str | None = None,
        node_type: str | None = None,
        exception_type: str | None = None,
        exception_message: str | None = None,
    ) -> None:
        super().__init__(message, id=id, name=name, status=status)
        self.node_id = node_id
        self.node_type = node_type
        self.exception_type = exception_type
        self.exception_message = exception_message


class WorkflowCancelledError(WorkflowError):
    """The workflow was cancelled on the server."""


class WorkflowInvalidError(WorkflowError):
    """The service found the workflow invalid; the text has its reason, where it gave one."""


class WorkflowNotFinishedError(WorkflowError):
    """The workflow has not ended yet, so it has no outputs; `wait` for it first."""


class WaitTimeoutError(WorkflowError, TimeoutError):
    """The workflow was not finished in time; it goes on at the server.

    `waited` is in seconds; `status` is the last one seen, None if none was.
    """

    def __init__(self, message: str, *, id: str, name: str = "", status: str | None = None, waited: float = 0) -> None:
        super().__init__(message, id=id, name=name, status=status)
        self.waited = waited
