"""Sessions and their connections: kept alive, given by the caller, through a proxy, and over a client's life."""

import asyncio
import gc
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any
from weakref import ref

import aiohttp
import pytest
from aiohttp import web

from comfycontrol_async import (
    ClientClosedError,
    ClientLoopError,
    ComfyControl,
    ConnectionFailedError,
    LocalLimiter,
    NotFoundError,
    ResponseLostError,
    SubmitOutcomeUnknownError,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import (
    ONCE,
    SPEED,
    TOKEN,
    Received,
    answer_user,
    client_at,
    client_of,
    connected,
    recording,
    sent,
    serving,
)
from support.waiting import eventually


class TestKeptAliveConnections:
    """aiohttp sends again by itself when a kept-alive connection turns out dead; here every request has a permit."""

    async def test_idle_connections_closed_by_the_server(self) -> None:
        """N calls are N requests at the server and N permits, however often the server closes idle connections."""
        async with connected(speed=1.0) as (server, comfy):
            for _ in range(10):
                await comfy.user.get()
                server.close_idle()
                await asyncio.sleep(0.002)
                for _ in range(20):  # turns of the loop in which the client learns of it
                    await asyncio.sleep(0)
            assert len(server.requests) == 10
            assert comfy.limiter.snapshot().used == 10

    async def test_race_with_the_server(self) -> None:
        """When the close crosses the request, no request arrives without a permit, and none is lost."""
        async with connected(speed=1.0) as (server, comfy):
            for _ in range(30):
                await comfy.user.get()
                server.close_idle()
            assert len(server.requests) == 30
            assert comfy.limiter.snapshot().used >= 30

    @pytest.mark.parametrize("given", [False, True], ids=["own-session", "given-session"])
    async def test_dead_connection(self, given: bool) -> None:
        """A GET and a PUT that a reused connection swallows are sent again by us: a permit for each that arrived."""
        async with serving(speed=1.0) as server, AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession()) if given else None
            comfy = await stack.enter_async_context(client_of(server, session=session))
            runner_id = next(iter(server.runners))
            await comfy.user.get()
            server.drop_next("GET", "/v1/user")
            await comfy.user.get()
            server.drop_next("PUT", "*")
            await comfy.runners.update(runner_id, name="new")
            assert len(server.requests) == 5
            assert comfy.limiter.snapshot().used == 5

    async def test_a_create_is_never_sent_twice(self) -> None:
        """A POST that a reused connection swallows is not sent again."""
        async with connected() as (server, comfy):
            await comfy.user.get()
            server.drop_next("POST", "/v1/workflow")
            with pytest.raises(SubmitOutcomeUnknownError):
                await comfy.workflows.create(GRAPH, name="w")
            assert sent(server, "POST") == ["POST /v1/workflow"]


