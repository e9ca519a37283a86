"""One limiter for all clients of one origin and event loop: the server counts them together.

The limiters outlive their clients and loops, so that a second `asyncio.run` knows what the first has spent.
"""

import asyncio
from threading import Lock

from comfycontrol_async.limits._memory import LocalLimiter

_limiters: dict[str, list[LocalLimiter]] = {}
_lock = Lock()


def shared_limiter(origin: str) -> LocalLimiter:
    """Return the limiter of `origin` for the running loop, or one that no live loop has, when none is running."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    with _lock:
        limiters = _limiters.setdefault(origin, [])
        for limiter in limiters:
            if limiter.serves(loop):
                return limiter
        limiters.append(LocalLimiter())
        return limiters[-1]
