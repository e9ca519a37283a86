"""The error tree: what each error holds, says and survives."""

import copy
import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfycontrol_async import errors
from comfycontrol_async.errors import (
    APIError,
    BadRequestError,
    ClientClosedError,
    ComfyControlError,
    ConfigurationError,
    DownloadError,
    GraphError,
    InvalidArgumentError,
    KeyConflictError,
    NotFoundError,
    RateLimitWaitError,
    ResponseFormatError,
    SubmitOutcomeUnknownError,
    TooManyFailuresError,
    TransportError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.graph import GraphIssue

TREE = {
    "ConfigurationError": "ComfyControlError",
    "InvalidArgumentError": "ComfyControlError",
    "GraphError": "ComfyControlError",
    "ClientClosedError": "ComfyControlError",
    "ClientLoopError": "ComfyControlError",
    "TransportError": "ComfyControlError",
    "ConnectionFailedError": "TransportError",
    "ResponseLostError": "TransportError",
    "RequestTimeoutError": "TransportError",
    "APIError": "ComfyControlError",
    "BadRequestError": "APIError",
    "AuthenticationError": "APIError",
    "PermissionDeniedError": "APIError",
    "NotFoundError": "APIError",
    "RateLimitedError": "APIError",
    "ServerError": "APIError",
    "ResponseFormatError": "ComfyControlError",
    "RateLimitWaitError": "ComfyControlError",
    "SubmitOutcomeUnknownError": "ComfyControlError",
    "DownloadError": "ComfyControlError",
    "KeyConflictError": "ComfyControlError",
    "TooManyFailuresError": "ComfyControlError",
    "WorkflowError": "ComfyControlError",
    "WorkflowFailedError": "WorkflowError",
    "WorkflowCancelledError": "WorkflowError",
    "WorkflowInvalidError": "WorkflowError",
    "WorkflowNotFinishedError": "WorkflowError",
    "WaitTimeoutError": "WorkflowError",
}

# How each class is made, from one text; a class without an entry is made as its parent is.
MAKERS: dict[type[ComfyControlError], Callable[[Any, str], ComfyControlError]] = {
    ComfyControlError: lambda cls, text: cls(text),
    GraphError: lambda cls, text: cls(text, issues=[GraphIssue("error", "3.steps", text)]),
    TransportError: lambda cls, text: cls(text, method="GET", path="/v1/user"),
    APIError: lambda cls, text: cls(418, text, "GET", "/v1/user", text, 7.5),
    ResponseFormatError: lambda cls, text: cls(text, json_path=f"$.headers.{text}", method="GET", path="/v1/user"),
    KeyConflictError: lambda cls, text: cls(text, "an id"),
    RateLimitWaitError: lambda cls, text: cls(12.5, 3.0),
    SubmitOutcomeUnknownError: lambda cls, text: cls(text, ["an id", "another"]),
    DownloadError: lambda cls, text: cls(text, path="out/a.png", saved=[Path("out/b.png")]),
    TooManyFailuresError: lambda cls, text: cls(6, 5),
    WorkflowError: lambda cls, text: cls(text, id="an id", name=text, status="running"),
    WorkflowFailedError: lambda cls, text: cls(
        text, id="an id", name=text, node_id=text, node_type=text, exception_type="ValueError", exception_message=text
    ),
    WaitTimeoutError: lambda cls, text: cls(text, id="an id", name=text, status="running", waited=61.5),
}
CLASSES = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def make(cls: type[ComfyControlError], text: str = "it went wrong") -> ComfyControlError:
    """Make an error with every field filled, its texts with `text`."""
    return next(MAKERS[base] for base in cls.__mro__ if base in MAKERS)(cls, text)


every_error = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def test_tree() -> None:
    """The tree is the documented one: no class less, none more, none elsewhere."""
    parents = {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES if cls is not ComfyControlError}
    assert parents == TREE


def test_tree_is_drawn() -> None:
    """The module's docstring draws every class in its place."""
    depth = {"ComfyControlError": 0}
    for child, parent in TREE.items():
        depth[child] = depth[parent] + 1
    drawn: dict[str, int] = {}
    for line in (errors.__doc__ or "").splitlines():
        indented, _, text = line.rpartition("── ")
        name = (text or indented).strip().partition(" ")[0]
        if name.endswith("Error"):
            drawn[name] = (len(indented) - 1) // 4 if text and indented else 0
    assert drawn == depth


@every_error
def test_survives(cls: type[ComfyControlError]) -> None:
    """A copy has the class, the text, the arguments and every field of the original; so it is with every pickle."""
    error = make(cls)
    error.add_note("a note")
    pickles = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for twin in (copy.copy(error), copy.deepcopy(error), *map(pickle.loads, pickles)):
        assert twin is not error
        assert type(twin) is cls
        assert (str(twin), twin.args) == (str(error), error.args)
        assert twin.__dict__ == error.__dict__
        assert len(twin.__dict__) > 1


@every_error
def test_text_is_one_line(cls: type[ComfyControlError]) -> None:
    """Whatever the server or the caller puts into it, the text is one line."""
    text = str(make(cls, "first\nsecond\r\n\tthird\u2028fourth\x85fifth\x1b[31m"))
    assert text.isprintable()
    assert "first" in text or cls in (RateLimitWaitError, TooManyFailuresError)


@pytest.mark.parametrize(
    "cls",
    [cls for cls in CLASSES if issubclass(cls, (APIError, TransportError, ResponseFormatError, WorkflowError))],
    ids=lambda cls: cls.__name__,
)
def test_foreign_text_is_cut(cls: type[ComfyControlError]) -> None:
    """Of a long text from outside, 200 characters are shown, while the field keeps all of it."""
    error = make(cls, "x" * 5000)
    assert error.message == "x" * 5000
    longest = max(len(part) for part in str(error).replace("(", " ").replace(")", " ").split())
    assert longest <= 200 + len("$.headers.:")
    assert "x" * 199 + "…" in str(error)


def test_cut_is_exact() -> None:
    """200 characters are shown whole, of one more the last two are cut for the mark of the cut."""
    assert str(TransportError("x" * 200)) == "x" * 200
    assert str(TransportError("x" * 201)) == "x" * 199 + "…"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ConfigurationError("no token"), "no token", id="plain"),
        pytest.param(ClientClosedError(), "", id="empty"),
        pytest.param(TransportError("no route"), "no route", id="transport-alone"),
        pytest.param(
            TransportError("no route", method="GET", path="/v1/user"), "GET /v1/user: no route", id="transport"
        ),
        pytest.param(APIError(418), "418", id="status-alone"),
        pytest.param(
            NotFoundError(404, "requested entity not found", "GET", "/v1/user", "ray-1"),
            "GET /v1/user: 404 requested entity not found (request id ray-1)",
            id="api",
        ),
        pytest.param(ResponseFormatError("missing"), "unexpected answer at $: missing", id="format-alone"),
        pytest.param(
            ResponseFormatError("missing", json_path="$.id", method="GET", path="/v1/user"),
            "GET /v1/user: unexpected answer at $.id: missing",
            id="format",
        ),
        pytest.param(
            RateLimitWaitError(12.345, 2),
            "the rate limit needs a wait of 12.35 s, but at most 2.00 s are allowed",
            id="rate-limit-wait",
        ),
        pytest.param(
            SubmitOutcomeUnknownError("cats"),
            "it is not known whether workflow 'cats' was created: no workflow can be told to be it",
            id="submit-none",
        ),
        pytest.param(
            SubmitOutcomeUnknownError("cats", ["a", "b"]),
            "it is not known whether workflow 'cats' was created: 2 workflows may be it",
            id="submit-several",
        ),
        pytest.param(SubmitOutcomeUnknownError("cats", message="look"), "look", id="submit-message"),
        pytest.param(WorkflowCancelledError("was cancelled", id="7"), "workflow 7: was cancelled", id="nameless"),
        pytest.param(
            WorkflowInvalidError("is invalid", id="7", name="cats"), "workflow 7 (cats): is invalid", id="named"
        ),
        pytest.param(WorkflowFailedError(id="7"), "workflow 7: failed", id="failed"),
    ],
)
def test_text(error: ComfyControlError, text: str) -> None:
    """The text says where, what and which request."""
    assert str(error) == text


