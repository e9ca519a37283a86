"""The API as a script: what it answers to which request, and what it was asked. On top of aioresponses."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import attrs
from aiohttp.client_proto import ResponseHandler
from aioresponses import aioresponses
from aioresponses.core import RequestCall
from yarl import URL

BASE_URL = "https://api.test"
TOKEN = "cfc_0123456789abcdefSECRET"


@attrs.frozen
class Call:
    """A request that was made; `data` of a form are its fields, see `read_form`."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    data: Any
    options: dict[str, Any] = attrs.field(repr=False)

    @property
    def json(self) -> Any:
        """The JSON body."""
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.data)


class ScriptedApi(aioresponses):
    """Answers requests as `answer`, `fail` and `hold` said for their method and path with query: in order, once each.

    aioresponses runs no middleware and no request class; what these tell an attempt of the client is told here. A
    request that the script does not know is noted in `unexpected`.
    """

    def __init__(self, base_url: str = BASE_URL) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.unexpected: list[str] = []
        self._base_url = base_url
        self._spoil: Callable[[aiohttp.ClientResponse], None] | None = None

    def answer(
        self,
        method: str,
        path: str,
        payload: Any = None,
        *,
        status: int = 200,
        body: str | bytes = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        spoil: Callable[[aiohttp.ClientResponse], None] | None = None,
    ) -> None:
        """Answer the next such requests, with JSON or a body; `spoil` may change the response before it is given."""

        def note(url: URL, **options: Any) -> None:
            self._spoil = spoil

        text = body if payload is None else json.dumps(payload)
        for _ in range(times):
            self.add(
                self._base_url + path,
                method,
                status,
                text,
                content_type=content_type,
                headers=dict(headers or {}),
                callback=note,
            )

    def fail(self, method: str, path: str, error: Exception, *, sent: bool = True, times: int = 1) -> None:
        """Let the next such requests end in an error, after they were written or before."""

        def note(url: URL, **options: Any) -> None:
            _attempt(options).sent = sent

        for _ in range(times):
            self.add(self._base_url + path, method, exception=error, callback=note)

    def hold(self, method: str, path: str, *, sent: bool = True) -> asyncio.Event:
        """Let the next such request wait for ever; return what tells that it does."""
        waiting = asyncio.Event()

        async def wait(url: URL, **options: Any) -> None:
            _attempt(options).sent = sent
            waiting.set()
            await asyncio.Event().wait()

        self.add(self._base_url + path, method, callback=wait)
        return waiting

    @property
    def asked(self) -> list[str]:
        """What was asked for, as "GET /v1/user"."""
        return [f"{call.method} {call.path}" for call in self.calls]

    async def _request_mock(
        self, orig_self: aiohttp.ClientSession, method: str, url: URL | str, *args: Any, **options: Any
    ) -> aiohttp.ClientResponse:
        target, data = URL(url), options.get("data")
        read = read_form(data) if isinstance(data, aiohttp.FormData) else data
        headers = dict(options.get("headers") or {})
        self.calls.append(Call(method, target.path, dict(target.query), headers, read, options))
        attempt = _attempt(options)
        attempt.started = attempt.sent = True
        return await super()._request_mock(orig_self, method, url, *args, **options)

    async def match(
        self, method: str, url: URL, allow_redirects: bool = True, **options: Any
    ) -> aiohttp.ClientResponse | None:
        """Note a request that nothing was said for."""
        response = await super().match(method, url, allow_redirects, **options)
        spoil, self._spoil = self._spoil, None
        if response is None:
            self.unexpected.append(f"{method} {url.path_qs}")
        elif spoil is not None:
            spoil(response)
        return response

    def _build_request_call(
        self, method: str = "GET", *args: Any, allow_redirects: bool = True, **options: Any
    ) -> RequestCall:
        # The original copies all options deeply, and with them the permit, its limiter and the event loop.
        return RequestCall(args, options)


class _Open(asyncio.Transport):
    """A connection that stays open and brings nothing."""

    def is_closing(self) -> bool:
        """Say no."""
        return False


def cut(response: aiohttp.ClientResponse) -> None:
    """Let the body break off."""
    response.content.set_exception(aiohttp.ClientPayloadError("cut off"))


def endless(response: aiohttp.ClientResponse) -> None:
    """Let the body never come."""
    loop = asyncio.get_running_loop()
    protocol = ResponseHandler(loop=loop)
    protocol.connection_made(_Open())
    response.content = aiohttp.StreamReader(protocol, limit=2**16, loop=loop)


def _attempt(options: Mapping[str, Any]) -> Any:
    """Return the client's own middleware."""
    return options["middlewares"][-1]


def read_form(form: aiohttp.FormData) -> dict[str, Any]:
    """Return a form's fields by name: texts, and for files (name, media type, content)."""
    fields: dict[str, Any] = {}
    for options, headers, value in form._fields:
        name = options["name"]
        assert name not in fields, f"the field {name} is there twice"
        if "filename" in options:
            value = (options["filename"], headers["Content-Type"], value.read())
        fields[name] = value
    return fields
