"""A bare HTTP client for tests of LocalServer: it knows nothing of the SDK."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import attrs

from comfycontrol_async.testing import LocalServer

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "color": 0x336699}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "pic"}},
}


@attrs.frozen
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@attrs.frozen
class Api:
    """Sends requests to one server."""

    server: LocalServer
    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        """Send one request, with the token unless `headers` are given."""
        headers = options.pop("headers", {"Authorization": f"Bearer {self.server.token}"})
        url = path if path.startswith("http") else self.server.url + path
        async with self.session.request(method, url, headers=headers, **options) as response:
            return Reply(response.status, response.headers.copy(), await response.read())

    async def get(self, path: str) -> Any:
        """Return the JSON of a successful GET."""
        reply = await self.call("GET", path)
        assert reply.status == 200, reply
        return reply.json

    async def create(self, graph: Any = GRAPH, **fields: Any) -> str:
        """Create a workflow and return its id."""
        reply = await self.call("POST", "/v1/workflow", data=workflow_form(graph, **fields))
        assert reply.status == 201, reply
        return str(reply.json["id"])


def workflow_form(graph: Any = GRAPH, **fields: Any) -> aiohttp.FormData:
    """Return the form of a submission; a value of bytes is sent as a file, None leaves the field out."""
    parts = {"name": "a name", "workflow_json": json.dumps(graph).encode(), **fields}
    return form({name: value for name, value in parts.items() if value is not None})


def form(parts: Mapping[str, Any]) -> aiohttp.FormData:
    """Return a multipart form; a value of bytes is sent as a file."""
    data = aiohttp.FormData(default_to_multipart=True)
    for name, value in parts.items():
        if isinstance(value, bytes):
            data.add_field(name, value, filename=f"{name.strip('$#')}.bin", content_type="application/octet-stream")
        else:
            data.add_field(name, value)
    return data


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Api]:
    """Run a server, fast and with a large budget unless `options` say otherwise."""
    async with (
        LocalServer(**{"speed": 100.0, "limit": 10_000, **options}) as server,
        aiohttp.ClientSession() as session,
    ):
        yield Api(server, session)
