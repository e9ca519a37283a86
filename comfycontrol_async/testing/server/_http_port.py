"""A listening HTTP port."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_STOPPING = 0.5  # real seconds that requests under way get when the server stops


class HttpPort:
    """Serves one handler on one address; can be stopped and started again."""

    def __init__(self, handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], keepalive: float) -> None:
        self._handle = handle
        self._keepalive = keepalive
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port, which is a free one for 0."""
        self._server = web.Server(self._handle, keepalive_timeout=self._keepalive, access_log=None)
        runner = web.ServerRunner(self._server, shutdown_timeout=_STOPPING)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        bound: int = runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the port and every connection."""
        runner, self._runner, self._server = self._runner, None, None
        if runner is not None:
            await runner.cleanup()

    def close_idle(self) -> int:
        """Close the connections on which no request is under way, and return how many those were."""
        idle = [protocol for protocol in self._server.connections if _is_idle(protocol)] if self._server else []
        for protocol in idle:
            protocol.force_close()
        return len(idle)


def _is_idle(protocol: RequestHandler) -> bool:
    if protocol.transport is None:
        return False
    # aiohttp has no public way to tell; without the attributes every connection counts as idle.
    return not getattr(protocol, "_request_in_progress", False) and not getattr(protocol, "_messages", ())
