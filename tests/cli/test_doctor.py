"""`comfycontrol doctor`."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from comfycontrol_async.cli._doctor import clock_findings
from comfycontrol_async.testing import LocalServer
from support.command_line import call


def levels(output: str) -> dict[str, str]:
    """Return the level of each topic of a report."""
    return {topic: level for level, topic, _ in (line.split(maxsplit=2) for line in output.splitlines())}


async def test_all_is_well() -> None:
    """Every topic is reported, for one request, and no secret."""
    async with LocalServer() as server:
        result = await call(server, "doctor")
        assert len(server.requests) == 1
        document = json.loads((await call(server, "doctor", "--json")).stdout)
    assert result.exit_code == 0, result.output
    found = levels(result.stdout)
    assert {*found} == {"versions", "token", "server", "limit", "reach", "clock"}
    assert {*found.values()} == {"ok"}
    assert server.token not in result.output
    assert {*document[0]} == {"level", "topic", "text"}
    assert "aiohttp" in document[0]["text"]


async def test_no_token() -> None:
    """The missing token is said once, with what to do, and nothing is sent."""
    result = await call(None, "doctor")
    assert result.exit_code == 4
    assert levels(result.stdout)["token"] == "fail"
    assert "COMFYCONTROL_API_TOKEN" in result.stdout
    assert "reach" not in levels(result.stdout)


async def test_expired_token() -> None:
    """What the service says of a token is passed on."""
    async with LocalServer() as server:
        server.expire_token()
        result = await call(server, "doctor")
    assert result.exit_code == 4
    assert levels(result.stdout)["reach"] == "fail"
    assert "Token has expired" in result.stdout


async def test_unreachable() -> None:
    """A server that is not there is a failure with advice."""
    server = LocalServer()
    async with server:
        pass
    result = await call(server, "doctor")
    assert result.exit_code == 7
    assert "check the network" in result.stdout


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _clocks() -> Iterator[tuple[str | None, str, str]]:
    yield format_datetime(NOW, usegmt=True), "ok", "differs from the server's by 0 s"
    yield format_datetime(NOW - timedelta(seconds=90), usegmt=True), "warn", "90 s ahead of the server's"
    yield format_datetime(NOW + timedelta(seconds=600), usegmt=True), "warn", "600 s behind the server's"
    yield None, "warn", "sends no Date"
    yield "yesterday", "warn", "sends no Date"


@pytest.mark.parametrize(("date", "level", "words"), list(_clocks()))
def test_clock(date: str | None, level: str, words: str) -> None:
    """A clock that is off is a warning, since lost submits are found by time."""
    (finding,) = clock_findings(date, NOW)
    assert finding.level == level
    assert words in finding.text


async def test_limiter_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong COMFYCONTROL_LIMITER is one line of the report, not the end of it."""
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "abacus")
    async with LocalServer() as server:
        result = await call(server, "doctor")
        assert not server.requests
    assert result.exit_code == 2
    assert levels(result.stdout)["versions"] == "ok"
    assert levels(result.stdout)["limit"] == "fail"
    assert "COMFYCONTROL_LIMITER" in result.stdout


async def test_address_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address with a password is refused, and the password is not shown."""
    monkeypatch.setattr("support.command_line.environment", lambda server: {})
    monkeypatch.setenv("COMFYCONTROL_API_TOKEN", "cfc_x")
    monkeypatch.setenv("COMFYCONTROL_BASE_URL", "https://me:very-secret@127.0.0.1:9")
    result = await call(None, "doctor")
    assert result.exit_code == 2
    assert levels(result.stdout) == {"versions": "ok", "token": "ok", "settings": "fail"}
    assert "must have no credentials" in result.stdout
    assert "very-secret" not in result.output
