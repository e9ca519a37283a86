"""ComfyControl: its life, its options, its escape hatch, and what it shares."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any

import aiohttp
import pytest

import comfycontrol_async
from comfycontrol_async import (
    ClientClosedError,
    ClientLoopError,
    ComfyControl,
    ConfigurationError,
    GraphError,
    InvalidArgumentError,
    LocalLimiter,
    NotFoundError,
    Priority,
    RateLimitWaitError,
    ResponseFormatError,
    RetryPolicy,
    ServerError,
    Timeouts,
    TransportError,
    WorkflowRun,
)
from support import documented
from support.scripted import BASE_URL, TOKEN, ScriptedApi

SECRET = "hunter2"
Run = Callable[[Coroutine[Any, Any, Any]], Any]


def client(**options: Any) -> ComfyControl:
    """Make a client of the scripted API with a limiter of its own."""
    return ComfyControl(TOKEN, **{"base_url": BASE_URL, "limiter": LocalLimiter(1000, 1.0), **options})


# Making one


def test_version() -> None:
    """The package says which version of it is installed."""
    assert comfycontrol_async.__version__ == version("comfycontrol-async")


def test_made_without_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is made from the environment, with no event loop running and nothing opened."""
    monkeypatch.setenv("COMFYCONTROL_API_TOKEN", TOKEN)
    monkeypatch.setenv("COMFYCONTROL_BASE_URL", "https://other.test/")
    assert ComfyControl().base_url == "https://other.test"
    assert ComfyControl(base_url=BASE_URL).base_url == BASE_URL


def test_no_token() -> None:
    """Without a token the variable to set is named."""
    with pytest.raises(ConfigurationError, match="COMFYCONTROL_API_TOKEN"):
        ComfyControl()


