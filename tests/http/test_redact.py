"""Secrets are taken out of texts, whatever stands around them, in linear time."""

import pytest

from comfycontrol_async._http._redact import redact, redactor

TOKEN = "cfc_0123456789abcdefSECRET"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("no secret", "no secret", id="none"),
        pytest.param(f"token {TOKEN} is bad", "token cfc_*** is bad", id="token"),
        pytest.param(f"'{TOKEN}', \"{TOKEN}\"", "'cfc_***', \"cfc_***\"", id="quoted"),
        pytest.param(f"Authorization: Bearer {TOKEN}\r\n", "Authorization: Bearer cfc_***\r\n", id="header"),
        pytest.param(TOKEN.upper(), "cfc_***", id="upper-case"),
        pytest.param("begins with 'cfc_'", "begins with 'cfc_'", id="the-prefix-alone"),
        pytest.param("cfc_... or so", "cfc_*** or so", id="a-placeholder-too"),
        pytest.param(
            "GET https://s.test/a.png?X-Signature=abc&b=1 failed", "GET https://s.test/a.png?*** failed", id="query"
        ),
        pytest.param("url='https://s.test/a?sig=1'", "url='https://s.test/a?***'", id="quoted-query"),
        pytest.param("is it there? yes", "is it there? yes", id="question"),
        pytest.param("http://user:hunter2@p.test:1", "http://***@p.test:1", id="password"),
        pytest.param("mail a@b.test", "mail a@b.test", id="mail"),
        pytest.param("cfc_" + "x" * 4000 + " !", "cfc_*** !", id="long"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    """Tokens, queries and passwords become ***."""
    assert redact(text) == shown


def test_a_token_of_another_form() -> None:
    """A client's own token is known whatever it looks like."""
    assert redactor("hunter2")("the token hunter2 of cfc_abcdef") == "the token *** of cfc_***"


@pytest.mark.parametrize(
    "text", ["http://" * 50_000, "cfc_" * 50_000, "://a" * 50_000, "http://a?" * 50_000], ids=lambda text: text[:9]
)
def test_hostile(text: str) -> None:
    """No text takes long."""
    assert len(redact(text)) <= len(text)
