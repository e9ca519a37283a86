"""Storage: opens signed URLs on the storage host, without any credential of ours and without spending a request.

A signature covers the bytes of a URL, so a URL goes on the wire as it came, from the service or from a redirect:
aiohttp, left to itself, decodes and encodes it again. Only what no request line may hold is percent-encoded.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urljoin

import aiohttp
import attrs
from yarl import URL

from comfycontrol_async._http._config import Timeouts
from comfycontrol_async._http._faults import TRANSPORT_FAULTS, classify
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async.errors import DownloadError, ResponseLostError

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Everything that may stand in a URL (RFC 3986, 2), and the percent sign: encoded already, or meant as it is.
_URL_SIGNS = "%:/?#[]@!$&'()*+,;=-._~"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_READ_BUFFER = 1 << 18


@attrs.frozen(eq=False, repr=False)
class StoredObject:
    """An answer of the storage host: its headers, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    _answer: aiohttp.ClientResponse = attrs.field(repr=False)
    _pause: float | None

    @property
    def has_length(self) -> bool:
        """Whether HTTP gives the end of the body, so that aiohttp notices a lost connection."""
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the body in pieces as they arrive, packed as they are stored.

        Raises:
            ResponseLostError: the connection broke before the end.
            RequestTimeoutError: the host was silent for longer than `Timeouts.read`.
        """
        # `connection` is None once the whole body is here, which may be before we look; aiohttp shows no other way.
        protocol = getattr(self._answer, "_protocol", None)
        content = self._answer.content
        try:
            while True:
                # aiohttp's own timer is gone after an interim answer.
                async with asyncio.timeout(self._pause):
                    chunk = await content.readany()
                if not chunk:
                    break
                yield chunk
        except TRANSPORT_FAULTS as error:
            raise classify(error, True, "GET", self._answer.url.path).error from None
        # Without a length aiohttp takes a connection reset for a normal end.
        if not self.has_length and protocol is not None and isinstance(protocol.exception(), OSError):
            raise ResponseLostError("the connection was reset", method="GET", path=self._answer.url.path)


class Storage:
    """Downloads from the storage host, through a session that knows no credential."""

    def __init__(self, sessions: Sessions, *, user_agent: str) -> None:
        self._sessions = sessions
        self._user_agent = user_agent

    @asynccontextmanager
    async def download(
        self, url: str, *, offset: int = 0, etag: str = "", timeouts: Timeouts
    ) -> AsyncIterator[StoredObject]:
        """Open a signed URL.

        Args:
            url: as the service gave it.
            offset, etag: ask for what follows the first `offset` bytes of the object with this strong ETag, and for all
                of it when it is another one by now (RFC 9110, 13.1.5).
            timeouts: `connect` and `read` bound every step.

        Raises:
            DownloadError: the URL, or one that it redirects to, cannot be called.
            ConnectionFailedError, ResponseLostError, RequestTimeoutError: no answer.
        """
        headers = {"User-Agent": self._user_agent, "Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": etag}
        answer = await self._follow(url, headers, timeouts)
        try:
            yield StoredObject(answer.status, answer.headers, answer, timeouts.read)
        finally:
            answer.close()

    async def _follow(self, url: str, headers: Mapping[str, str], timeouts: Timeouts) -> aiohttp.ClientResponse:
        target = wire_url(url)
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._get(target, headers, timeouts)
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            secure = target.scheme == "https"
            target = wire_url(_joined(target, location))
            if secure and target.scheme != "https":
                raise DownloadError("the storage host redirects from https to http, where its signature could be read")
        raise DownloadError(f"the storage host redirects more than {_MOST_REDIRECTS} times")

    async def _get(self, target: URL, headers: Mapping[str, str], timeouts: Timeouts) -> aiohttp.ClientResponse:
        session = self._sessions.storage()
        steps = (timeouts.connect, timeouts.read)
        try:
            # Interim answers (100, 103) stop aiohttp's timer, and must not extend this bound.
            async with asyncio.timeout(None if None in steps else sum(filter(None, steps))):
                return await session.get(
                    target,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(
                        total=None, connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.read
                    ),
                    proxy=self._sessions.proxy_of(target),
                    allow_redirects=False,
                    auto_decompress=False,
                    read_bufsize=_READ_BUFFER,
                )
        except TRANSPORT_FAULTS as error:
            raise classify(error, True, "GET", target.path).error from None
        except ValueError:
            raise DownloadError("the output's URL cannot be called: its host or port is none") from None


def _joined(base: URL, location: str) -> str:
    """Return what a Location header points to (RFC 9110, 10.2.2), byte for byte."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return location
    try:
        # `urljoin` would take the dots out of a path; a path from the root is to stay as it is.
        if location.startswith("/") and not location.startswith("//"):
            return f"{base.scheme}://{base.raw_authority}{location}"
        return urljoin(str(base), location)
    except ValueError:
        return location


def wire_url(text: str) -> URL:
    """Return a signed URL such that it goes on the wire byte for byte.

    Spaces and letters beyond ASCII, which a request line cannot hold, are percent-encoded, as browsers do.

    Raises:
        DownloadError: it is no http or https URL, has no host or an impossible port, or holds a user name or password,
            which would be sent. The text does not quote it, for anyone who has it can use it.
    """
    try:
        if _CONTROL.search(text):
            raise DownloadError("the output's URL has control characters")
        # A redirect may hold bytes that are no UTF-8, which aiohttp gives as lone surrogates.
        url = URL(quote(text.strip(), safe=_URL_SIGNS, errors="surrogateescape"), encoded=True)
        host = url.raw_host or ""
        if "%" in host and not host.startswith("["):
            url = url.with_host(text.strip().split("/")[2].partition(":")[0])
        port = url.port
    except (ValueError, TypeError, IndexError, AttributeError):
        raise DownloadError("the output's URL is no http or https URL") from None
    if url.scheme not in ("http", "https"):
        scheme = f": its scheme is {url.scheme!r}" if url.scheme else ""
        raise DownloadError(f"the output's URL is no http or https URL{scheme}")
    if not url.raw_host or not port:
        raise DownloadError("the output's URL names no host that can be called")
    if url.raw_user is not None or url.raw_password is not None:
        raise DownloadError("the output's URL holds a user name or password, which are not sent to a storage host")
    return url
