"""ext.fastapi: one client for each application, given to endpoints; models as response models."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from fastapi.testclient import TestClient

from comfycontrol_async import ComfyControl, ConfigurationError, LocalLimiter, User, Workflow, WorkflowSummary
from comfycontrol_async.ext.fastapi import get_comfy, lifespan, lifespan_of
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH

pytestmark = pytest.mark.examples

Comfy = Annotated[ComfyControl, Depends(get_comfy)]


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """Run a server in a thread of its own."""
    with LocalServer(speed=50.0, limit=1000) as running:
        yield running


def application(server: LocalServer, **options: Any) -> FastAPI:
    """Make an application with a client of the server."""

    def make() -> ComfyControl:
        return ComfyControl(server.token, base_url=server.url, limiter=LocalLimiter(server.limit, server.period))

    app = FastAPI(lifespan=lifespan_of(make), **options)

    @app.get("/me")
    async def me(comfy: Comfy) -> User:
        return await comfy.user.get()

    @app.post("/workflows")
    async def create(comfy: Comfy) -> WorkflowSummary:
        return await comfy.workflows.create(GRAPH, name="made")

    @app.get("/workflows/{id}")
    async def workflow(id: str, comfy: Comfy) -> Workflow:
        return await comfy.workflows.get(id)

    @app.websocket("/live")
    async def live(socket: WebSocket, comfy: Comfy) -> None:
        await socket.accept()
        await socket.send_text((await comfy.user.get()).name)
        await socket.close()

    return app


def test_models(server: LocalServer) -> None:
    """Models are response models: what is sent has the API's names, and the schema has every field."""
    app = application(server)
    with TestClient(app) as client:
        user = client.get("/me").json()
        assert user["name"]
        assert user["tier"]
        made = client.post("/workflows").json()
        assert (made["name"], made["status"]) == ("made", "accepted")
        whole = client.get(f"/workflows/{made['id']}").json()
        assert whole["id"] == made["id"]
        paths = client.get("/openapi.json").json()["paths"]
    schema = paths["/workflows"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {"id", "name", "status", "created_at"} <= schema["properties"].keys()


def test_one_client(server: LocalServer) -> None:
    """An application has one client while it runs, for websockets too, and it is closed at the end."""
    app = application(server)
    seen: list[ComfyControl] = []

    @app.get("/client")
    async def client_of(comfy: Comfy) -> str:
        seen.append(comfy)
        return repr(comfy)

    with TestClient(app) as client:
        for _ in range(3):
            assert "closed" not in client.get("/client").json()
        with client.websocket_connect("/live") as socket:
            assert socket.receive_text()
    assert seen[0] is seen[1] is seen[2]
    assert repr(seen[0]).endswith("closed>")
    with TestClient(app) as client:  # again, with another event loop
        client.get("/client")
    assert seen[3] is not seen[0]


def test_of_the_environment(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lifespan` takes token and address from the environment, and fits into a lifespan of one's own."""
    monkeypatch.setenv("COMFYCONTROL_API_TOKEN", server.token)
    monkeypatch.setenv("COMFYCONTROL_BASE_URL", server.url)
    monkeypatch.setenv("COMFYCONTROL_LIMITER", "local?limit=1000")

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with lifespan(app) as state:
            yield {**state, "mine": 1}

    app = FastAPI(lifespan=mine)

    @app.get("/me")
    async def me(comfy: Comfy) -> User:
        return await comfy.user.get()

    with TestClient(app) as client:
        assert client.get("/me").status_code == 200


def test_without_lifespan(server: LocalServer) -> None:
    """An application that was made without it, or is not entered, is told what to do."""
    app = application(server)
    with pytest.raises(ConfigurationError, match=r"FastAPI.lifespan=lifespan., and enter TestClient by `with`"):
        TestClient(app).get("/me")