class TestGivenSession:
    """A session that the caller made is used as it is."""

    async def test_left_as_it_was(self, server: LocalServer) -> None:
        """It carries the requests, stays open, and keeps its headers and middlewares."""
        seen: list[str] = []

        async def note(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
            seen.append(f"{request.method} {request.url.path}")
            return await handler(request)

        async with aiohttp.ClientSession(headers={"X-Own": "1"}, middlewares=(note,), raise_for_status=True) as session:
            async with client_of(server, session=session) as comfy:
                await comfy.user.get()
                made = await comfy.workflows.create(GRAPH, name="w")
                with pytest.raises(NotFoundError):  # although the session raises by itself
                    await comfy.request("GET", "/v1/nothing")
            assert not session.closed
            async with session.get(server.url + "/v1/user", headers={"Authorization": f"Bearer {server.token}"}) as raw:
                assert raw.status == 200
        assert made.id in server.workflows
        assert seen == ["GET /v1/user", "POST /v1/workflow", "GET /v1/nothing", "GET /v1/user"]
        assert all(request.headers["X-Own"] == "1" for request in server.requests)
        assert "comfycontrol-async" not in server.requests[-1].headers["User-Agent"]

    async def test_downloads_do_not_use_it(self, server: LocalServer, tmp_path: Any) -> None:
        """The storage host gets nothing of it: its headers may be credentials."""
        async with (
            aiohttp.ClientSession(headers={"Authorization": "Bearer cfc_mine", "X-Own": "1"}) as session,
            client_of(server, session=session) as comfy,
        ):
            run = await comfy.run(GRAPH)
            assert len(await run.download(tmp_path)) == 1
        assert not server.leaked_credentials
        assert all("X-Own" not in request.headers for request in server.storage_requests)

    async def test_closed_by_its_owner(self, server: LocalServer) -> None:
        """Using it after it was closed says so."""
        session = aiohttp.ClientSession()
        async with client_of(server, session=session) as comfy:
            await comfy.user.get()
            await session.close()
            with pytest.raises(ClientClosedError):
                await comfy.user.get()
            assert comfy.limiter.snapshot().used <= 1

    async def test_lost_and_refused(self) -> None:
        """What never left is given back, what may have arrived is not, as far as a given session lets us know."""
        async with (
            serving(speed=1.0) as server,
            aiohttp.ClientSession() as session,
            client_of(server, session=session, retry=ONCE) as comfy,
        ):
            server.drop_next("GET", "/v1/user")
            with pytest.raises(ResponseLostError):
                await comfy.user.get()
            assert comfy.limiter.snapshot().used == 1
            await server.stop()
            with pytest.raises(ConnectionFailedError):
                await comfy.user.get()
            assert comfy.limiter.snapshot().used == 1


async def test_trace_configs(server: LocalServer) -> None:
    """Traces that the caller gives see every request on the wire."""
    ended: list[int] = []

    async def note(session: object, context: object, params: aiohttp.TraceRequestEndParams) -> None:
        ended.append(params.response.status)

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)
    server.fail_next("GET", "/v1/user", status=503)
    async with client_of(server, trace_configs=[trace]) as comfy:
        await comfy.user.get()
    assert ended == [503, 200]