def test_also_python_errors() -> None:
    """Callers who know only Python's own errors catch these too."""
    with pytest.raises(ValueError, match="name"):
        raise InvalidArgumentError("name is empty")
    with pytest.raises(TimeoutError):
        raise WaitTimeoutError("not finished", id="7", waited=1.5)


def test_fields_hold_immutable_facts() -> None:
    """Lists that are given become tuples, so that no code changes an error afterwards."""
    issues, ids, saved = [GraphIssue("error", "", "empty")], ["a"], [Path("a")]
    assert GraphError("bad", issues=issues).issues == tuple(issues)
    assert SubmitOutcomeUnknownError("cats", ids).candidates == ("a",)
    assert DownloadError("full", saved=saved).saved == (Path("a"),)


def test_api_error_fields() -> None:
    """Facts of an answer are fields, by position or by name."""
    error = BadRequestError(400, "name cannot be empty", "POST", "/v1/runner", "ray-1", 1.5)
    same = BadRequestError(
        status=400,
        message="name cannot be empty",
        method="POST",
        path="/v1/runner",
        request_id="ray-1",
        retry_after=1.5,
    )
    assert vars(error) == vars(same)
    assert vars(error) == {
        "status": 400,
        "message": "name cannot be empty",
        "method": "POST",
        "path": "/v1/runner",
        "request_id": "ray-1",
        "retry_after": 1.5,
    }
