"""The request loop: what is sent, what is sent again, what is given up, and what it leaves behind."""

import asyncio
import io
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, BinaryIO, TypeVar

import aiohttp
import attrs
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from comfycontrol_async import (
    APIError,
    ClientClosedError,
    ConnectionFailedError,
    File,
    LocalLimiter,
    NotFoundError,
    Priority,
    RateLimitedError,
    RateLimitWaitError,
    RequestTimeoutError,
    ResponseFormatError,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
)
from comfycontrol_async._http._multipart import Form, prepare
from comfycontrol_async._http._pipeline import Pipeline
from comfycontrol_async._http._request import Answer, Repeat, Request
from comfycontrol_async._http._sessions import Sessions
from comfycontrol_async._http._stream import Stream
from comfycontrol_async._http._transport import Transport
from comfycontrol_async.testing import FakeClock
from support.scripted import BASE_URL, TOKEN, ScriptedApi, cut, endless

T = TypeVar("T")

LIMIT, PERIOD = 3, 10.0
KEY = ConnectionKey("api.test", 443, True, True, None, None, None)


def same(value: Any) -> Any:
    """Take JSON as it is."""
    return value


GET: Request[Any] = Request(method="GET", path="/v1/user", structure=same)
PUT: Request[Any] = Request(method="PUT", path="/v1/user", structure=same, body=b"{}")
CREATE: Request[Any] = Request(method="POST", path="/v1/user", structure=same, body=b"{}", repeat=Repeat.NEVER)
CANCEL: Request[Any] = Request(method="POST", path="/v1/user", structure=same, answer=Answer.NOTHING)
STREAM: Request[Any] = Request(method="GET", path="/v1/user", structure=same, stream=True)
REQUESTS = {"GET": GET, "PUT": PUT, "cancel": CANCEL, "create": CREATE}


@pytest.fixture
def clock() -> FakeClock:
    """Make time stand still."""
    return FakeClock()


@pytest.fixture
async def pipeline(api: ScriptedApi, clock: FakeClock) -> AsyncIterator[Pipeline]:
    """Make a pipeline whose limiter and pauses go by the fake clock, and whose jitter is none."""
    limiter = LocalLimiter(LIMIT, PERIOD, clock=clock)
    sessions = Sessions(URL(BASE_URL))
    transport = Transport(sessions, TOKEN, user_agent="test/1.0", clock=clock)
    yield Pipeline(
        transport=transport,
        limiter=lambda: limiter,
        retry=RetryPolicy(attempts=4, max_elapsed=120.0, base_delay=1.0, max_delay=8.0),
        timeouts=Timeouts(),
        chance=lambda: 1.0,
        clock=clock,
    )
    await sessions.close()


async def settle(clock: FakeClock, call: Awaitable[T], *, most: float = 1000.0) -> T:
    """Let time pass until the call is through."""
    task = asyncio.ensure_future(call)
    started = clock.monotonic()
    await clock.advance(0.0)
    while not task.done() and clock.monotonic() - started < most:
        await clock.advance(0.25)
    assert task.done(), "it still waits"
    return await task


async def assert_nothing_held(clock: FakeClock, limiter: Any) -> None:
    """Check that after a period and the tail of a lost request every slot is free, and no task waits."""
    await clock.advance(PERIOD + 1.1)
    snapshot = limiter.snapshot()
    assert (snapshot.used, snapshot.available) == (0, LIMIT)
    assert set(snapshot.waiting.values()) == {0}
    assert clock.timers == 0


# What is sent


