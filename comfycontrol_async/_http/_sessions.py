"""Sessions: the aiohttp sessions of a client, the event loop and the proxy that they belong to.

They are opened on first use. The session for downloads from the storage host is apart from the one for API calls and
knows no credential.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from weakref import finalize

import aiohttp
from yarl import URL

from comfycontrol_async._http._attempt import CountedRequest
from comfycontrol_async._http._config import check_session
from comfycontrol_async._http._proxies import environment_proxy
from comfycontrol_async._loop import LoopBinding, close_with_loop
from comfycontrol_async.errors import ClientClosedError


class Sessions:
    """The sessions of a client and its siblings.

    Args:
        base_url: the API's address.
        session: one to use for API calls as it is; it is never closed or changed.
        proxy: None for what the environment names.
        trace_configs: for the session that is opened here for API calls.

    Raises:
        ConfigurationError: the session or a trace is something else, or the session has credentials of its own.
    """

    def __init__(
        self,
        base_url: URL,
        *,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        check_session(session, trace_configs)
        self.base_url = base_url
        self.given = session
        self.closed: bool = False
        # The proxy of API calls; what the environment names is known once their session is open.
        self.proxy = proxy
        self._own_proxy = proxy
        self._trace_configs = tuple(trace_configs)
        self.binding: LoopBinding = LoopBinding("client")
        self._api: aiohttp.ClientSession | None = None
        self._storage: aiohttp.ClientSession | None = None
        self._opened: list[tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]] = []

    def bind(self) -> None:
        """Tie the sessions to the running loop.

        Raises:
            ClientClosedError: the client was closed.
            ClientLoopError: it belongs to another loop that is still alive.
        """
        if self.closed:
            raise ClientClosedError("this client is closed; make a new one")
        if self.binding.bind():
            self._abandon()
            self._api, self._storage, self._opened = self.given, None, []

    def api(self) -> aiohttp.ClientSession:
        """Return the session for API calls.

        Raises:
            ClientClosedError, ClientLoopError: as `bind`; or the session that was given is closed.
        """
        self.bind()
        if self._api is None:
            self.proxy = self._own_proxy or environment_proxy(self.base_url)
            self._api = self._open(self._trace_configs)
        elif self._api is self.given and self._api.closed:
            raise ClientClosedError("the aiohttp session that was given to this client is closed")
        return self._api

    def storage(self) -> aiohttp.ClientSession:
        """Return the session for downloads.

        Raises:
            ClientClosedError, ClientLoopError: as `bind`.
        """
        self.bind()
        if self._storage is None:
            self._storage = self._open(())
        return self._storage

    def proxy_of(self, url: URL) -> str | None:
        """Return the proxy for a URL that is not the API's."""
        return self._own_proxy or environment_proxy(url)

    async def close(self) -> None:
        """Close the sessions that were opened here; a session that was given stays as it is. Any number of times.

        Raises:
            ClientLoopError: they belong to another loop that is still alive, where alone they can be closed.
        """
        if self._opened:
            self.binding.check()
        self.closed = True
        if not self.binding.is_running():
            self._abandon()
        opened, self._opened, self._api, self._storage = self._opened, [], None, None
        for session, closer in opened:
            if not session.closed:
                await closer.aclose()

    def _open(self, trace_configs: Sequence[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        session = aiohttp.ClientSession(
            # The limiter bounds what is in flight; a second bound in the pool would only hide the waiting from it.
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=list(trace_configs),
            request_class=CountedRequest,
        )
        self._opened.append((session, close_with_loop(session)))
        # A client that was forgotten is closed by its loop. Without a reference from outside, the garbage collector
        # might finalize the connector before that, which warns of what it finds open.
        finalize(self, _let_go, session).atexit = False
        return session

    def _abandon(self) -> None:
        """Let go of the sessions of a loop that is closed, as far as that did not close them."""
        for session, _ in self._opened:
            if (connector := session.connector) is not None:
                session.detach()
                with suppress(RuntimeError, StopIteration):  # without its loop there is nothing to wait for
                    next(connector.close().__await__())


def _let_go(session: aiohttp.ClientSession) -> None:
    """Drop the last reference to a session whose client is gone."""
