"""Options of a client, read from arguments and the environment, and checked."""

import logging
import math
import urllib.request
from collections.abc import Mapping
from typing import Any

import attrs
from yarl import URL

from comfycontrol_async.errors import ConfigurationError

log = logging.getLogger("comfycontrol_async")

TOKEN_VARIABLE = "COMFYCONTROL_API_TOKEN"
BASE_URL_VARIABLE = "COMFYCONTROL_BASE_URL"
DEFAULT_BASE_URL = "https://api.comfycontrol.app"


def is_number(value: object) -> bool:
    """Tell whether it is a number that durations can be made of."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


def _seconds(instance: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if not (is_number(value) and 0 < value < math.inf):
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ConfigurationError(f"{name} must be a positive, finite number of seconds, not {value!r}")


def _optional_seconds(instance: object, attribute: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None:
        _seconds(instance, attribute, value)


@attrs.frozen(kw_only=True)
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
        ConfigurationError: a number that makes no sense.
    """

    min_interval: float = attrs.field(default=1.0, validator=_seconds)
    max_interval: float = attrs.field(default=10.0, validator=_seconds)
    max_streams: int = 8

    def __attrs_post_init__(self) -> None:
        if self.max_interval < self.min_interval:
            raise ConfigurationError("WatchPolicy.max_interval must not be below min_interval")
        if isinstance(self.max_streams, bool) or not isinstance(self.max_streams, int) or self.max_streams < 0:
            raise ConfigurationError(f"WatchPolicy.max_streams must be a whole number from 0, not {self.max_streams!r}")


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
    url = _read_url("the base URL", text)
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigurationError("the base URL must have no credentials, query or fragment")
    return url.with_path(url.path.rstrip("/"))


def _read_url(what: str, text: str) -> URL:
    try:
        url = URL(text.strip())
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{what} is no URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{what} must begin with https:// or http:// and name a host")
    return url


def check_proxy(proxy: str | None) -> str | None:
    """Return the proxy's address when it is usable; None, for the environment's, stays None.

    Raises:
        ConfigurationError: it is no http or https URL.
    """
    if proxy is not None:
        _read_url("the proxy", proxy)
    return proxy


def environment_proxy(url: URL) -> str | None:
    """Return the proxy that HTTPS_PROXY or HTTP_PROXY and NO_PROXY name for `url`, None for none.

    Raises:
        ConfigurationError: it is no http proxy.
    """
    if urllib.request.proxy_bypass_environment(f"{url.host}:{url.port}"):  # type: ignore[attr-defined] # not in typeshed
        return None
    proxy = urllib.request.getproxies_environment().get(url.scheme)
    # As curl does: what names no scheme is an http proxy.
    return check_proxy(proxy if proxy is None or "://" in proxy else f"http://{proxy}")


def name_user_agent(prefix: str | None = None) -> str:
    """Return the User-Agent: our name and version, behind the caller's own words."""
    # A slow import, for one word that is needed when a client is made.
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = f"comfycontrol-async/{version('comfycontrol-async')}"
    except PackageNotFoundError:
        own = "comfycontrol-async"
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
    if value is not None and not (is_number(value) and value >= 0):
        raise ConfigurationError(f"max_rate_limit_wait must be a number of seconds from 0, not {value!r}")
    return value
