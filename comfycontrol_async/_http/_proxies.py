"""Proxies: which one a request goes through, from an argument or the environment, as curl reads it."""

import ipaddress
import urllib.request

from yarl import URL

from comfycontrol_async._http._urls import read_url
from comfycontrol_async.errors import ConfigurationError


def check_proxy(proxy: str | None) -> str | None:
    """Return the proxy's address when it is usable; None, for the environment's, stays None.

    Raises:
        ConfigurationError: it is no http or https URL.
    """
    if isinstance(proxy, str) and proxy.strip().lower().startswith("socks"):
        raise ConfigurationError(
            "the proxy must begin with https:// or http://, for SOCKS is not supported: give an HTTP proxy, or name "
            "the API's host in NO_PROXY to go without one"
        )
    if proxy is not None:
        read_url("the proxy", proxy)
    return proxy


def environment_proxy(url: URL) -> str | None:
    """Return the proxy that the environment names for `url`, None for none.

    HTTPS_PROXY or HTTP_PROXY by the URL's scheme, else ALL_PROXY; NO_PROXY may hold hosts, domains, addresses and
    networks such as 10.0.0.0/8.

    Raises:
        ConfigurationError: it is no http proxy.
    """
    proxies = urllib.request.getproxies_environment()
    name = url.scheme if proxies.get(url.scheme) else "all"
    proxy = proxies.get(name)
    if not proxy or _bypassed(url, proxies):
        return None
    # As curl does: what names no scheme is an http proxy.
    try:
        return check_proxy(proxy if "://" in proxy else f"http://{proxy}")
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} (it comes from {name.upper()}_PROXY)") from None


def _bypassed(url: URL, proxies: dict[str, str]) -> bool:
    if urllib.request.proxy_bypass_environment(f"{url.host}:{url.port}", proxies):  # type: ignore[attr-defined] # not in typeshed
        return True
    try:
        address = ipaddress.ip_address(url.host or "")
    except ValueError:
        return False  # names are not looked up for this
    return any(_holds(entry.strip(), address) for entry in proxies.get("no", "").split(","))


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return True if an entry of NO_PROXY is the address or a network that it lies in."""
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False
