"""What the package logs: one line per attempt, facts as `extra`, no secret anywhere, and COMFYCONTROL_LOG."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, ConfigurationError, NotFoundError
from comfycontrol_async._http._logging import ROOMS, ROOT, configure
from support import documented
from support.scripted import TOKEN, ScriptedApi

SIGNED = "https://storage.test/a.png?X-Signature=hunter2"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the package's logger, and put it back as it was."""
    logger = logging.getLogger(ROOT)
    before = (logger.level, list(logger.handlers))
    yield logger
    logger.setLevel(before[0])
    logger.handlers[:] = before[1]


def test_silent_by_default() -> None:
    """A library has a handler that does nothing, so that Python does not print its warnings by itself."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger(ROOT).handlers)


@pytest.mark.parametrize(
    ("value", "level"),
    [("debug", logging.DEBUG), ("INFO", logging.INFO), (" info ", logging.INFO), ("", None)],
    ids=repr,
)
def test_variable(root: logging.Logger, value: str, level: int | None) -> None:
    """COMFYCONTROL_LOG shows the log on stderr, once, however many clients are made."""
    handlers, old = len(root.handlers), root.level
    for _ in range(3):
        configure({"COMFYCONTROL_LOG": value})
    assert root.level == (old if level is None else level)
    assert len(root.handlers) == handlers + (level is not None)


def test_variable_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other word is refused when a client is made."""
    monkeypatch.setenv("COMFYCONTROL_LOG", "verbose")
    with pytest.raises(ConfigurationError, match="COMFYCONTROL_LOG must be 'debug' or 'info', not 'verbose'"):
        ComfyControl(TOKEN)


async def test_one_line_per_attempt(api: ScriptedApi, comfy: ComfyControl, caplog: pytest.LogCaptureFixture) -> None:
    """Each attempt is one line at DEBUG, with its facts as fields."""
    api.answer("GET", "/v1/user", {"message": "broken"}, status=503)
    api.answer("GET", "/v1/user", documented.USER, headers={"cf-ray": "ray-1"})
    with caplog.at_level(logging.DEBUG, logger=ROOT):
        await comfy.user.get()
    records: list[Any] = [it for it in caplog.records if it.name == f"{ROOT}.http" and it.levelno == logging.DEBUG]
    assert [(it.method, it.path, it.status, it.attempt, it.request_id) for it in records] == [
        ("GET", "/v1/user", 503, 1, None),
        ("GET", "/v1/user", 200, 2, "ray-1"),
    ]
    assert all(it.seconds >= 0.0 and it.limiter_wait >= 0.0 for it in records)
    retries: list[Any] = [it for it in caplog.records if it.name == f"{ROOT}.http" and it.levelno == logging.INFO]
    assert [(it.attempt, it.delay) for it in retries] == [(1, 0.0)]


@pytest.mark.parametrize("room", ["", *(f".{room}" for room in ROOMS)])
def test_redacted(room: str, caplog: pytest.LogCaptureFixture) -> None:
    """No room's records show a token, a signed query or a password: not in messages, arguments or exceptions."""
    configure({})
    logger = logging.getLogger(ROOT + room)
    with caplog.at_level(logging.DEBUG, logger=ROOT):
        logger.info("sent %s to %s", TOKEN, SIGNED)
        logger.info(f"http://user:hunter2@proxy.test {TOKEN}")
        logger.info("facts", extra={"path": f"/v1/{TOKEN}"})
        try:
            raise ValueError(f"bad {TOKEN} at {SIGNED}")
        except ValueError:
            logger.exception("failed")
        logger.info("plain %d", 5)
    shown = [f"{it.getMessage()} {it.args} {it.exc_text} {it.exc_info} {vars(it)}" for it in caplog.records]
    assert len(shown) == 5
    assert not any("SECRET" in text or "hunter2" in text for text in [*shown, caplog.text])
    assert caplog.records[-1].args == (5,)


async def test_an_echoed_token(api: ScriptedApi, comfy: ComfyControl, caplog: pytest.LogCaptureFixture) -> None:
    """A token that the server sends back is in no error and no line."""
    api.answer("GET", "/v1/user", {"message": f"the token {TOKEN} is unknown"}, status=404, headers={"cf-ray": TOKEN})
    with caplog.at_level(logging.DEBUG, logger=ROOT), pytest.raises(NotFoundError) as caught:
        await comfy.user.get()
    error = caught.value
    assert error.message == "the token *** is unknown"
    for text in (str(error), repr(error), str(vars(error)), str(error.__reduce__()), caplog.text):
        assert TOKEN not in text
