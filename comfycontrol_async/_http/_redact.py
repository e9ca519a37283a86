"""Secrets taken out of texts: tokens, the query of a signed URL, the password in a proxy's address."""

import re
from collections.abc import Callable

_SHOWN = "***"
# Bounded and possessive, so that no text takes longer than linear time.
_RULES = (
    (re.compile(r"cfc_[^\s\"'<>&,;:)\]}\\]{3,4000}+", re.IGNORECASE), f"cfc_{_SHOWN}"),
    (re.compile(r"(://)[^\s/@\"'<>]{1,300}+@"), rf"\1{_SHOWN}@"),
    (re.compile(r"(https?://[^\s?\"'<>]{1,500}+\?)[^\s\"'<>]{1,5000}+"), rf"\1{_SHOWN}"),
)

Redact = Callable[[str], str]


def redact(text: str) -> str:
    """Return the text with `***` in the place of what looks like a secret."""
    for pattern, shown in _RULES:
        text = pattern.sub(shown, text)
    return text


def redactor(token: str) -> Redact:
    """Return a `redact` that knows a token, whatever it looks like."""

    def without_token(text: str) -> str:
        return redact(text.replace(token, _SHOWN))

    return without_token
