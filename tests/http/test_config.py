"""Options: read from arguments and the environment, and checked."""

import logging
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

import comfycontrol_async
from comfycontrol_async import ConfigurationError, Timeouts, WatchPolicy
from comfycontrol_async._http._config import (
    check_wait,
    name_user_agent,
    read_base_url,
    read_timeouts,
    read_token,
)
from comfycontrol_async._settings import BASE_URL_VARIABLE, TOKEN_VARIABLE

TOKEN = "cfc_0123456789abcdef"

# The token


@pytest.mark.parametrize(
    ("argument", "variable", "read"),
    [
        pytest.param(TOKEN, None, TOKEN, id="argument"),
        pytest.param(None, TOKEN, TOKEN, id="environment"),
        pytest.param(TOKEN, "cfc_other", TOKEN, id="argument-first"),
        pytest.param(f" {TOKEN}\r\n", None, TOKEN, id="white-space-around"),
        pytest.param(None, f"{TOKEN}\n", TOKEN, id="newline-of-a-file"),
    ],
)
def test_token(argument: str | None, variable: str | None, read: str, caplog: pytest.LogCaptureFixture) -> None:
    """The token is the argument, or else the variable, without white space around it."""
    environment = {} if variable is None else {TOKEN_VARIABLE: variable}
    assert read_token(argument, environment) == read
    assert caplog.records == []


@pytest.mark.parametrize(
    ("argument", "variable", "message"),
    [
        pytest.param(None, None, f"set the environment variable {TOKEN_VARIABLE}", id="none"),
        pytest.param(None, "", f"set the environment variable {TOKEN_VARIABLE}", id="empty-variable"),
        pytest.param(None, " \n", "no API token", id="blank-variable"),
        pytest.param("", TOKEN, "no API token", id="empty-argument"),
        pytest.param(f'"{TOKEN}"', None, "stands in quotes", id="quoted"),
        pytest.param(None, f"'{TOKEN}'", "stands in quotes", id="quoted-variable"),
        pytest.param(f"\u201c{TOKEN}\u201d", None, "stands in quotes", id="typographic-quotes"),
        pytest.param(f"{TOKEN}'", None, "stands in quotes", id="half-quoted"),
        pytest.param(f"Bearer {TOKEN}", None, "pass the token alone", id="bearer"),
        pytest.param("cfc_ab cd", None, "cannot be sent", id="blank-inside"),
        pytest.param("cfc_ab\ncd", None, "cannot be sent", id="newline-inside"),
        pytest.param("cfc_ab\x00", None, "cannot be sent", id="nul"),
        pytest.param("cfc_äb", None, "cannot be sent", id="not-ascii"),
        pytest.param(b"cfc_abcd", None, "must be text, not bytes", id="bytes"),
        pytest.param(5, None, "must be text, not int", id="number"),
    ],
)
def test_token_refused(argument: Any, variable: str | None, message: str) -> None:
    """Without a usable token there is one clear error, which does not show what was given."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        read_token(argument, {} if variable is None else {TOKEN_VARIABLE: variable})
    assert "cfc_ab" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_token_of_another_form(caplog: pytest.LogCaptureFixture) -> None:
    """A token of an unknown form is used all the same, with one warning that does not show it."""
    with caplog.at_level(logging.WARNING, logger="comfycontrol_async"):
        assert read_token("sk-abcdef", {}) == "sk-abcdef"
    assert [record.getMessage() for record in caplog.records] == [
        "the API token does not begin with 'cfc_'; it is used all the same"
    ]


# The address


@pytest.mark.parametrize(
    ("argument", "variable", "read"),
    [
        pytest.param(None, None, "https://api.comfycontrol.app", id="default"),
        pytest.param(None, "", "https://api.comfycontrol.app", id="empty-variable"),
        pytest.param(None, "http://127.0.0.1:8080", "http://127.0.0.1:8080", id="environment"),
        pytest.param("https://a.test", "https://b.test", "https://a.test", id="argument-first"),
        pytest.param("https://a.test/", None, "https://a.test", id="trailing-slash"),
        pytest.param("https://a.test/base//", None, "https://a.test/base", id="path"),
        pytest.param("HTTPS://A.Test", None, "https://a.test", id="upper-case"),
        pytest.param(" https://a.test\n", None, "https://a.test", id="white-space-around"),
        pytest.param("http://[::1]:8080", None, "http://[::1]:8080", id="ipv6"),
        pytest.param("https://a.test:443", None, "https://a.test", id="default-port"),
    ],
)
def test_base_url(argument: str | None, variable: str | None, read: str) -> None:
    """The address is the argument, or else the variable, or else the service's, without a trailing slash."""
    environment = {} if variable is None else {BASE_URL_VARIABLE: variable}
    assert str(read_base_url(argument, environment)) == read


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("api.comfycontrol.app", id="no-scheme"),
        pytest.param("ftp://a.test", id="other-scheme"),
        pytest.param("https://", id="no-host"),
        pytest.param("/v1", id="path-alone"),
        pytest.param("https://[::1", id="half-an-address"),
        pytest.param("https://a.test:99999", id="port-out-of-range"),
        pytest.param("https://user:hunter2@a.test", id="credentials"),
        pytest.param("ftp://user:hunter2@a.test", id="credentials-of-another-scheme"),
        pytest.param("https://a.test?key=hunter2", id="query"),
        pytest.param("https://a.test#hunter2", id="fragment"),
        pytest.param("cfc_hunter2", id="the-token-in-its-place"),
        pytest.param("https://" + "a" * 64 + ".test", id="label-of-64"),
        pytest.param("https://" + "\u00e4" * 64 + ".test", id="label-too-long-once-encoded"),
        pytest.param("https://a..test", id="empty-label"),
        pytest.param("https://a b.test", id="blank-in-the-host"),
        pytest.param(5, id="number"),
    ],
)
def test_base_url_refused(value: Any) -> None:
    """What is no plain http or https address is refused, and not shown: it may hold a secret."""
    with pytest.raises(ConfigurationError, match=r"^the base URL ") as caught:
        read_base_url(value, {})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