async def test_request(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A request goes to the API's own address with the token, once, and follows no redirect."""
    api.answer("GET", "/v1/user?page=2&name=a%20b", {"id": 1})
    request = attrs.evolve(GET, query={"page": 2, "name": "a b"})
    assert await pipeline.send(request) == {"id": 1}
    (call,) = api.calls
    assert (call.method, call.path, call.query) == ("GET", "/v1/user", {"page": "2", "name": "a b"})
    assert call.headers == {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json", "User-Agent": "test/1.0"}
    assert call.data is None
    assert call.options["allow_redirects"] is False
    assert pipeline.limiter().snapshot().used == 1
    await assert_nothing_held(clock, pipeline.limiter())


async def test_json_body(api: ScriptedApi, pipeline: Pipeline) -> None:
    """A JSON body says that it is one."""
    api.answer("PUT", "/v1/user", {})
    await pipeline.send(attrs.evolve(PUT, body=b'{"a":1}'))
    assert api.calls[0].json == {"a": 1}


@pytest.mark.parametrize(
    ("request_", "silence"),
    [
        pytest.param(GET, None, id="call"),
        pytest.param(CREATE, None, id="json"),
        pytest.param(attrs.evolve(CREATE, body=None, form=prepare([])), 30.0, id="upload"),
        pytest.param(STREAM, 30.0, id="stream"),
    ],
)
async def test_timeouts(api: ScriptedApi, pipeline: Pipeline, request_: Request[Any], silence: float | None) -> None:
    """aiohttp has the bounds of connecting, and of silence where a body goes or comes; that of the whole is ours."""
    api.answer(request_.method, "/v1/user", {})
    await (pipeline.open if request_.stream else pipeline.send)(request_)
    timeout = api.calls[0].options["timeout"]
    assert (timeout.total, timeout.connect, timeout.sock_connect, timeout.sock_read) == (None, 10.0, 10.0, silence)


async def test_form_is_made_for_every_attempt(api: ScriptedApi, pipeline: Pipeline) -> None:
    """An upload that is sent again is sent whole, with a form of its own."""
    request: Request[Any] = attrs.evolve(PUT, body=None, form=prepare([("name", "n"), ("$image", File(b"png"))]))
    api.answer("PUT", "/v1/user", status=503, times=2)
    api.answer("PUT", "/v1/user", {"id": 1})
    pipeline = attrs.evolve(pipeline, retry=RetryPolicy(base_delay=0.0))
    assert await pipeline.send(request) == {"id": 1}
    sent = {"name": "n", "$image": ("image", "application/octet-stream", b"png")}
    assert [call.data for call in api.calls] == [sent] * 3


# What is sent again


def never_left() -> Exception:
    """Make the error of a server that does not listen."""
    return aiohttp.ClientConnectorError(KEY, OSError(111, "Connect call failed"))


FAILURES: dict[str, tuple[Callable[[], Exception], bool, type[TransportError], str]] = {
    # aiohttp's error, whether the request was written, ours, its text
    "name-not-found": (
        lambda: aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known")),
        False,
        ConnectionFailedError,
        "Name or service not known",
    ),
    "refused": (never_left, False, ConnectionFailedError, "Connect call failed"),
    "connect-timeout": (
        lambda: aiohttp.ConnectionTimeoutError("connect"),
        False,
        ConnectionFailedError,
        "no connection in time",
    ),
    "tls": (
        lambda: aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError(1, "wrong version number")),
        False,
        ConnectionFailedError,
        "wrong version number",
    ),
    "total-before-it-was-written": (lambda: TimeoutError(), False, ConnectionFailedError, "no connection in time"),
    "session-closed-meanwhile": (
        lambda: aiohttp.ClientConnectionError("Connector is closed."),
        False,
        ConnectionFailedError,
        "Connector is closed.",
    ),
    "reset": (lambda: aiohttp.ClientOSError(104, "Connection reset by peer"), True, ResponseLostError, "reset by peer"),
    "broken-pipe": (lambda: BrokenPipeError(32, "Broken pipe"), True, ResponseLostError, "Broken pipe"),
    "disconnected": (lambda: aiohttp.ServerDisconnectedError(), True, ResponseLostError, "Server disconnected"),
    "bad-answer": (
        lambda: aiohttp.ClientResponseError(aiohttp.RequestInfo(URL(), "GET", None, URL()), (), message="Bad status"),  # type: ignore[arg-type]
        True,
        ResponseLostError,
        "Bad status",
    ),
    "read-timeout": (lambda: aiohttp.SocketTimeoutError("read"), True, RequestTimeoutError, "no answer in time"),
    "total-timeout": (lambda: TimeoutError(), True, RequestTimeoutError, "no answer in time"),
}

every_failure = pytest.mark.parametrize("failure", FAILURES)
every_request = pytest.mark.parametrize("kind", REQUESTS)


@every_failure
@every_request
async def test_failures(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, failure: str, kind: str) -> None:
    """What never left is sent again whatever it is; what may have arrived is sent again unless it creates something."""
    make, sent, cls, text = FAILURES[failure]
    request = REQUESTS[kind]
    api.fail(request.method, "/v1/user", make(), sent=sent)
    api.answer(request.method, "/v1/user", {"id": 1})
    if sent and request.repeat is Repeat.NEVER:
        with pytest.raises(cls, match=text) as caught:
            await settle(clock, pipeline.send(request))
        assert (caught.value.method, caught.value.path) == (request.method, "/v1/user")
        assert isinstance(caught.value.__cause__, Exception)
        assert len(api.calls) == 1
    else:
        await settle(clock, pipeline.send(request))
        assert len(api.calls) == 2
    await assert_nothing_held(clock, pipeline.limiter())


@every_failure
async def test_failures_for_good(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, failure: str) -> None:
    """A failure that stays is raised as an error of ours after the last attempt."""
    make, sent, cls, text = FAILURES[failure]
    api.fail("GET", "/v1/user", make(), sent=sent, times=4)
    with pytest.raises(cls, match=text) as caught:
        await settle(clock, pipeline.send(GET))
    assert type(caught.value) is cls
    assert str(caught.value).startswith("GET /v1/user: ")
    assert len(api.calls) == 4


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(
            aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError("self-signed")),
            "the server's certificate is not trusted: .*self-signed",
            id="certificate",
        ),
        pytest.param(aiohttp.InvalidURL("nonsense?key=secret"), "the URL is not one that can be called", id="url"),
    ],
)
async def test_failures_that_stay(
    api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, error: Exception, text: str
) -> None:
    """What the next attempt would not change is raised at once, and costs no slot."""
    api.fail("GET", "/v1/user", error, sent=False)
    with pytest.raises(ConnectionFailedError, match=text) as caught:
        await pipeline.send(GET)
    assert "secret" not in str(caught.value)
    assert pipeline.limiter().snapshot().used == 0


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
@every_request
async def test_server_errors(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, status: int, kind: str) -> None:
    """A 5xx is sent again unless it may have created something."""
    request = REQUESTS[kind]
    api.answer(request.method, "/v1/user", {"status": status, "message": "broken"}, status=status)
    api.answer(request.method, "/v1/user", {"id": 1})
    if request.repeat is Repeat.NEVER:
        with pytest.raises(ServerError, match=f"POST /v1/user: {status} broken"):
            await settle(clock, pipeline.send(request))
        assert len(api.calls) == 1
    else:
        await settle(clock, pipeline.send(request))
        assert len(api.calls) == 2


