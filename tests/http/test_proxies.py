"""Proxies: given, or named by the environment."""

from typing import Any

import pytest
from yarl import URL

from comfycontrol_async import ConfigurationError
from comfycontrol_async._http._proxies import check_proxy, environment_proxy


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        pytest.param({}, "https://a.test", None, id="none"),
        pytest.param({"HTTPS_PROXY": "http://p.test:3128"}, "https://a.test", "http://p.test:3128", id="https"),
        pytest.param({"https_proxy": "http://p.test:3128"}, "https://a.test", "http://p.test:3128", id="lower-case"),
        pytest.param({"HTTPS_PROXY": "p.test:3128"}, "https://a.test", "http://p.test:3128", id="no-scheme"),
        pytest.param({"HTTPS_PROXY": "http://p.test"}, "http://a.test", None, id="other-scheme"),
        pytest.param({"HTTP_PROXY": "http://p.test"}, "http://a.test", "http://p.test", id="http"),
        pytest.param({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "a.test"}, "https://a.test", None, id="no-proxy"),
        pytest.param({"HTTPS_PROXY": "http://p.test", "NO_PROXY": ".test"}, "https://a.test", None, id="domain"),
        pytest.param({"HTTPS_PROXY": "http://p.test", "NO_PROXY": "*"}, "https://a.test", None, id="star"),
        pytest.param(
            {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "a.test:8443"}, "https://a.test:8443", None, id="port"
        ),
        pytest.param(
            {"HTTPS_PROXY": "http://p.test", "NO_PROXY": "b.test"}, "https://a.test", "http://p.test", id="another-host"
        ),
        pytest.param(
            {"HTTP_PROXY": "http://p.test", "NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8080", None, id="address"
        ),
        pytest.param({"ALL_PROXY": "http://p.test"}, "https://a.test", "http://p.test", id="all"),
        pytest.param({"all_proxy": "p.test:1"}, "http://a.test", "http://p.test:1", id="all-lower-case"),
        pytest.param(
            {"ALL_PROXY": "http://all.test", "HTTPS_PROXY": "http://p.test"},
            "https://a.test",
            "http://p.test",
            id="own-scheme-before-all",
        ),
        pytest.param({"ALL_PROXY": "http://p.test", "NO_PROXY": "a.test"}, "https://a.test", None, id="all-no-proxy"),
        pytest.param({"ALL_PROXY": "socks5://p.test", "NO_PROXY": "*"}, "https://a.test", None, id="socks-no-proxy"),
        *(
            pytest.param({"ALL_PROXY": "http://p.test", "NO_PROXY": entry}, url, proxy, id=f"{entry}-{url}")
            for entry, url, proxy in (
                ("10.0.0.0/8", "http://10.1.2.3", None),
                ("10.0.0.1/8", "http://10.1.2.3", None),
                ("10.0.0.0/8", "http://11.1.2.3", "http://p.test"),
                ("b.test, 10.0.0.0/8", "http://10.1.2.3:8080", None),
                ("127.0.0.0/8", "http://127.0.0.1", None),
                ("::1", "http://[::1]:8080", None),
                ("fd00::/8", "http://[fd00::5]", None),
                ("[fd00::5]", "http://[fd00::5]", None),
                ("fd00::/8", "http://10.1.2.3", "http://p.test"),
                ("10.0.0.0/8", "http://a.test", "http://p.test"),
                ("10.0.0.0/99", "http://10.1.2.3", "http://p.test"),
            )
        ),
    ],
)
def test_environment_proxy(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxy is taken as other programs take it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_proxy(URL(url)) == proxy


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_environment_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A proxy that cannot be used is an error of its own: going past it might not be wanted."""
    monkeypatch.setenv(name, "socks5://user:hunter2@p.test")
    with pytest.raises(ConfigurationError, match="the proxy must begin with https:// or http://") as caught:
        environment_proxy(URL("https://a.test"))
    assert f"NO_PROXY to go without one (it comes from {name})" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("proxy", [None, "http://p.test:3128", "https://user:pass@p.test"], ids=repr)
def test_proxy(proxy: str | None) -> None:
    """A proxy that is given is used as it is."""
    assert check_proxy(proxy) == proxy


@pytest.mark.parametrize("proxy", ["", "p.test:3128", "socks5://p.test", "http://", "http://[", 5], ids=repr)
def test_proxy_refused(proxy: Any) -> None:
    """A proxy that cannot be used is refused when the client is made."""
    with pytest.raises(ConfigurationError, match=r"^the proxy "):
        check_proxy(proxy)
