"""What an HTML error page says, also when the page is broken or hostile."""

import pytest

from comfycontrol_async._http._html import html_text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        pytest.param(b"", "", id="empty"),
        pytest.param(b"<title>Bad\n gateway</title>", "Bad gateway", id="title"),
        pytest.param(b'<TITLE lang="en">Oops</TITLE>', "Oops", id="upper-case-with-an-attribute"),
        pytest.param(b"<title></title><p>x", "", id="empty-title"),
        pytest.param(b"<title>no end<p>text", "no end text", id="title-without-an-end"),
        pytest.param(b"<title", "", id="half-a-tag"),
        pytest.param(b"plain", "plain", id="no-tags"),
        pytest.param(b"a<b", "a", id="open-tag"),
        pytest.param(b"<p>1 > 0</p>", "1 > 0", id="sign"),
        pytest.param(b"<script>if (a<b) {}</script>x<style>y</style>z", "x z", id="script-and-style"),
        pytest.param(b"x<script>if (a<b)", "x", id="script-without-an-end"),
        pytest.param("<title>\u0130</title>".encode(), "\u0130", id="letter-that-grows-when-lowered"),
        pytest.param(b"<html>" + b"<title>" * 100_000, "", id="titles-without-an-end"),
        pytest.param(b"x" + b"<script>" * 100_000, "x", id="scripts-without-an-end"),
        pytest.param(b"x" + b"<" * 1_000_000, "x", id="open-tags"),
        pytest.param(b"<title " * 100_000, "", id="titles-that-are-no-tags"),
        pytest.param(b" " * 1_000_000 + b"late", "", id="only-the-beginning"),
    ],
)
def test_text(page: bytes, text: str) -> None:
    """The title, or the text without tags, scripts and styles, on one line."""
    assert html_text(page) == text