class TestProxy:
    """A proxy that is given or named by the environment."""

    async def test_given(self) -> None:
        """The proxy gets the request for the API's host."""
        async with recording(answer_user) as proxy, client_at("http://comfy.test", proxy=proxy.url) as comfy:
            assert (await comfy.user.get()).name == "John Doe"
        assert [it.target for it in proxy.received] == ["http://comfy.test/v1/user"]

    async def test_tunnel_refused(self) -> None:
        """A proxy that refuses the tunnel gets no token, and the request never left: its slot is given back."""

        def refuse(received: Received) -> web.Response:
            return web.Response(status=403)

        async with recording(refuse) as proxy, client_at("https://comfy.test", proxy=proxy.url, retry=ONCE) as comfy:
            with pytest.raises(ConnectionFailedError):
                await comfy.user.get()
            assert comfy.limiter.snapshot().used == 0
        assert [it.method for it in proxy.received] == ["CONNECT"]
        assert not any(TOKEN in value for value in proxy.received[0].headers.values())

    @pytest.mark.parametrize(
        ("environment", "proxied"),
        [
            pytest.param({"HTTP_PROXY": "{proxy}"}, True, id="http"),
            pytest.param({"http_proxy": "{proxy}"}, True, id="lower-case"),
            pytest.param({"HTTPS_PROXY": "{proxy}"}, False, id="other-scheme"),
            pytest.param({"HTTP_PROXY": "{proxy}", "NO_PROXY": "127.0.0.1"}, False, id="no-proxy"),
            pytest.param({"HTTP_PROXY": "{proxy}", "NO_PROXY": "*"}, False, id="no-proxy-at-all"),
            pytest.param({"HTTP_PROXY": "{proxy}", "NO_PROXY": "example.com"}, True, id="no-proxy-elsewhere"),
        ],
    )
    async def test_environment(
        self, server: LocalServer, monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], proxied: bool
    ) -> None:
        """HTTP_PROXY and NO_PROXY are obeyed, as they were when the session opened."""
        async with recording(answer_user) as proxy, client_of(server) as comfy:
            for name, value in environment.items():
                monkeypatch.setenv(name, value.format(proxy=proxy.url))
            await comfy.user.get()
            for name in environment:
                monkeypatch.delenv(name)
            await comfy.user.get()
        assert len(proxy.received) == (2 if proxied else 0)
        assert len(server.requests) == (0 if proxied else 2)

    async def test_environment_https(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """HTTPS_PROXY is asked for a tunnel to an https API."""
        async with recording(lambda received: web.Response(status=502)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            async with client_at("https://comfy.test", retry=ONCE) as comfy:
                with pytest.raises(ConnectionFailedError):
                    await comfy.user.get()
        assert [it.method for it in proxy.received] == ["CONNECT"]

    async def test_given_session_takes_none_from_the_environment(
        self, server: LocalServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A given session is used as it is: what the environment says of proxies is its owner's affair."""
        async with recording(answer_user) as proxy, aiohttp.ClientSession() as session:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            async with client_of(server, session=session) as comfy:
                await comfy.user.get()
        assert proxy.received == []


class TestLife:
    """One client over its life: before a loop, in two loops after each other, and after its end."""

    async def test_closing(self, server: LocalServer) -> None:
        """Closing any number of times is harmless; then every call says that the client is closed."""
        comfy = client_of(server)
        await comfy.user.get()
        await comfy.aclose()
        await comfy.aclose()
        with pytest.raises(ClientClosedError):
            await comfy.user.get()
        with pytest.raises(ClientClosedError):
            await comfy.get_run(next(iter(server.runners))).refresh()
        assert len(server.requests) == 1

    async def test_closing_while_requests_wait(self) -> None:
        """A request that waits for the limit when the client is closed ends with an error and holds nothing."""
        async with serving(limit=1, speed=1.0) as server:
            comfy = client_of(server, limiter=LocalLimiter(1, 0.3))
            await comfy.user.get()
            waiting = asyncio.create_task(comfy.user.get())
            await eventually(lambda: sum(comfy.limiter.snapshot().waiting.values()) == 1)
            await comfy.aclose()
            with pytest.raises(ClientClosedError):
                await waiting
            assert len(server.requests) == 1
            assert comfy.limiter.snapshot().used == 0

    @pytest.mark.parametrize("orderly", [True, False], ids=["asyncio.run", "bare-loop"])
    def test_two_loops_after_each_other(self, orderly: bool, recwarn: pytest.WarningsRecorder) -> None:
        """One client, made without a loop and not closed in between, serves two loops, and the budget is one.

        `asyncio.run` closes its connections for it; what a bare loop leaves open, asyncio itself complains of.
        """
        server = LocalServer(limit=100, period=3000.0, speed=SPEED)
        clients: list[ComfyControl] = []

        async def use() -> None:
            async with server:
                comfy = clients[0] if clients else client_of(server)
                clients.append(comfy)
                await comfy.user.get()
                await comfy.run(GRAPH)

        async def close() -> None:
            await clients[0].aclose()

        for step in (use, use, close):
            if orderly:
                asyncio.run(step())
            else:
                loop = asyncio.new_event_loop()
                loop.run_until_complete(step())
                loop.close()
        gc.collect()
        assert [str(it.message) for it in recwarn if "unclosed transport" not in str(it.message) or orderly] == []
        assert len(server.requests) == 6
        assert clients[0].limiter.snapshot().used == 6

    async def test_forgotten_while_the_loop_lives(self, server: LocalServer, recwarn: pytest.WarningsRecorder) -> None:
        """A client that is dropped unclosed, in a reference cycle, is closed by its loop without a warning."""
        connectors = []
        for _ in range(5):
            comfy = client_of(server)
            await comfy.user.get()
            session = comfy._core.sessions._api
            assert session is not None
            connectors.append(ref(session.connector))
            comfy.myself = comfy  # type: ignore[attr-defined] # a cycle, as users make them
            del comfy, session
            gc.collect()

        def closed(connector: Any) -> bool:
            return connector is None or connector.closed

        await eventually(lambda: all(closed(connector()) for connector in connectors))
        gc.collect()
        assert [str(it.message) for it in recwarn] == []

    async def test_two_live_loops(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A second loop beside a living one is refused with our own error."""
        await comfy.user.get()

        def use_elsewhere() -> None:
            asyncio.run(comfy.user.get())

        with pytest.raises(ClientLoopError):
            await asyncio.to_thread(use_elsewhere)
        assert len(server.requests) == 1
