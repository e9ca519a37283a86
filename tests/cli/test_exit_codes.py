"""Which error ends a command with which exit code."""

import pytest

from comfycontrol_async import (
    APIError,
    AuthenticationError,
    ComfyControlError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    GraphError,
    InvalidArgumentError,
    NotFoundError,
    RateLimitedError,
    RateLimitWaitError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    TooManyFailuresError,
    WaitTimeoutError,
    WorkflowCancelledError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from comfycontrol_async.cli._exit_codes import MissingTokenError, advice_for, exit_code_of

CASES: list[tuple[ComfyControlError, int]] = [
    (ComfyControlError("x"), 1),
    (DownloadError("x"), 1),
    (ResponseFormatError("x"), 1),
    (ServerError(500), 1),
    (NotFoundError(404), 1),
    (APIError(418), 1),
    (GraphError("x"), 2),
    (InvalidArgumentError("x"), 2),
    (ConfigurationError("x"), 2),
    (WorkflowFailedError(id="a"), 3),
    (WorkflowCancelledError("x", id="a"), 3),
    (WorkflowInvalidError("x", id="a"), 3),
    (TooManyFailuresError(2, 1), 3),
    (AuthenticationError(401), 4),
    (MissingTokenError("x"), 4),
    (RateLimitedError(429), 5),
    (RateLimitWaitError(2.0, 1.0), 5),
    (RequestTimeoutError("x"), 6),
    (WaitTimeoutError("x", id="a"), 6),
    (ConnectionFailedError("x"), 7),
    (ResponseLostError("x"), 7),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_codes(error: ComfyControlError, code: int) -> None:
    """Every kind of error has the documented code."""
    assert exit_code_of(error) == code


ADVICE: list[tuple[ComfyControlError, str]] = [
    (AuthenticationError(401), "COMFYCONTROL_API_TOKEN"),
    (NotFoundError(404, "", "GET", "/v1/workflow/a1b2c3d4-e5f6-7890-abcd-ef1234567890"), "check the id"),
    (NotFoundError(404, "", "GET", "/v1/user"), "check the server's address"),
    (RateLimitedError(429), "wait"),
    (RequestTimeoutError("x", method="GET", path="/v1/user"), "try again"),
    (ConnectionFailedError("x", method="GET", path="/v1/user"), "check the network"),
]


@pytest.mark.parametrize(("error", "words"), ADVICE, ids=lambda value: type(value).__name__)
def test_advice(error: ComfyControlError, words: str) -> None:
    """An answer that needs an act of the user says which."""
    assert words in advice_for(error)


def test_no_advice_twice() -> None:
    """What says itself what to do gets nothing added."""
    assert not advice_for(ConnectionFailedError("no connection to http://127.0.0.1:8188; is ComfyUI running there?"))
    assert not advice_for(MissingTokenError("x"))
    assert not advice_for(
        AuthenticationError(401, "it wants to be logged in to", "GET", "http://127.0.0.1:8188/object_info")
    )
    assert not advice_for(NotFoundError(404, "is this a ComfyUI?", "GET", "http://127.0.0.1:8188/object_info"))
