"""URLs of the storage host: on the wire byte for byte, or an error of ours."""

import pytest
from yarl import URL

from comfycontrol_async import DownloadError
from comfycontrol_async._http._storage import _joined, wire_url


@pytest.mark.parametrize(
    ("text", "host", "target"),
    [
        pytest.param("http://h/a%2Fb/../c%7e?s=a%2Bb+c%2f&&x=%", "h", "/a%2Fb/../c%7e?s=a%2Bb+c%2f&&x=%", id="signs"),
        pytest.param("https://h", "h", "/", id="no-path"),
        pytest.param("https://h?x=1", "h", "/?x=1", id="query-only"),
        pytest.param("http://h//x//y", "h", "//x//y", id="slashes"),
        pytest.param("http://h/%zz%", "h", "/%zz%", id="percent-signs"),
        pytest.param("HTTP://h/x#part", "h", "/x", id="fragment"),
        pytest.param("  http://h/x\u00a0 ", "h", "/x", id="spaces-around"),
        pytest.param("http://h/a b?c d", "h", "/a%20b?c%20d", id="spaces"),
        pytest.param("http://h/\u732b.png?s=\xe9", "h", "/%E7%8C%AB.png?s=%C3%A9", id="letters"),
        pytest.param('http://h/a|b{c}"<>^`\\', "h", "/a%7Cb%7Bc%7D%22%3C%3E%5E%60%5C", id="forbidden"),
        pytest.param("http://h/\udce9", "h", "/%E9", id="raw-byte"),
        pytest.param("http://[::1]:8/x", "::1", "/x", id="address-6"),
        pytest.param("http://b\xfccher.example/x", "xn--bcher-kva.example", "/x", id="host-letters"),
    ],
)
def test_wire_url(text: str, host: str, target: str) -> None:
    """What may stand in a request line stays as it is; the rest is percent-encoded."""
    url = wire_url(text)
    assert url.raw_host == host
    assert url.raw_path_qs == target


@pytest.mark.parametrize(
    "text",
    [
        "http://h/\ud83d.png",
        "http://\ud83d/x",
        "http://b\xfccher\u202e.example/x",
        "https://",
        "://",
        "http://h:-1/",
        "\\\\h\\x",
    ],
)
def test_no_url(text: str) -> None:
    """What cannot be sent is an error of ours that does not quote it."""
    with pytest.raises(DownloadError) as caught:
        wire_url(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a%2Fb/../c?x=%2f", "http://h:8/a%2Fb/../c?x=%2f"),
        ("b%2fc", "http://h:8/p/b%2fc"),
        ("?q=%41", "http://h:8/p/q?q=%41"),
        ("//o/x%7e", "http://o/x%7e"),
        ("https://o/%7e", "https://o/%7e"),
        ("ftp:x", "ftp:x"),
        ("../z", "http://h:8/z"),
        ("http://[bad", "http://[bad"),
        ("//[bad", "//[bad"),
    ],
)
def test_joined(location: str, expected: str) -> None:
    """A Location is taken against the URL that it came from, byte for byte."""
    assert _joined(URL("http://h:8/p/q?r=1", encoded=True), location) == expected
