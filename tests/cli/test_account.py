"""`comfycontrol whoami`, and how errors of the service and of the settings reach the terminal."""

import json
import re
from pathlib import Path

import pytest

from comfycontrol_async import __version__
from comfycontrol_async.testing import LocalServer
from support.command_line import call, environment, errors


async def test_whoami() -> None:
    """Name, e-mail and tier are shown, the token is not."""
    async with LocalServer() as server:
        result = await call(server, "whoami")
        assert len(server.requests) == 1
    assert result.exit_code == 0
    assert all(str(server.user[field]) in result.stdout for field in ("name", "email", "tier"))
    assert server.token not in result.output


@pytest.mark.parametrize("command", [("whoami",), ("--verbose", "whoami")], ids=["quiet", "verbose"])
async def test_no_token(command: tuple[str, ...]) -> None:
    """Without a token the error names the variable to set."""
    result = await call(None, *command)
    assert result.exit_code == 4
    assert ["COMFYCONTROL_API_TOKEN" in line for line in errors(result)] == [True]


async def test_odd_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of another form is used, with a warning that does not show it."""
    async with LocalServer(token="odd-secret") as server:
        result = await call(server, "whoami")
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "odd-secret" not in result.output


async def test_token_file(tmp_path: Path) -> None:
    """A token file may begin with a byte order mark and end with a line break; another file is one line."""
    file = tmp_path / "token"
    async with LocalServer() as server:
        file.write_text(f"{server.token}\r\n", encoding="utf-8-sig")
        result = await call(server, "--token-file", str(file), "whoami")
        file.write_bytes(b"x" * 100_000)
        refused = await call(server, "--token-file", str(file), "whoami")
    assert result.exit_code == 0, result.output
    assert refused.exit_code == 2
    assert errors(refused) == [f"error: cannot read the token file {str(file)!r}: it is larger than 64 kB"]


@pytest.mark.parametrize(("level", "lines"), [("debug", 1), ("info", 0)])
@pytest.mark.parametrize("options", [(), ("--verbose",)], ids=["plain", "verbose"])
async def test_log_variable(level: str, lines: int, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """COMFYCONTROL_LOG shows the log once, with and without -v, and the level of both that says more."""
    monkeypatch.setenv("COMFYCONTROL_LOG", level)
    async with LocalServer(token="odd-secret-12") as server:
        result = await call(server, *options, "whoami")
    assert result.stderr.count("GET /v1/user: 200") == max(lines, len(options))
    assert result.stderr.count("does not begin with") == 1


async def test_expired_token() -> None:
    """The service's own words are told."""
    async with LocalServer() as server:
        server.expire_token()
        result = await call(server, "whoami")
    assert result.exit_code == 4
    (line,) = errors(result)
    assert line.startswith("error: GET /v1/user: 401 Token has expired")
    assert line.endswith("; set COMFYCONTROL_API_TOKEN or --token-file to a token that is valid")


async def test_verbose_into_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is no terminal's has one line for each record, also where that is longer than a terminal is wide."""
    async with LocalServer() as server:
        monkeypatch.setattr("support.command_line.environment", lambda server: {**environment(server), "COLUMNS": "40"})
        result = await call(server, "-v", "whoami")
    (line,) = (line for line in result.stderr.splitlines() if "GET /v1/user" in line)
    assert "request id" in line
    assert re.match(r"\d\d:\d\d:\d\d DEBUG GET /v1/user: 200 ", line)


async def test_unreachable() -> None:
    """A server that is not there is one line, and the log tells of the second attempt but not the token."""
    server = LocalServer()
    async with server:
        pass
    result = await call(server, "-v", "whoami")
    assert result.exit_code == 7
    assert ["Cannot connect" in line for line in errors(result)] == [True]
    assert "again in" in result.stderr
    assert server.token not in result.output


async def test_bad_answers() -> None:
    """HTML where JSON is due, and a body that breaks off, are one line each."""
    async with LocalServer() as server:
        server.fail_next("GET", "/v1/user", status=200, body="<html>hello</html>", content_type="text/html")
        assert len(errors(await call(server, "whoami"))) == 1
        server.truncate_next("GET", "/v1/user", times=2)
        assert len(errors(await call(server, "whoami"))) == 1


async def test_control_characters() -> None:
    """Nothing that the service says can command the terminal."""
    async with LocalServer() as server:
        body = json.dumps({**server.user, "name": "no\x1b[2J\nmore\x07"})
        server.fail_next("GET", "/v1/user", status=200, body=body, content_type="application/json")
        result = await call(server, "whoami")
        assert "no?[2J more?" in result.stdout
        body = json.dumps({"status": 403, "message": "no\x1b[2J\nmore\x07"})
        server.fail_next("GET", "/v1/user", status=403, body=body, content_type="application/json")
        (line,) = errors(await call(server, "whoami"))
    assert line.isprintable()


async def test_version() -> None:
    """The version is one line."""
    result = await call(None, "--version")
    assert result.exit_code == 0
    assert result.stdout == f"comfycontrol {__version__}\n"
