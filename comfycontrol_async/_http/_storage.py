"""Storage: opens signed URLs on the storage host, without any credential of ours and without spending a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._faults import TRANSPORT_FAULTS, classify
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import ConnectionFailedError


class Storage:
    """Downloads from the storage host, through a session that knows no credential."""

    def __init__(self, sessions: Sessions, *, user_agent: str) -> None:
        self._sessions = sessions
        self._user_agent = user_agent

    @asynccontextmanager
    async def download(self, url: str, *, offset: int = 0, timeouts: Timeouts) -> AsyncIterator[Stream]:
        """Open a signed URL from byte `offset` on.

        Raises:
            ConnectionFailedError, ResponseLostError, RequestTimeoutError: no answer.
        """
        try:
            target = URL(url, encoded=True)
        except ValueError as error:
            raise ConnectionFailedError(f"the signed URL is no URL: {error}", method="GET") from None
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        timeout = aiohttp.ClientTimeout(
            total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.read
        )
        session = self._sessions.storage()
        proxy = self._sessions.proxy_of(target)
        try:
            answer = await session.get(target, headers=headers, timeout=timeout, proxy=proxy)
        except TRANSPORT_FAULTS as error:
            raise classify(error, True, "GET", target.path).error from error
        try:
            yield Stream(answer.status, answer.headers, "GET", target.path, answer)
        finally:
            answer.close()
