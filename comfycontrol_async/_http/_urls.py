"""URLs that users give, checked before anything is sent to them."""

from yarl import URL

from comfycontrol_async.errors import ConfigurationError

# The longest part between two dots of a host name (RFC 1035, 2.3.4).
_LONGEST_LABEL = 63


def read_url(what: str, text: str) -> URL:
    """Return an http or https URL; `what` names it in the error, which never quotes it: it may hold a secret.

    Raises:
        ConfigurationError: it is none, or names a host that cannot be.
    """
    try:
        url = URL(text.strip())
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{what} is no URL: {_reason(error)}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{what} must begin with https:// or http:// and name a host")
    if not can_be_resolved(url):
        raise ConfigurationError(
            f"{what} names a host that cannot exist: each part between dots has 1 to {_LONGEST_LABEL} characters, "
            "and none of them a blank"
        )
    return url


def can_be_resolved(url: URL) -> bool:
    """Return False if the name's parts are empty or too long, or hold blanks: looking it up would be a UnicodeError."""
    host = (url.raw_host or "").removesuffix(".")
    if ":" in host:
        return True  # an IPv6 address
    return all(0 < len(label) <= _LONGEST_LABEL for label in host.split(".")) and not any(c.isspace() for c in host)


def _reason(error: Exception) -> str:
    return "its host name cannot be encoded" if isinstance(error, UnicodeError) else str(error)