def test_token_of_another_form(caplog: pytest.LogCaptureFixture) -> None:
    """A token of an unknown form is warned of once for each client, and used."""
    with caplog.at_level(logging.WARNING, logger="comfycontrol_async"):
        made = ComfyControl("another-form")
        made.with_options(priority=Priority.BULK)
    assert len(caplog.records) == 1
    assert "another-form" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"base_url": "nonsense"}, "the base URL", id="base-url"),
        pytest.param({"proxy": "socks5://p.test"}, "the proxy", id="proxy"),
        pytest.param({"user_agent": "two\nlines"}, "user_agent", id="user-agent"),
        pytest.param({"max_rate_limit_wait": -1}, "max_rate_limit_wait", id="wait"),
        pytest.param({"max_rate_limit_wait": math.nan}, "max_rate_limit_wait", id="nan"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    """An invalid option is refused when the client is made."""
    with pytest.raises(ConfigurationError, match=message):
        client(**options)


async def test_options_are_used(api: ScriptedApi) -> None:
    """Each option reaches the request."""
    comfy = client(
        base_url=f"{BASE_URL}/base/", user_agent="my-app/1.0", proxy="http://p.test", timeouts=Timeouts(connect=5.0)
    )
    api.answer("GET", "/base/v1/user", documented.USER)
    await comfy.user.get()
    (call,) = api.calls
    assert call.headers["User-Agent"].startswith("my-app/1.0 comfycontrol-async")
    assert call.options["proxy"] == "http://p.test"
    assert call.options["timeout"].connect == 5.0
    await comfy.aclose()


async def test_trace_configs(api: ScriptedApi) -> None:
    """Traces are the session's that is opened here."""
    trace = aiohttp.TraceConfig()
    async with client(trace_configs=[trace]) as comfy:
        api.answer("GET", "/v1/user", documented.USER)
        await comfy.user.get()
        session = comfy._core.sessions._api
        assert session is not None
        assert trace in session.trace_configs


async def test_proxy_of_the_environment(api: ScriptedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is read once, when the session opens."""
    async with client() as comfy:
        monkeypatch.setenv("HTTPS_PROXY", "http://p.test:3128")
        api.answer("GET", "/v1/user", documented.USER, times=2)
        await comfy.user.get()
        monkeypatch.setenv("HTTPS_PROXY", "http://other.test")
        await comfy.user.get()
    assert [call.options["proxy"] for call in api.calls] == ["http://p.test:3128"] * 2


def test_no_secret_is_shown() -> None:
    """Nothing that a client is made of shows its token, or the password of its proxy."""
    made = client(proxy=f"http://user:{SECRET}@p.test", user_agent="my-app")
    shown = [made, *vars(made).values(), made._core.sessions, made._pipeline, made.get_run(documented.WORKFLOW_ID)]
    text = " ".join(f"{value!r} {value!s}" for value in shown)
    assert TOKEN not in text
    assert SECRET not in text
    assert repr(made) == f"<ComfyControl {BASE_URL}>"


async def test_no_secret_in_errors(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Neither what was sent nor where a redirect leads is in the text of an error or its causes."""
    path = f"/v1/runner/{documented.RUNNER_ID}"
    faults: list[Callable[[], None]] = [
        lambda: api.answer("PUT", path, status=302, headers={"Location": f"https://evil.test?token={SECRET}"}),
        lambda: api.answer("PUT", path, {"message": "no"}, status=400, headers={"Set-Cookie": SECRET}),
        lambda: api.answer("PUT", path, {**documented.RUNNER, "headers": {"k": [SECRET]}, "name": None}),
        lambda: api.fail("PUT", path, aiohttp.ClientConnectionError("closed"), times=5),
        lambda: api.fail("PUT", path, aiohttp.InvalidURL(f"http://a.test?signature={SECRET}"), sent=False),
    ]
    for fault in faults:
        fault()
        with pytest.raises(Exception, match="PUT") as caught:
            await comfy.runners.update(documented.RUNNER_ID, headers={"Authorization": SECRET})
        text = f"{caught.value} {caught.value!r} {vars(caught.value)}"
        assert SECRET not in text
        assert TOKEN not in text


# Closing


async def test_closed(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A closed client says so, for each call, and spends no request."""
    sibling = comfy.with_options(priority=Priority.BULK)
    run = comfy.get_run(documented.WORKFLOW_ID)
    api.answer("GET", "/v1/user", documented.USER)
    await comfy.user.get()
    await comfy.aclose()
    calls: list[Callable[[], Awaitable[object]]] = [
        comfy.user.get,
        comfy.runners.list().all,
        sibling.user.get,
        run.refresh,
        run.wait,
        lambda: comfy.request("GET", "/v1/user"),
        lambda: comfy.submit({"1": {"class_type": "SaveImage", "inputs": {}}}),
        lambda: anext(comfy.workflows.subscribe(documented.WORKFLOW_ID)),
        comfy.__aenter__,
    ]
    for call in calls:
        with pytest.raises(ClientClosedError, match="this client is closed"):
            await call()
    assert len(api.calls) == 1
    assert repr(comfy) == repr(sibling) == f"<ComfyControl {BASE_URL} closed>"


async def test_closing_twice(api: ScriptedApi) -> None:
    """Closing again does nothing, and closing what was never used neither."""
    comfy = client()
    await comfy.aclose()
    await comfy.aclose()
    async with client() as comfy:
        api.answer("GET", "/v1/user", documented.USER)
        await comfy.user.get()
        await comfy.aclose()


async def test_closed_after_an_error() -> None:
    """Leaving the block by an error closes the client."""
    comfy = client()
    with pytest.raises(RuntimeError, match="by an error"):
        async with comfy:
            raise RuntimeError("by an error")
    with pytest.raises(ClientClosedError):
        await comfy.user.get()


async def test_own_session_is_opened_once_and_closed(api: ScriptedApi) -> None:
    """The session opens on first use and is closed with the client."""
    comfy = client()
    assert comfy._core.sessions._api is None
    api.answer("GET", "/v1/user", documented.USER, times=3)
    await asyncio.gather(comfy.user.get(), comfy.user.get())
    session = comfy._core.sessions._api
    assert session is not None
    await comfy.user.get()
    assert comfy._core.sessions._api is session
    await comfy.aclose()
    assert session.closed


async def test_given_session(api: ScriptedApi) -> None:
    """A session that was given is used for every call, never closed or changed."""
    async with aiohttp.ClientSession(headers={"X-Mine": "yes"}) as session:
        before = dict(vars(session)) if hasattr(session, "__dict__") else session.headers.copy()
        async with client(session=session) as comfy:
            api.answer("GET", "/v1/user", documented.USER, times=2)
            await comfy.user.get()
            await comfy.with_options(retry=RetryPolicy(attempts=1)).user.get()
        assert not session.closed
        assert session.headers == {"X-Mine": "yes"}
        assert (dict(vars(session)) if hasattr(session, "__dict__") else session.headers.copy()) == before


async def test_given_session_that_is_closed(api: ScriptedApi) -> None:
    """A session that was closed elsewhere is reported in words of ours, and nothing is held."""
    async with aiohttp.ClientSession() as session:
        comfy = client(session=session)
    with pytest.raises(ClientClosedError, match="the aiohttp session that was given to this client is closed"):
        await comfy.user.get()
    assert comfy.limiter.snapshot().used == 0


# Event loops


@pytest.fixture
def loops() -> Iterator[Callable[[], Run]]:
    """Give functions that each run coroutines on a loop of their own, which stays open until the end."""
    runners: list[asyncio.Runner] = []

    def make() -> Run:
        runners.append(asyncio.Runner(debug=True))
        return runners[-1].run

    yield make
    for runner in runners:
        runner.close()


def test_second_live_loop(api: ScriptedApi, loops: Callable[[], Run]) -> None:
    """A client that belongs to a loop that is still alive says so on any other."""
    first, second = loops(), loops()
    comfy = client()
    api.answer("GET", "/v1/user", documented.USER, times=2)
    first(comfy.user.get())
    with pytest.raises(ClientLoopError, match="another event loop that is still alive"):
        second(comfy.user.get())
    with pytest.raises(ClientLoopError, match="another event loop that is still alive"):
        second(comfy.__aenter__())
    first(comfy.user.get())
    first(comfy.aclose())


def test_loop_after_loop(api: ScriptedApi) -> None:
    """When its loop has been closed a client binds to the next, with a new session and the same budget."""
    comfy = client(limiter=LocalLimiter(10, 1000.0))
    api.answer("GET", "/v1/user", documented.USER, times=3)
    sessions = []
    for _ in range(3):
        asyncio.run(comfy.user.get())
        sessions.append(comfy._core.sessions._api)
    assert len({id(session) for session in sessions}) == 3
    assert comfy.limiter.snapshot().used == 3

    async def end() -> None:
        await comfy.aclose()

    asyncio.run(end())


def test_closed_on_another_loop(api: ScriptedApi) -> None:
    """A client whose loop is gone can still be closed."""
    comfy = client()
    api.answer("GET", "/v1/user", documented.USER)
    asyncio.run(comfy.user.get())
    asyncio.run(comfy.aclose())
    with pytest.raises(ClientClosedError):
        asyncio.run(comfy.user.get())


def test_default_limiter_is_shared() -> None:
    """Clients of one origin share a budget, whatever their token or path; another origin has its own."""

    async def limiters() -> list[Any]:
        made = [
            ComfyControl("cfc_one", base_url="https://shared.test"),
            ComfyControl("cfc_two", base_url="https://shared.test/base"),
            ComfyControl("cfc_one", base_url="https://shared.test:8443"),
        ]
        return [comfy.limiter for comfy in (*made, made[0].with_options(priority=Priority.BULK))]

    one, two, other, sibling = asyncio.run(limiters())
    assert one is two is sibling
    assert other is not one
    assert (one.snapshot().limit, one.snapshot().period) == (40, 10.0)


def test_default_limiter_outlives_its_loop(api: ScriptedApi) -> None:
    """What one run of a program's loop has spent, the next one knows."""
    comfy = client(limiter=None, base_url=BASE_URL)
    api.answer("GET", "/v1/user", documented.USER, times=2)
    before = comfy.limiter.snapshot().used
    asyncio.run(comfy.user.get())
    asyncio.run(comfy.user.get())
    assert comfy.limiter.snapshot().used == before + 2
    asyncio.run(comfy.aclose())


def test_default_limiters_of_two_live_loops(loops: Callable[[], Run]) -> None:
    """Two loops that live at once each have a limiter that they can use."""
    first, second = loops(), loops()

    async def use() -> Any:
        limiter = ComfyControl("cfc_one", base_url="https://two-loops.test").limiter
        (await limiter.acquire()).arrived()
        return limiter

    assert first(use()) is not second(use())
    assert first(use()) is first(use())


# Siblings


async def test_with_options_shares(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A sibling shares session, limiter and watcher, and has its own options."""
    sibling = comfy.with_options(timeouts=Timeouts(connect=1.0), retry=RetryPolicy(attempts=1))
    assert type(sibling) is ComfyControl
    assert sibling.limiter is comfy.limiter
    assert sibling.base_url == comfy.base_url
    assert sibling._tools.watcher is comfy._tools.watcher
    api.answer("GET", "/v1/user", documented.USER, times=2)
    await comfy.user.get()
    session = comfy._core.sessions._api
    await sibling.user.get()
    assert sibling._core.sessions._api is session
    assert [call.options["timeout"].connect for call in api.calls] == [10.0, 1.0]


async def test_sibling_of_a_subclass(api: ScriptedApi) -> None:
    """A sibling is of the client's own class, whatever its constructor takes, and keeps its attributes."""

    class Mine(ComfyControl):
        def __init__(self, project: str) -> None:
            super().__init__(TOKEN, base_url=BASE_URL, limiter=LocalLimiter(1000, 1.0))
            self.project = project

    async with Mine("cats") as comfy:
        sibling = comfy.with_options(timeouts=Timeouts(connect=1.0)).with_options(priority=Priority.BULK)
        assert type(sibling) is Mine
        assert sibling.project == "cats"
        api.answer("GET", "/v1/user", documented.USER, times=2)
        await sibling.user.get()
        await comfy.user.get()
    assert [call.options["timeout"].connect for call in api.calls] == [1.0, 10.0]


def test_options_reach_downloads() -> None:
    """The timeouts and the retry policy of a sibling hold for its downloads, and the client's own stay as they were."""
    comfy = client(timeouts=Timeouts(read=7.0))
    sibling = comfy.with_options(timeouts=Timeouts(read=1.0), retry=RetryPolicy(attempts=2))
    of = [made.get_run(documented.WORKFLOW_ID)._tools.downloader for made in (comfy, sibling)]
    assert [downloader.timeouts.read for downloader in of] == [7.0, 1.0]
    assert [downloader.retry.attempts for downloader in of] == [5, 2]


async def test_with_options_changes_only_what_is_given(api: ScriptedApi, comfy: ComfyControl) -> None:
    """What is left out stays as it was with the client that the sibling is made of."""
    once = comfy.with_options(retry=RetryPolicy(attempts=1), max_rate_limit_wait=5.0)
    again = once.with_options(priority=Priority.BULK)
    assert again._pipeline.retry == RetryPolicy(attempts=1)
    assert again._pipeline.max_wait == 5.0
    assert again._pipeline.priority is Priority.BULK
    assert once._pipeline.priority is comfy._pipeline.priority is Priority.NORMAL
    assert again.with_options(max_rate_limit_wait=None)._pipeline.max_wait is None
    api.answer("GET", "/v1/user", status=500)
    with pytest.raises(ServerError):
        await again.user.get()
    assert len(api.calls) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        pytest.param({"priority": 7}, InvalidArgumentError, id="priority"),
        pytest.param({"priority": "BULK"}, InvalidArgumentError, id="priority-as-text"),
        pytest.param({"max_rate_limit_wait": -1}, ConfigurationError, id="wait"),
        pytest.param({"max_rate_limit_wait": "5"}, ConfigurationError, id="wait-as-text"),
    ],
)
def test_with_options_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """An invalid option is refused."""
    with pytest.raises(error):
        client().with_options(**options)


async def test_max_rate_limit_wait(api: ScriptedApi) -> None:
    """A client that may not wait long says so before anything is sent."""
    async with client(limiter=LocalLimiter(1, 1000.0), max_rate_limit_wait=5.0) as comfy:
        api.answer("GET", "/v1/user", documented.USER)
        await comfy.user.get()
        with pytest.raises(RateLimitWaitError) as caught:
            await comfy.user.get()
        assert caught.value.allowed == 5.0
        assert caught.value.needed > 900.0
    assert len(api.calls) == 1


# The escape hatch


@pytest.mark.parametrize(
    ("method", "options", "target"),
    [
        pytest.param("GET", {}, "/v1/new", id="plain"),
        pytest.param("get", {}, "/v1/new", id="lower-case"),
        pytest.param("GET", {"params": {}}, "/v1/new", id="no-query"),
        pytest.param(
            "GET",
            {"params": {"page": 2, "all": True, "none": False, "x": 1.5, "q": "a b&c"}},
            "/v1/new?all=true&none=false&page=2&q=a%20b%26c&x=1.5",
            id="query",
        ),
        pytest.param("DELETE", {}, "/v1/new", id="delete"),
    ],
)
async def test_request(
    api: ScriptedApi, comfy: ComfyControl, method: str, options: dict[str, Any], target: str
) -> None:
    """Any endpoint can be called, and its parsed JSON is returned."""
    api.answer(method.upper(), target, {"ok": [1, None]})
    assert await comfy.request(method, "/v1/new", **options) == {"ok": [1, None]}
    assert api.calls[0].data is None


@pytest.mark.parametrize("value", [{"a": "ü"}, [1], "text", 0, False, {}], ids=repr)
async def test_request_with_json(api: ScriptedApi, comfy: ComfyControl, value: Any) -> None:
    """Any JSON can be sent."""
    api.answer("POST", "/v1/new", {"ok": True}, status=201)
    assert await comfy.request("POST", "/v1/new", json=value) == {"ok": True}
    assert api.calls[0].json == value


@pytest.mark.parametrize(
    ("body", "value"), [(b"", None), (b" \n", None), (b"null", None), (b"[]", []), (b"5", 5)], ids=repr
)
async def test_request_may_answer_nothing(api: ScriptedApi, comfy: ComfyControl, body: bytes, value: Any) -> None:
    """An empty body is None."""
    api.answer("PUT", "/v1/new", body=body)
    assert await comfy.request("PUT", "/v1/new") == value


@pytest.mark.parametrize("body", [b'{"a": 1}', b"", b"\x89PNG"], ids=repr)
async def test_request_raw(api: ScriptedApi, comfy: ComfyControl, body: bytes) -> None:
    """With `raw` the whole answer comes as it is, headers in any case; errors are raised all the same."""
    api.answer("GET", "/v1/new", status=202, body=body, headers={"cf-ray": "ray-1", "X-New": "yes"})
    answer = await comfy.request("GET", "/v1/new", raw=True)
    assert (answer.status, answer.request_id, answer.body) == (202, "ray-1", body)
    assert answer.headers["x-new"] == "yes"
    assert "PNG" not in repr(answer)
    api.answer("GET", "/v1/new", status=404)
    with pytest.raises(NotFoundError):
        await comfy.request("GET", "/v1/new", raw=True)


async def test_request_errors(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Errors are those of every call."""
    api.answer("GET", "/v1/new", {"message": "requested entity not found"}, status=404)
    with pytest.raises(NotFoundError, match="GET /v1/new: 404 requested entity not found"):
        await comfy.request("GET", "/v1/new")
    api.answer("GET", "/v1/new", body=b"<p>Hello</p>", content_type="text/html")
    with pytest.raises(ResponseFormatError, match="HTML where JSON is due: Hello"):
        await comfy.request("GET", "/v1/new")


@pytest.mark.parametrize(
    ("method", "attempts"),
    [("GET", 5), ("HEAD", 5), ("OPTIONS", 5), ("PUT", 5), ("DELETE", 5), ("POST", 1), ("PATCH", 1), ("BREW", 1)],
)
async def test_request_is_repeated_where_that_is_safe(
    api: ScriptedApi, comfy: ComfyControl, method: str, attempts: int
) -> None:
    """A method that is idempotent is repeated, and any other is not."""
    api.fail(method, "/v1/new", aiohttp.ServerDisconnectedError(), times=5)
    with pytest.raises(TransportError):
        await comfy.request(method, "/v1/new")
    assert len(api.calls) == attempts


@pytest.mark.parametrize(
    ("method", "path", "options", "message"),
    [
        pytest.param("GET", "v1/user", {}, "a path is like", id="no-slash"),
        pytest.param("GET", "https://evil.test/v1/user", {}, "a path is like", id="another-origin"),
        pytest.param("GET", "", {}, "a path is like", id="empty"),
        pytest.param("GET", "/v1/user#x", {}, "a path is like", id="fragment"),
        pytest.param("GET", "/v1/user\r\nX: y", {}, "a path is like", id="newline"),
        pytest.param("GET", f"/v1/user?key={SECRET}", {}, "of '/v1/user' as params", id="query"),
        pytest.param("GE T", "/v1/user", {}, "a method is a word", id="method-with-a-blank"),
        pytest.param("", "/v1/user", {}, "a method is a word", id="no-method"),
        pytest.param("GÉT", "/v1/user", {}, "a method is a word", id="not-ascii"),
        pytest.param("POST", "/v1/user", {"json": {1, 2}}, "the body is no JSON", id="set"),
        pytest.param("POST", "/v1/user", {"json": math.nan}, "the body is no JSON", id="nan"),
        pytest.param("POST", "/v1/user", {"json": "\ud800"}, "the body is no JSON", id="surrogate"),
    ],
)
async def test_request_refused(
    api: ScriptedApi, comfy: ComfyControl, method: str, path: str, options: dict[str, Any], message: str
) -> None:
    """What is no path of the API's own origin, no method or no JSON costs no request."""
    with pytest.raises(InvalidArgumentError, match=message) as caught:
        await comfy.request(method, path, **options)
    assert SECRET not in str(caught.value)
    assert api.calls == []


async def test_the_token_stays_with_its_origin(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Whatever the path is made of, the request goes to the API's own address."""
    for path in ("//evil.test/v1", "/@evil.test", "/v1/../../x", "/\\evil.test", "/:80/x"):
        api.calls.clear()
        with pytest.raises(TransportError):
            await comfy.with_options(retry=RetryPolicy(attempts=1)).request("GET", path)
        assert len(api.calls) == 1
        assert api.unexpected.pop().startswith("GET /")
        assert all(str(url).startswith(f"{BASE_URL}/") for _, url in api.requests)


# Verbs


async def test_get_run(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A handle of a workflow costs no request, and knows nothing yet."""
    run = comfy.get_run(documented.WORKFLOW_ID)
    assert isinstance(run, WorkflowRun)
    assert (run.id, run.name, run.status, run.workflow) == (documented.WORKFLOW_ID, "", None, None)
    assert api.calls == []
    with pytest.raises(InvalidArgumentError, match="an id is text like"):
        comfy.get_run("5")


async def test_run_checks_its_options_first(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A faulty option is found before a workflow is made."""
    with pytest.raises(InvalidArgumentError, match="on_cancel must be 'detach' or 'cancel', not 'stop'"):
        await comfy.run(documented.GRAPH, on_cancel="stop")  # type: ignore[arg-type]
    assert api.calls == []


SAVE = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "$text(prefix, cat)"}}}
SUBSCRIBE = f"/v1/workflow/{documented.WORKFLOW_ID}/subscribe"


async def test_submit(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A submit is one request, and its handle knows what the answer said."""
    api.answer("POST", "/v1/workflow", documented.ACCEPTED, status=201)
    run = await comfy.submit(SAVE, name="Text to Image Generation", params={"prefix": "dog"}, tags=["gpu"])
    assert (run.id, run.name, run.status) == (documented.WORKFLOW_ID, "Text to Image Generation", "accepted")
    (call,) = api.calls
    assert {name: value for name, value in call.data.items() if name != "workflow_json"} == {
        "name": "Text to Image Generation",
        "tags": "gpu",
        "$prefix": "dog",
    }


async def test_run(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A run is submitted and waited for: two requests, and its outputs came with the last event."""
    api.answer("POST", "/v1/workflow", documented.ACCEPTED)
    events = b"".join(b"data: " + json.dumps(update).encode() + b"\n\n" for update in documented.UPDATES)
    api.answer("GET", SUBSCRIBE, body=events, content_type="text/event-stream")
    seen: list[str] = []
    run = await comfy.run(SAVE, timeout=10.0, on_update=lambda update: seen.append(str(update.status)))
    assert run.status == "completed"
    assert seen[-1] == "completed"
    assert [output.id for output in await run.outputs()] == [documented.OUTPUTS[0]["id"]]
    assert api.asked == ["POST /v1/workflow", f"GET {SUBSCRIBE}"]


@pytest.mark.parametrize("answer", [200, 403, None], ids=["cancelled", "refused", "not-asked"])
async def test_run_cancelled(api: ScriptedApi, comfy: ComfyControl, answer: int | None) -> None:
    """Cancelling the task that waits stops the waiting, and the workflow only when that was asked for."""
    api.answer("POST", "/v1/workflow", documented.ACCEPTED)
    waiting = api.hold("GET", SUBSCRIBE)
    if answer is not None:
        api.answer("POST", f"/v1/workflow/{documented.WORKFLOW_ID}/cancel", status=answer)
    task = asyncio.ensure_future(comfy.run(SAVE, on_cancel="detach" if answer is None else "cancel"))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    cancelled = [] if answer is None else [f"POST /v1/workflow/{documented.WORKFLOW_ID}/cancel"]
    assert api.asked == ["POST /v1/workflow", f"GET {SUBSCRIBE}", *cancelled]


async def test_map_of_nothing(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A batch without rows has no results and costs no request; a faulty graph or option is found before any row."""
    assert [result async for result in comfy.map(SAVE, [])] == []
    with pytest.raises(GraphError, match="the graph is empty"):
        await anext(comfy.map({}, [{"prefix": "cat"}]))
    with pytest.raises(InvalidArgumentError, match="concurrency"):
        comfy.map(SAVE, [{}], concurrency=0)
    with pytest.raises(InvalidArgumentError, match="write tags="):
        comfy.map(SAVE, [{}], tags="gpu")
    assert api.calls == []


async def test_plan(api: ScriptedApi, comfy: ComfyControl) -> None:
    """What a batch will need is estimated without a request, and outputs cost some."""
    assert comfy.plan(100, outputs=True).requests > comfy.plan(100, outputs=False).requests >= 100
    assert api.calls == []
