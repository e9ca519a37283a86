"""Signed URLs of the storage: made, checked, expired."""

import hashlib
import hmac
import math
import secrets
from urllib.parse import quote

from comfycontrol_async.testing.server._time import ServerTime


class UrlSigner:
    """Signs paths for a while, in server seconds."""

    def __init__(self, time: ServerTime, lifetime: float) -> None:
        self.base = ""
        self._time = time
        self._lifetime = lifetime
        self._key = secrets.token_bytes(32)

    def sign(self, path: str) -> str:
        """Return a URL that opens `path` for a while."""
        expires = self._time.now() + self._lifetime
        stamp = f"{self._time.unix(expires):.3f}"
        return f"{self.base}{quote(path)}?signature={self._signature(path, stamp)}&expires={stamp}"

    def valid(self, path: str, signature: str, stamp: str) -> bool:
        """Return whether a URL made of these parts opens `path` now."""
        if not hmac.compare_digest(signature.encode(), self._signature(path, stamp).encode()):
            return False
        expires = float(stamp)
        return math.isfinite(expires) and self._time.unix(self._time.now()) < expires

    def expire_all(self) -> None:
        """Make every URL given so far worthless."""
        self._key = secrets.token_bytes(32)

    def _signature(self, path: str, stamp: str) -> str:
        return hmac.new(self._key, f"{path}?{stamp}".encode(), hashlib.sha256).hexdigest()
