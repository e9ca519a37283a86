"""Options of a client, read from arguments and the environment, and checked."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import attrs
from yarl import URL

from comfycontrol_async._http._urls import read_url
from comfycontrol_async._settings import (
    BASE_URL_VARIABLE,
    TOKEN_VARIABLE,
    __version__,
    check_count,
    check_kind,
    check_seconds,
)
from comfycontrol_async.errors import ConfigurationError

log = logging.getLogger("comfycontrol_async")

_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
DEFAULT_BASE_URL = "https://api.comfycontrol.app"


def _seconds(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    name = f"{type(instance).__name__}.{attribute.name}"
    check_seconds(name, value, ConfigurationError, positive=True, finite=True)


def _optional_seconds(instance: object, attribute: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None:
        _seconds(instance, attribute, value)


@attrs.frozen(kw_only=True, cache_hash=True)
class Timeouts:
    """How long one attempt may take, in seconds; waiting for the rate limit does not count.

    `connect` bounds everything until a connection is there, `read` every pause of the answer, `total` the whole
    attempt. Uploads and streams have no total: a big file is not cut off while it moves. None means no bound.

    Raises:
        ConfigurationError: a number that is not positive.
    """

    connect: float | None = attrs.field(default=10.0, validator=_optional_seconds)
    read: float | None = attrs.field(default=30.0, validator=_optional_seconds)
    total: float | None = attrs.field(default=60.0, validator=_optional_seconds)


@attrs.frozen(kw_only=True)
class WatchPolicy:
    """How waiting workflows are watched.

    `min_interval` and `max_interval` bound the pause between two looks at the same workflow, in seconds: it grows
    with the age of the work. `max_streams` is how many event streams may be open at once.

    Raises:
        ConfigurationError: a number is invalid.
    """

    min_interval: float = attrs.field(default=1.0, validator=_seconds)
    max_interval: float = attrs.field(default=10.0, validator=_seconds)
    max_streams: int = 8

    def __attrs_post_init__(self) -> None:
        if self.max_interval < self.min_interval:
            raise ConfigurationError("WatchPolicy.max_interval must not be below min_interval")
        check_count("WatchPolicy.max_streams", self.max_streams, ConfigurationError)


def read_timeouts(value: Timeouts | float | None) -> Timeouts:
    """Return the timeouts of a client: a number is the total, None the defaults.

    Raises:
        ConfigurationError: it is neither `Timeouts` nor a positive, finite number of seconds.
    """
    if value is None:
        return Timeouts()
    if isinstance(value, Timeouts):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Timeouts(total=check_seconds("timeouts", value, ConfigurationError, positive=True, finite=True))
    return check_kind("timeouts", value, Timeouts, ConfigurationError, example="Timeouts(total=30), or a number")


def check_limiter(limiter: Any) -> None:
    """Check that a limiter that was given is one, or None.

    Raises:
        ConfigurationError: it has not the methods of `Limiter`, or is a class.
    """
    methods = ("acquire", "cool_down", "snapshot")
    made = not isinstance(limiter, type) and all(callable(getattr(limiter, name, None)) for name in methods)
    if limiter is not None and not made:
        raise ConfigurationError(
            f"limiter must be a Limiter, such as LocalLimiter(40, 10.0), not {_name_kind(limiter)}"
        )


def check_session(session: Any, trace_configs: Any) -> None:
    """Check the session that was given, if any, and the traces for the one that is opened otherwise.

    Raises:
        ConfigurationError: they are something else, or the session has credentials of its own, which aiohttp refuses
            to send beside the token.
    """
    if isinstance(trace_configs, str) or not isinstance(trace_configs, Sequence):
        raise ConfigurationError(
            f"trace_configs must be a list of aiohttp.TraceConfig, not {_name_kind(trace_configs)}"
        )
    for trace in trace_configs:
        check_kind("each of trace_configs", trace, aiohttp.TraceConfig, ConfigurationError)
    if session is None:
        return
    check_kind("session", session, aiohttp.ClientSession, ConfigurationError)
    if session.auth is not None:
        raise ConfigurationError(
            "the session has credentials of its own (auth=), which cannot be sent beside the token: give one without"
        )


def _name_kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def read_token(token: str | None, environment: Mapping[str, str]) -> str:
    """Return the token from the argument or the environment.

    A token that is not of the form `cfc_...` is used all the same, with one warning in the log (API documentation:
    authentication).

    Raises:
        ConfigurationError: there is none, or it cannot stand in a header.
    """
    found = environment.get(TOKEN_VARIABLE, "") if token is None else token
    if not isinstance(found, str):
        raise ConfigurationError(f"the token must be text, not {type(found).__name__}")
    found = found.strip()
    if not found:
        raise ConfigurationError(
            f"no API token: set the environment variable {TOKEN_VARIABLE} or pass token=...; "
            "tokens are made in the account settings of the ComfyControl dashboard"
        )
    if found[0] in _QUOTES or found[-1] in _QUOTES:
        raise ConfigurationError(
            f"the API token stands in quotes: write it without them (a file of settings keeps them: "
            f"{TOKEN_VARIABLE}=cfc_...)"
        )
    if found.lower().startswith("bearer"):
        raise ConfigurationError("the API token begins with 'Bearer': pass the token alone, as cfc_...")
    if not found.isascii() or not found.isprintable() or " " in found:
        raise ConfigurationError("the API token has characters that cannot be sent; was it copied whole and alone?")
    if not found.startswith("cfc_"):
        log.warning("the API token does not begin with 'cfc_'; it is used all the same")
    return found


def read_base_url(base_url: str | None, environment: Mapping[str, str]) -> URL:
    """Return the API's address without a trailing slash, from the argument or the environment.

    Raises:
        ConfigurationError: it is no http or https URL, or carries credentials, a query or a fragment.
    """
    text = (base_url if base_url is not None else environment.get(BASE_URL_VARIABLE)) or DEFAULT_BASE_URL
    # No error quotes it: it might be the token in the wrong place, or hold a password.
    url = read_url("the base URL", text)
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigurationError("the base URL must have no credentials, query or fragment")
    return url.with_path(url.path.rstrip("/"))


def name_user_agent(prefix: str | None = None) -> str:
    """Return the User-Agent: our name and version, behind the caller's own words."""
    own = f"comfycontrol-async/{__version__}"
    if not prefix:
        return own
    if not isinstance(prefix, str) or not prefix.isprintable():
        raise ConfigurationError("user_agent must be printable text on one line")
    return f"{prefix} {own}"


def check_wait(value: float | None) -> float | None:
    """Return `max_rate_limit_wait` when it is usable.

    Raises:
        ConfigurationError: it is negative or no number.
    """
    return None if value is None else check_seconds("max_rate_limit_wait", value, ConfigurationError)