@pytest.mark.parametrize("status", [300, 301, 400, 401, 403, 404, 409, 418, 422])
@every_request
async def test_other_errors(api: ScriptedApi, pipeline: Pipeline, status: int, kind: str) -> None:
    """Any other status is the answer: it is raised, and nothing is sent again."""
    request = REQUESTS[kind]
    api.answer(request.method, "/v1/user", {"status": status, "message": "no"}, status=status)
    with pytest.raises(APIError) as caught:
        await pipeline.send(request)
    assert (caught.value.status, len(api.calls)) == (status, 1)


async def test_attempts_are_bounded(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """After the last attempt the last error is raised; the pauses between them double."""
    for status in (500, 502, 503, 504):
        api.answer("GET", "/v1/user", status=status)
    started = clock.monotonic()
    with pytest.raises(ServerError) as caught:
        await settle(clock, pipeline.send(GET))
    assert caught.value.status == 504
    # The fourth waits for the first's slot.
    assert clock.monotonic() - started == pytest.approx(PERIOD, abs=0.6)


async def test_pauses(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """The pauses double from the base to the ceiling."""
    limiter = LocalLimiter(100, PERIOD, clock=clock)
    pipeline = attrs.evolve(pipeline, limiter=lambda: limiter, retry=RetryPolicy(attempts=7, base_delay=1.0))
    moments: list[float] = []
    for _ in range(7):
        api.answer("GET", "/v1/user", status=500, spoil=lambda _: moments.append(clock.monotonic() - 1000.0))
    with pytest.raises(ServerError):
        await settle(clock, pipeline.send(GET))
    assert moments == [0.0, 1.0, 3.0, 7.0, 15.0, 23.0, 31.0]


async def test_time_is_bounded(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """Nothing is sent again after the time that is allowed, however many attempts are left."""
    pipeline = attrs.evolve(pipeline, retry=RetryPolicy(attempts=100, max_elapsed=6.0, base_delay=1.0))
    api.answer("GET", "/v1/user", status=500, times=3)
    with pytest.raises(ServerError):
        await settle(clock, pipeline.send(GET))
    # At 0, 1 and 3 s; the next would have been at 7.
    assert len(api.calls) == 3


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param("Mon, 15 Jan 2024 10:30:05 GMT", 5.0, id="date"),
        pytest.param("0.1", 1.0, id="shorter-than-the-backoff"),
        pytest.param("soon", 1.0, id="garbage"),
    ],
)
async def test_retry_after(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, value: str, pause: float) -> None:
    """A server that is unavailable says when to come again."""
    moments: list[float] = []
    api.answer("GET", "/v1/user", status=503, headers={"Retry-After": value})
    api.answer("GET", "/v1/user", {}, spoil=lambda _: moments.append(clock.monotonic()))
    await settle(clock, pipeline.send(GET))
    assert moments == [1000.0 + pause]


async def test_retry_after_beyond_what_is_allowed(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """When the server asks for more time than there is, its error is raised at once."""
    api.answer("GET", "/v1/user", status=503, headers={"Retry-After": "3600"})
    with pytest.raises(ServerError) as caught:
        await pipeline.send(GET)
    assert caught.value.retry_after == 3600.0


# The rate limit


@every_request
async def test_429_is_absorbed(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, kind: str) -> None:
    """A 429 was not processed: whatever it was is sent again after the cooldown, and counts as no attempt."""
    request = REQUESTS[kind]
    pipeline = attrs.evolve(pipeline, retry=RetryPolicy(attempts=1))
    api.answer(request.method, "/v1/user", status=429, body="error code: 1015", content_type="text/plain", times=3)
    api.answer(request.method, "/v1/user", {"id": 1})
    await settle(clock, pipeline.send(request))
    assert len(api.calls) == 4
    # Three cooldowns of a period each.
    assert clock.monotonic() - 1000.0 == pytest.approx(3 * PERIOD, abs=1.0)
    await assert_nothing_held(clock, pipeline.limiter())


@pytest.mark.parametrize(
    ("headers", "payload", "cooldown"),
    [
        pytest.param({}, None, PERIOD, id="nothing-said"),
        pytest.param({"Retry-After": "30"}, None, 30.0, id="longer"),
        pytest.param({"Retry-After": "3"}, None, PERIOD, id="shorter-than-the-period"),
        pytest.param({}, {"retry_after": 25}, 25.0, id="problem-document"),
    ],
)
async def test_429_closes_the_gate(
    api: ScriptedApi,
    pipeline: Pipeline,
    clock: FakeClock,
    headers: dict[str, str],
    payload: Any,
    cooldown: float,
) -> None:
    """One 429 stops everything for the period, or for as long as the server says."""
    api.answer("GET", "/v1/user", payload, status=429, headers=headers)
    api.answer("GET", "/v1/user", {"id": 1}, times=2)
    refused = asyncio.ensure_future(pipeline.send(GET))
    await clock.advance(0.0)
    assert pipeline.limiter().snapshot().cooldown == cooldown
    other = asyncio.ensure_future(pipeline.send(GET))
    await clock.advance(cooldown - 0.1)
    assert len(api.calls) == 1
    await clock.advance(0.2)
    assert (await refused, await other) == ({"id": 1}, {"id": 1})


async def test_429_for_longer_than_is_allowed(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """Refusals are bounded by the total time: then the error is raised, with the gate closed for all other calls."""
    pipeline = attrs.evolve(pipeline, retry=RetryPolicy(max_elapsed=25.0))
    api.answer("GET", "/v1/user", status=429, times=4)
    with pytest.raises(RateLimitedError):
        await settle(clock, pipeline.send(GET))
    assert len(api.calls) == 4
    assert pipeline.limiter().snapshot().cooldown > PERIOD - 1.0


async def test_429_that_asks_for_more_than_is_allowed(api: ScriptedApi, pipeline: Pipeline) -> None:
    """A cooldown that is longer than all the time there is, is not waited for."""
    api.answer("GET", "/v1/user", status=429, headers={"Retry-After": "86400", "cf-ray": "ray-1"})
    with pytest.raises(RateLimitedError) as caught:
        await pipeline.send(GET)
    assert (caught.value.retry_after, caught.value.request_id) == (86400.0, "ray-1")
    assert pipeline.limiter().snapshot().cooldown == 600.0


async def test_the_refused_request_comes_first(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """After the cooldown the refused request goes before those that waited behind it, in its lane."""
    limiter = LocalLimiter(1, PERIOD, clock=clock)
    pipeline = attrs.evolve(pipeline, limiter=lambda: limiter)
    requests = [attrs.evolve(GET, path=f"/v1/{name}") for name in ("first", "second", "third")]
    api.answer("GET", "/v1/first", status=429)
    for request in requests:
        api.answer("GET", request.path, {})
    await settle(clock, asyncio.gather(*map(pipeline.send, requests)))
    assert api.asked == ["GET /v1/first", "GET /v1/first", "GET /v1/second", "GET /v1/third"]


async def test_priority(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A request waits in the lane of its pipeline."""
    limiter = LocalLimiter(1, PERIOD, clock=clock)
    normal = attrs.evolve(pipeline, limiter=lambda: limiter)
    lanes = {
        "busy": normal,
        "bulk": attrs.evolve(normal, priority=Priority.BULK),
        "normal": normal,
        "urgent": attrs.evolve(normal, priority=Priority.INTERACTIVE),
    }
    for name in lanes:
        api.answer("GET", f"/v1/{name}", {})
    calls = [lane.send(attrs.evolve(GET, path=f"/v1/{name}")) for name, lane in lanes.items()]
    await settle(clock, asyncio.gather(*calls))
    assert api.asked == [f"GET /v1/{name}" for name in ("busy", "urgent", "normal", "bulk")]


async def test_a_wait_that_is_too_long(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """When the limit needs a longer wait than is allowed, that is said before anything is sent."""
    api.answer("GET", "/v1/user", {}, times=LIMIT)
    for _ in range(LIMIT):
        await pipeline.send(GET)
    with pytest.raises(RateLimitWaitError) as caught:
        await attrs.evolve(pipeline, max_wait=5.0).send(GET)
    assert caught.value.needed == pytest.approx(PERIOD, abs=0.1)
    assert caught.value.allowed == 5.0
    assert len(api.calls) == LIMIT
    await assert_nothing_held(clock, pipeline.limiter())


async def test_a_cooldown_that_is_too_long(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A refused request whose cooldown is longer than is allowed is not sent again."""
    api.answer("GET", "/v1/user", status=429)
    with pytest.raises(RateLimitWaitError):
        await attrs.evolve(pipeline, max_wait=5.0).send(GET)
    await assert_nothing_held(clock, pipeline.limiter())


async def test_what_never_left_costs_no_slot(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A server that cannot be reached does not use up the budget."""
    pipeline = attrs.evolve(pipeline, retry=RetryPolicy(attempts=50, base_delay=0.0))
    api.fail("GET", "/v1/user", never_left(), sent=False, times=49)
    api.answer("GET", "/v1/user", {"id": 1})
    assert await pipeline.send(GET) == {"id": 1}
    assert clock.monotonic() == 1000.0
    assert pipeline.limiter().snapshot().used == 1


async def test_what_was_lost_costs_a_slot(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A request that may still arrive holds its slot for a period and a tail."""
    api.fail("POST", "/v1/user", aiohttp.ServerDisconnectedError())
    with pytest.raises(ResponseLostError):
        await pipeline.send(CREATE)
    await clock.advance(PERIOD + 0.9)
    assert pipeline.limiter().snapshot().used == 1
    await assert_nothing_held(clock, pipeline.limiter())


# Cancellation


async def stopped(call: Awaitable[object], reached: Awaitable[object]) -> None:
    """Start a call, cancel it when something is reached, and see that it ends as cancelled."""
    task = asyncio.ensure_future(call)
    await reached
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("sent", [False, True], ids=["connecting", "waiting-for-the-answer"])
async def test_cancelled_in_flight(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, sent: bool) -> None:
    """A call that is cancelled before it was written costs no slot, later one until it cannot arrive any more."""
    waiting = api.hold("GET", "/v1/user", sent=sent)
    await stopped(pipeline.send(GET), waiting.wait())
    assert pipeline.limiter().snapshot().used == int(sent)
    await assert_nothing_held(clock, pipeline.limiter())


async def test_cancelled_while_reading(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A call that is cancelled while its answer is read has settled its slot before."""
    api.answer("GET", "/v1/user", {}, spoil=endless)
    await stopped(pipeline.send(GET), clock.advance(1.0))
    await assert_nothing_held(clock, pipeline.limiter())


async def test_cancelled_in_the_queue(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A call that is cancelled while it waits for the rate limit leaves the queue."""
    api.answer("GET", "/v1/user", {}, times=LIMIT)
    for _ in range(LIMIT):
        await pipeline.send(GET)
    await stopped(pipeline.send(GET), clock.advance(1.0))
    assert len(api.calls) == LIMIT
    await assert_nothing_held(clock, pipeline.limiter())


async def test_cancelled_in_a_pause(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A call that is cancelled between two attempts is not sent again."""
    api.answer("GET", "/v1/user", status=500)
    await stopped(pipeline.send(GET), clock.advance(0.5))
    await assert_nothing_held(clock, pipeline.limiter())


async def test_cancelled_in_a_cooldown(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A refused call that is cancelled while the gate is closed is not sent again."""
    api.answer("GET", "/v1/user", status=429)
    await stopped(pipeline.send(GET), clock.advance(0.5))
    await assert_nothing_held(clock, pipeline.limiter())


async def test_cancelled_while_files_are_opened(api: ScriptedApi, pipeline: Pipeline) -> None:
    """An upload that is cancelled before anything of it was written costs no slot."""
    entered, go_on = threading.Event(), threading.Event()

    def slowly() -> BinaryIO:
        entered.set()
        go_on.wait(5.0)
        return io.BytesIO(b"png")

    request: Request[Any] = attrs.evolve(PUT, body=None, form=Form([("$image", File(slowly))]))
    await stopped(pipeline.send(request), asyncio.to_thread(entered.wait, 5.0))
    go_on.set()
    assert api.calls == []
    assert pipeline.limiter().snapshot().used == 0


async def test_closed_in_a_pause(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A call that waits for its next attempt ends when the client is closed, and does not open it again."""
    api.answer("GET", "/v1/user", status=500)
    call = asyncio.ensure_future(pipeline.send(GET))
    await clock.advance(0.5)
    await pipeline.transport.sessions.close()
    with pytest.raises(ClientClosedError):
        await settle(clock, call)
    assert len(api.calls) == 1
    await assert_nothing_held(clock, pipeline.limiter())


async def test_closed_in_a_cooldown(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A refused call whose client is closed before the gate opens ends, and gives its new slot back."""
    api.answer("GET", "/v1/user", status=429)
    call = asyncio.ensure_future(pipeline.send(GET))
    await clock.advance(0.5)
    await pipeline.transport.sessions.close()
    with pytest.raises(ClientClosedError):
        await settle(clock, call)
    await assert_nothing_held(clock, pipeline.limiter())


# Answers


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
async def test_every_2xx_is_a_success(api: ScriptedApi, pipeline: Pipeline, status: int) -> None:
    """Which code a success has is documented for few calls, so each of them is one."""
    api.answer("POST", "/v1/user", {"id": 1}, status=status)
    assert await pipeline.send(CREATE) == {"id": 1}


@pytest.mark.parametrize(
    ("body", "answer", "value"),
    [
        pytest.param(b"", Answer.NOTHING, None, id="nothing"),
        pytest.param(b"OK", Answer.NOTHING, None, id="nothing-in-words"),
        pytest.param(b"<p>OK</p>", Answer.NOTHING, None, id="nothing-in-html"),
        pytest.param(b"", Answer.MAYBE, None, id="maybe-not"),
        pytest.param(b" \n", Answer.MAYBE, None, id="maybe-not-but-blank"),
        pytest.param(b'{"id": 1}', Answer.MAYBE, {"id": 1}, id="maybe"),
        pytest.param(b"null", Answer.JSON, None, id="json"),
    ],
)
async def test_answers(api: ScriptedApi, pipeline: Pipeline, body: bytes, answer: Answer, value: object) -> None:
    """What a success holds is read as the request says."""
    api.answer("GET", "/v1/user", status=200, body=body)
    assert await pipeline.send(attrs.evolve(GET, answer=answer)) == value


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        pytest.param(b"", "application/json", r"GET /v1/user: unexpected answer at \$: the body is empty", id="empty"),
        pytest.param(b'{"id"', "application/json", "was cut short", id="truncated"),
        pytest.param(b"Just a moment", "text/html", "HTML where JSON is due: Just a moment", id="html"),
    ],
)
async def test_no_json(api: ScriptedApi, pipeline: Pipeline, body: bytes, content_type: str, text: str) -> None:
    """A success without JSON is said to be one, with the request, and is not sent again."""
    api.answer("GET", "/v1/user", body=body, content_type=content_type)
    with pytest.raises(ResponseFormatError, match=text) as caught:
        await pipeline.send(GET)
    assert (caught.value.method, caught.value.path) == ("GET", "/v1/user")


async def test_large_body(api: ScriptedApi, pipeline: Pipeline) -> None:
    """An answer of some megabytes is read whole."""
    api.answer("GET", "/v1/user", {"text": "x" * 3_000_000})
    assert len((await pipeline.send(GET))["text"]) == 3_000_000


@every_request
async def test_body_that_breaks_off(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, kind: str) -> None:
    """A success whose body breaks off is asked for again, unless it created something or its body says nothing."""
    request = REQUESTS[kind]
    api.answer(request.method, "/v1/user", {"id": 1}, spoil=cut)
    api.answer(request.method, "/v1/user", {"id": 2})
    if kind == "create":
        with pytest.raises(ResponseLostError, match="the answer was cut short"):
            await settle(clock, pipeline.send(request))
    else:
        assert await settle(clock, pipeline.send(request)) == (None if kind == "cancel" else {"id": 2})
    assert len(api.calls) == (1 if kind in ("create", "cancel") else 2)


async def test_error_whose_body_breaks_off(api: ScriptedApi, pipeline: Pipeline) -> None:
    """The status of an error says it all, whatever becomes of its body."""
    api.answer("GET", "/v1/user", {"message": "no such thing"}, status=404, spoil=cut)
    with pytest.raises(NotFoundError, match="404"):
        await pipeline.send(GET)


# Streams


async def read(stream: Stream) -> bytes:
    """Read a stream to its end."""
    async with aclosing(stream.chunks()) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_stream(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A stream is given when its headers are here, and holds no slot while it is read."""
    api.answer("GET", "/v1/user", body=b"data: {}\n\n", content_type="text/event-stream")
    stream = await pipeline.open(STREAM)
    assert (stream.status, stream.headers["Content-Type"]) == (200, "text/event-stream")
    await assert_nothing_held(clock, pipeline.limiter())
    assert await read(stream) == b"data: {}\n\n"
    stream.close()
    stream.close()


async def test_stream_is_opened_again(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """Opening a stream is repeated like any other request, and its errors are read."""
    api.answer("GET", "/v1/user", status=503)
    api.fail("GET", "/v1/user", aiohttp.ServerDisconnectedError())
    api.answer("GET", "/v1/user", body=b"x")
    assert await read(await settle(clock, pipeline.open(STREAM))) == b"x"
    api.answer("GET", "/v1/user", {"message": "requested entity not found"}, status=404)
    with pytest.raises(NotFoundError, match="requested entity not found"):
        await settle(clock, pipeline.open(STREAM))


@pytest.mark.parametrize(
    ("error", "cls"),
    [
        pytest.param(aiohttp.ClientPayloadError("cut off"), ResponseLostError, id="cut"),
        pytest.param(aiohttp.SocketTimeoutError("silence"), RequestTimeoutError, id="silent"),
        pytest.param(ConnectionResetError(104, "reset"), ResponseLostError, id="reset"),
    ],
)
async def test_stream_that_breaks_off(
    api: ScriptedApi, pipeline: Pipeline, error: Exception, cls: type[TransportError]
) -> None:
    """What breaks a stream is an error of ours, with the request and its cause."""
    api.answer("GET", "/v1/user", spoil=lambda response: response.content.set_exception(error))
    stream = await pipeline.open(STREAM)
    with pytest.raises(cls) as caught:
        await read(stream)
    assert (caught.value.method, caught.value.path, caught.value.__cause__) == ("GET", "/v1/user", error)


# Sessions that were given


async def test_given_session(api: ScriptedApi, pipeline: Pipeline, clock: FakeClock) -> None:
    """A session that was given keeps its middlewares, decides nothing about errors, and stays open."""

    async def own(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        return await handler(request)

    async with aiohttp.ClientSession(middlewares=[own], raise_for_status=True) as session:
        sessions = Sessions(URL(BASE_URL), session=session, proxy="http://p.test")
        transport = Transport(sessions, TOKEN, user_agent="test/1.0", clock=clock)
        given = attrs.evolve(pipeline, transport=transport)
        api.answer("GET", "/v1/user", status=503)
        api.answer("GET", "/v1/user", {"id": 1})
        assert await settle(clock, given.send(GET)) == {"id": 1}
        assert api.calls[-1].options["middlewares"][0] is own
        assert api.calls[-1].options["proxy"] == "http://p.test"
        await sessions.close()
        assert not session.closed


@pytest.mark.parametrize("sent", [False, True], ids=["never-written", "written"])
async def test_given_session_that_does_not_tell(
    api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, sent: bool
) -> None:
    """With a session that was given it is not known whether a request was written: a create is not sent again."""
    async with aiohttp.ClientSession() as session:
        transport = Transport(Sessions(URL(BASE_URL), session=session), TOKEN, user_agent="test/1.0", clock=clock)
        given = attrs.evolve(pipeline, transport=transport)
        api.fail("POST", "/v1/user", TimeoutError(), sent=sent)
        with pytest.raises(RequestTimeoutError):
            await settle(clock, given.send(CREATE))
        # What certainly was not connected is known all the same.
        api.fail("POST", "/v1/user", never_left(), sent=sent)
        api.answer("POST", "/v1/user", {"id": 1})
        assert await settle(clock, given.send(CREATE)) == {"id": 1}


# Secrets


async def test_no_secret_is_logged(
    api: ScriptedApi, pipeline: Pipeline, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells what is sent again and why, and neither the token nor a body."""
    api.answer("PUT", "/v1/user", {"message": "broken"}, status=500)
    api.fail("PUT", "/v1/user", aiohttp.ServerDisconnectedError())
    api.answer("PUT", "/v1/user", {"password": "hunter2"})
    with caplog.at_level(logging.DEBUG):
        await settle(clock, pipeline.send(attrs.evolve(PUT, body=b'{"password":"hunter2"}')))
    records = [record for record in caplog.records if record.name == "comfycontrol_async.http"]
    assert [record.getMessage() for record in records if record.levelno == logging.INFO] == [
        "PUT /v1/user: 500 broken; again in 1.00 s",
        "PUT /v1/user: Server disconnected; again in 2.00 s",
    ]
    assert [record.getMessage().partition(" in ")[0] for record in records if record.levelno == logging.DEBUG] == [
        "PUT /v1/user: 500",
        "PUT /v1/user: ResponseLostError",
        "PUT /v1/user: 200",
    ]
    assert TOKEN not in caplog.text
    assert "hunter2" not in caplog.text