# User-Agent


def test_user_agent() -> None:
    """The User-Agent is our name and version, behind the caller's own words."""
    own = f"comfycontrol-async/{comfycontrol_async.__version__}"
    assert name_user_agent() == name_user_agent("") == own
    assert name_user_agent("my-app/1.0 (ünï)") == f"my-app/1.0 (ünï) {own}"


@pytest.mark.parametrize("prefix", ["two\nlines", "a\r\nX-Header: b", "nul\x00", 5, b"bytes"], ids=repr)
def test_user_agent_refused(prefix: Any) -> None:
    """Words that cannot stand in a header are refused."""
    with pytest.raises(ConfigurationError, match="user_agent must be printable text"):
        name_user_agent(prefix)


# Numbers


NO_DURATIONS: list[Any] = [0, -1.0, math.nan, math.inf, "5", True]


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{value!r}")
        for cls, names in ((Timeouts, ("connect", "read", "total")), (WatchPolicy, ("min_interval", "max_interval")))
        for name, value in product(names, NO_DURATIONS)
    ],
)
def test_durations(make: Callable[..., object], name: str, value: Any) -> None:
    """A duration is positive and finite; anything else is refused by its name."""
    with pytest.raises(ConfigurationError, match=rf"\.{name} must be a positive, finite number of seconds"):
        make(**{name: value})


def test_timeouts() -> None:
    """The defaults are those of the documentation, and None is no bound."""
    assert Timeouts() == Timeouts(connect=10.0, read=30.0, total=60.0)
    assert Timeouts(connect=None, read=None, total=None).total is None
    with pytest.raises(AttributeError):
        Timeouts().read = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        pytest.param(None, Timeouts(), id="none"),
        pytest.param(30, Timeouts(total=30.0), id="number"),
        pytest.param(0.5, Timeouts(total=0.5), id="fraction"),
        pytest.param(Timeouts(read=1.0), Timeouts(read=1.0), id="timeouts"),
    ],
)
def test_read_timeouts(given: Any, read: Timeouts) -> None:
    """A number is the total, and the other bounds stay."""
    assert read_timeouts(given) == read


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "30", (1, 2), 10**400], ids=lambda v: repr(v)[:20])
def test_read_timeouts_refused(value: Any) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(ConfigurationError, match=r"^timeouts must be a "):
        read_timeouts(value)


def test_watch_policy() -> None:
    """The defaults are those of the documentation."""
    assert WatchPolicy() == WatchPolicy(min_interval=1.0, max_interval=10.0, max_streams=8)
    assert WatchPolicy(max_streams=0).max_streams == 0
    assert WatchPolicy(min_interval=5.0, max_interval=5.0).max_interval == 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"min_interval": 11}, "max_interval must not be below min_interval", id="crossed"),
        pytest.param({"max_streams": -1}, "max_streams must be a whole number from 0", id="negative"),
        pytest.param({"max_streams": 2.5}, "max_streams must be a whole number from 0", id="fraction"),
        pytest.param({"max_streams": "8"}, "max_streams must be a whole number from 0", id="text"),
        pytest.param({"max_streams": True}, "max_streams must be a whole number from 0", id="boolean"),
        pytest.param({"min_interval": None}, "min_interval must be a positive", id="none"),
    ],
)
def test_watch_policy_refused(options: dict[str, Any], message: str) -> None:
    """An invalid policy is refused."""
    with pytest.raises(ConfigurationError, match=message):
        WatchPolicy(**options)


@pytest.mark.parametrize("value", [None, 0, 1.5, math.inf], ids=repr)
def test_wait(value: float | None) -> None:
    """Any number of seconds from 0 can be allowed, or no bound be set."""
    assert check_wait(value) == value


@pytest.mark.parametrize("value", [-1, math.nan, "5", True], ids=repr)
def test_wait_refused(value: Any) -> None:
    """A bound that is no number of seconds is refused by its name."""
    with pytest.raises(ConfigurationError, match="max_rate_limit_wait must be a number of seconds from 0"):
        check_wait(value)
