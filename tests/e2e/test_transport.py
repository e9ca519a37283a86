"""What goes over the wire, and what becomes of it when the other end misbehaves."""

import asyncio
import gc
import json
import time

import pytest

from comfycontrol_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ComfyControl,
    ConnectionFailedError,
    LocalLimiter,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    SubmitOutcomeUnknownError,
    Timeouts,
    __version__,
)
from comfycontrol_async._http._attempt import Attempt, CountedRequest
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import ONCE, answer_user, client_at, client_of, raw_server, recording, sent, serving


class TestMemory:
    """What a request leaves behind."""

    async def test_no_cycles(self, comfy: ComfyControl) -> None:
        """Nothing of a request waits for the garbage collector, which would cost a tenth of its CPU."""

        def alive() -> int:
            return sum(type(it) in (CountedRequest, Attempt) for it in gc.get_objects())

        await comfy.user.get()
        gc.collect()
        before = alive()
        gc.disable()
        try:
            await comfy.user.get()
            await comfy.workflows.create(GRAPH, name="x")
            after = alive()
        finally:
            gc.enable()
        assert after == before


class TestHeaders:
    """What every request says."""

    async def test_request_headers(self, server: LocalServer, comfy: ComfyControl) -> None:
        """The token, JSON, and our name with the version are sent."""
        await comfy.user.get()
        headers = server.requests[0].headers
        assert headers["Authorization"] == f"Bearer {server.token}"
        assert headers["Accept"] == "application/json"
        assert headers["User-Agent"] == f"comfycontrol-async/{__version__}"
        assert "Content-Type" not in headers

    async def test_own_user_agent(self, server: LocalServer) -> None:
        """The caller's words stand before ours."""
        async with client_of(server, user_agent="my-bot/2.0") as comfy:
            await comfy.user.get()
        assert server.requests[0].headers["User-Agent"].startswith("my-bot/2.0 comfycontrol-async")

    async def test_json_body(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A JSON body is sent as such, in UTF-8."""
        runner = await comfy.runners.create("Läufer", "https://example.com", headers={"X-Key": "ü"}, tags=["a"])
        assert server.requests[0].headers["Content-Type"] == "application/json"
        assert server.runners[runner.id]["name"] == "Läufer"
        assert runner.headers == {"X-Key": "ü"}

    async def test_base_url_with_a_path(self) -> None:
        """A base URL may have a path, which every request keeps."""
        async with recording(answer_user) as proxy, client_at(proxy.url + "/prefix/") as comfy:
            await comfy.user.get()
        assert [it.target for it in proxy.received] == ["/prefix/v1/user"]

    async def test_escape_hatch(self, server: LocalServer, comfy: ComfyControl) -> None:
        """`request` sends what it is told and returns the parsed JSON."""
        listed = await comfy.request("get", "/v1/runner", params={"page": 1, "per_page": 5})
        assert listed["total"] == 1
        made = await comfy.request("POST", "/v1/runner", json={"name": "x", "endpoint": "http://x.test"})
        assert server.runners[made["id"]]["name"] == "x"
        assert await comfy.request("POST", f"/v1/runner/{made['id']}/interrupt") is None


class TestErrorBodies:
    """Errors from the service and from the edge in front of it."""

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            pytest.param(400, BadRequestError, id="400"),
            pytest.param(401, AuthenticationError, id="401"),
            pytest.param(403, PermissionDeniedError, id="403"),
            pytest.param(404, NotFoundError, id="404"),
            pytest.param(418, APIError, id="418"),
            pytest.param(500, ServerError, id="500"),
            pytest.param(503, ServerError, id="503"),
        ],
    )
    async def test_json(self, server: LocalServer, status: int, kind: type[APIError]) -> None:
        """The API's envelope gives its message, the status, the request and Cloudflare's ray id."""
        body = json.dumps({"status": status, "message": "something is wrong"})
        server.fail_next("GET", "/v1/user", status=status, body=body, content_type="application/json")
        async with client_of(server, retry=ONCE) as comfy:
            with pytest.raises(kind) as caught:
                await comfy.user.get()
        error = caught.value
        assert type(error) is kind
        assert (error.status, error.message) == (status, "something is wrong")
        assert (error.method, error.path) == ("GET", "/v1/user")
        assert error.request_id is not None
        assert error.request_id.endswith("-LCL")
        assert str(error) == f"GET /v1/user: {status} something is wrong (request id {error.request_id})"

    async def test_html(self, server: LocalServer) -> None:
        """An HTML page gives its title, and its header the ray id."""
        page = "<html><head><title>502  Bad\nGateway</title></head><body><h1>cloudflare</h1></body></html>"
        server.fail_next(
            "GET", "/v1/user", status=502, body=page, content_type="text/html", headers={"cf-ray": "8abc-FRA"}
        )
        async with client_of(server, retry=ONCE) as comfy:
            with pytest.raises(ServerError) as caught:
                await comfy.user.get()
        assert str(caught.value) == "GET /v1/user: 502 502 Bad Gateway (request id 8abc-FRA)"

    @pytest.mark.parametrize("refusal", ["html", "problem", "json"])
    async def test_refusals(self, refusal: str) -> None:
        """Every form of a 429 is understood, when the policy does not let the gate absorb it."""
        async with serving(limit=1, refusal=refusal, retry_after=30.0, speed=1.0) as server:
            retry = RetryPolicy(max_elapsed=0.0)
            async with client_of(server, limiter=LocalLimiter(5, 1.0), retry=retry) as comfy:
                await comfy.user.get()
                with pytest.raises(RateLimitedError) as caught:
                    await comfy.user.get()
        assert caught.value.retry_after == 30.0
        assert caught.value.request_id is not None
        assert "<" not in caught.value.message

    async def test_empty_body(self, server: LocalServer) -> None:
        """An error without a body is still told apart."""
        server.fail_next("GET", "/v1/user", status=404, body="")
        async with client_of(server) as comfy:
            with pytest.raises(NotFoundError, match="GET /v1/user: 404"):
                await comfy.user.get()

    async def test_long_binary_body(self, server: LocalServer) -> None:
        """A body that is no text makes a short error on one line."""
        server.fail_next("GET", "/v1/user", status=400, body=bytes(range(256)) * 400, content_type="application/x")
        async with client_of(server) as comfy:
            with pytest.raises(BadRequestError) as caught:
                await comfy.user.get()
        assert len(str(caught.value)) < 400
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("body", "content_type", "told"),
        [
            pytest.param(
                "<html><title>Welcome</title></html>", "text/html", "HTML where JSON is due: Welcome", id="html"
            ),
            pytest.param("", "application/json", "empty", id="empty"),
            pytest.param('{"id": "7c9e', "application/json", "cut short", id="cut"),
            pytest.param("[]", "application/json", "expected an object, found a list", id="list"),
            pytest.param('{"id": 5}', "application/json", "missing", id="fields"),
        ],
    )
    async def test_success_of_another_form(self, server: LocalServer, body: str, content_type: str, told: str) -> None:
        """A success that is not what the API documents is told with its request, and not asked for again."""
        server.fail_next("GET", "/v1/user", status=200, body=body, content_type=content_type)
        async with client_of(server) as comfy:
            with pytest.raises(ResponseFormatError, match=told) as caught:
                await comfy.user.get()
        assert (caught.value.method, caught.value.path) == ("GET", "/v1/user")
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [200, 202, 204, 299])
    async def test_any_success(self, server: LocalServer, status: int) -> None:
        """Any 2xx is a success, with a body or without one where none is needed."""
        runner_id = next(iter(server.runners))
        server.fail_next("POST", "*", status=status, body="" if status == 204 else "whatever")
        async with client_of(server) as comfy:
            await comfy.runners.interrupt(runner_id)


class TestTimeouts:
    """Connect, read and total, each of which ends one attempt."""

    async def test_connect(self) -> None:
        """A server that never finishes the TLS handshake was never reached: again, and every slot is given back."""
        calls = []

        async def be_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            calls.append(1)
            await reader.read()

        limiter = LocalLimiter(10, 10.0)
        retry = RetryPolicy(attempts=2, base_delay=0.0)
        async with (
            raw_server(be_silent) as port,
            client_at(
                f"https://127.0.0.1:{port}", limiter=limiter, retry=retry, timeouts=Timeouts(connect=0.1)
            ) as comfy,
        ):
            with pytest.raises(ConnectionFailedError, match="in time"):
                await comfy.user.get()
            assert len(calls) == 2
            assert limiter.snapshot().used == 0

    async def test_read(self, server: LocalServer) -> None:
        """A server that says nothing for too long is given up; the request may have arrived."""
        server.delay_next("GET", "/v1/user", 10_000.0)
        async with client_of(server, timeouts=Timeouts(read=0.1), retry=ONCE) as comfy:
            with pytest.raises(RequestTimeoutError, match="GET /v1/user: no answer in time"):
                await comfy.user.get()
            assert comfy.limiter.snapshot().used == 1

    async def test_read_is_tried_again(self, server: LocalServer) -> None:
        """A lost GET is sent again."""
        server.delay_next("GET", "/v1/user", 10_000.0, times=2)
        async with client_of(server, timeouts=Timeouts(read=0.5)) as comfy:
            assert (await comfy.user.get()).name == "Local User"
        assert len(server.requests) == 3

    async def test_total(self) -> None:
        """An answer that trickles in is cut off by the total, although it never pauses for long."""
        ended = asyncio.Event()

        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            try:
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            finally:
                ended.set()

        async with (
            raw_server(trickle) as port,
            client_at(f"http://127.0.0.1:{port}", retry=ONCE, timeouts=Timeouts(read=5.0, total=0.2)) as comfy,
        ):
            with pytest.raises(RequestTimeoutError):
                await comfy.user.get()
            await ended.wait()

    async def test_cancelled_while_the_total_ends(self) -> None:
        """A task that is cancelled in the very turn of the loop in which the total ends is cancelled, as it was told.

        aiohttp's own total would make a timeout of it, and the call would be tried again.
        """
        asked = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()

        async with (
            raw_server(silent) as port,
            client_at(f"http://127.0.0.1:{port}", timeouts=Timeouts(total=0.1)) as comfy,
        ):
            calling = asyncio.ensure_future(comfy.user.get())
            await asked.wait()
            time.sleep(0.15)  # noqa: ASYNC251 # the loop stands still until the total is over
            calling.cancel()
            await asyncio.wait([calling])
            assert calling.cancelled()

    async def test_total_spares_uploads(self, server: LocalServer) -> None:
        """An upload has no total: it may take as long as it moves."""
        server.delay_next("POST", "/v1/workflow", 0.3 * server.speed)
        async with client_of(server, timeouts=Timeouts(total=0.05)) as comfy:
            await comfy.workflows.create(GRAPH, name="slow")
            server.delay_next("GET", "/v1/user", 0.3 * server.speed)
            with pytest.raises(RequestTimeoutError):
                await comfy.with_options(retry=ONCE).user.get()

    async def test_total_spares_streams(self) -> None:
        """A stream has no total either."""
        async with serving(duration=8.0, sse_interval=0.5) as server:
            async with client_of(server, timeouts=Timeouts(total=0.05)) as comfy:
                made = await comfy.workflows.create(GRAPH, name="streamed")
                updates = [update async for update in comfy.workflows.subscribe(made.id)]
            assert updates[-1].status == "completed"
            assert len(sent(server, "GET")) == 1

    async def test_upload_without_an_answer(self, server: LocalServer) -> None:
        """The read timeout holds for uploads; whether the workflow was made is not known, and it is not sent again."""
        server.delay_next("POST", "/v1/workflow", 10_000.0)
        async with client_of(server, timeouts=Timeouts(read=0.1)) as comfy:
            with pytest.raises(SubmitOutcomeUnknownError) as caught:
                await comfy.workflows.create(GRAPH, name="slow")
        assert isinstance(caught.value.__cause__, RequestTimeoutError)
        assert len(server.requests) == 1

    async def test_none(self, server: LocalServer) -> None:
        """No bound at all is possible."""
        async with client_of(server, timeouts=Timeouts(connect=None, read=None, total=None)) as comfy:
            assert (await comfy.user.get()).name == "Local User"


class TestToken:
    """The token goes to the API's origin and nowhere else."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_no_redirect_is_followed(self, server: LocalServer, status: int) -> None:
        """A redirect is an error, and where it points to never hears of us. 302 and 303 may follow a create."""
        async with recording(answer_user) as other, client_of(server) as comfy:
            server.fail_next("GET", "/v1/user", status=status, headers={"Location": other.url + "/v1/user"})
            with pytest.raises(APIError, match="redirect") as caught:
                await comfy.user.get()
            server.fail_next("POST", "/v1/workflow", status=status, headers={"Location": other.url + "/v1/workflow"})
            # An edge may send these two after the form was taken: whether there is a workflow is not known then.
            with pytest.raises(SubmitOutcomeUnknownError if status in (302, 303) else APIError) as create:
                await comfy.workflows.create(GRAPH, name="w")
        assert caught.value.status == status
        assert "redirect" in str(create.value.__cause__ if status in (302, 303) else create.value)
        assert other.received == []
        assert len(server.requests) == 2

    async def test_stream_redirect(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Nor is a stream's."""
        made = await comfy.workflows.create(GRAPH, name="w")
        async with recording(answer_user) as other:
            server.fail_next("GET", "*", status=302, headers={"Location": other.url})
            with pytest.raises(APIError, match="redirect"):
                await anext(comfy.workflows.subscribe(made.id))
        assert other.received == []

    async def test_no_cookie_comes_back(self, server: LocalServer, comfy: ComfyControl) -> None:
        """Cookies of the edge are not kept: a session of ours is the same on every request."""
        server.fail_next("GET", "/v1/user", status=503, headers={"Set-Cookie": "__cf=1; Path=/"})
        await comfy.user.get()
        assert "Cookie" not in server.requests[1].headers

    async def test_paths_stay_at_the_origin(self, server: LocalServer, comfy: ComfyControl) -> None:
        """No path given to `request` leads to another host."""
        async with recording(answer_user) as other:
            for path in (f"//{other.url[7:]}/v1/user", "/@127.0.0.1/", "/v1/../user", "/%2f%2fexample.com"):
                with pytest.raises(NotFoundError):
                    await comfy.request("GET", path)
        assert other.received == []
        assert len(server.requests) == 4

    async def test_repr_and_errors_hold_no_token(self, server: LocalServer) -> None:
        """Neither the client nor an error of a lost request shows the token."""
        server.drop_next("GET", "/v1/user")
        async with client_of(server, retry=ONCE) as comfy:
            with pytest.raises(ResponseLostError) as caught:
                await comfy.user.get()
            shown = [repr(comfy), repr(comfy.limiter), repr(caught.value), str(caught.value.__cause__)]
        assert not [text for text in shown if server.token in text]
