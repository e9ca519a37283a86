"""Bad input: each gives one clear error of our own, and spends and loses nothing."""

import io
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from comfycontrol_async import (
    AuthenticationError,
    ComfyControl,
    ComfyControlError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    File,
    Graph,
    GraphError,
    InvalidArgumentError,
    LocalLimiter,
    ResponseFormatError,
    ResponseLostError,
    RetryPolicy,
    SubmitOutcomeUnknownError,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import FILE_GRAPH, GRAPH
from support.services import UNKNOWN_ID, client_of, connected

WORKFLOWS = Path(__file__).parents[1] / "data" / "workflows"


@pytest.fixture
def nothing_spent(server: LocalServer, comfy: ComfyControl) -> Callable[[], None]:
    """Give a function that checks that no request was sent and no slot taken."""

    def check() -> None:
        assert len(server.requests) == 0
        assert comfy.limiter.snapshot().used == 0

    return check


class TestSettings:
    """Before there is a client."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("base_url", 5),
            ("base_url", "https://" + "a" * 64 + ".test"),
            ("session", "session"),
            ("session", aiohttp.ClientSession),
            ("limiter", 40),
            ("limiter", LocalLimiter),
            ("retry", 3),
            ("retry", RetryPolicy),
            ("timeouts", "30"),
            ("timeouts", (1, 2)),
            ("timeouts", True),
            ("timeouts", 0),
            ("timeouts", 10**400),
            ("watch", 1.0),
            ("max_rate_limit_wait", "5"),
            ("user_agent", 5),
            ("proxy", 5),
            ("proxy", "http://" + "a" * 64),
            ("trace_configs", aiohttp.TraceConfig()),
            ("trace_configs", ["trace"]),
        ],
        ids=lambda value: repr(value)[:40],
    )
    def test_wrong_type(self, name: str, value: Any) -> None:
        """A value of a wrong type is refused by the constructor, which names the option."""
        named = name.removeprefix("max_").replace("base_url", "base URL").removesuffix("s")
        with pytest.raises(ConfigurationError, match=named):
            ComfyControl("cfc_0123", **{name: value})

    async def test_session_with_netrc(
        self, server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
    ) -> None:
        """Credentials that only aiohttp finds are an error of ours too, and cost nothing."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        async with aiohttp.ClientSession(trust_env=True) as session, client_of(server, session=session) as comfy:
            with pytest.raises(ConfigurationError, match=r"\.netrc") as caught:
                await comfy.user.get()
            assert comfy.limiter.snapshot().used == 0
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("method", "path", "params"),
        [
            pytest.param(5, "/v1/user", None, id="method"),
            pytest.param("GET", 5, None, id="path"),
            pytest.param("GET", "/v1/\ud800", None, id="surrogate-in-the-path"),
            pytest.param("GET", "/v1/user", [("a", 1)], id="list"),
            pytest.param("GET", "/v1/user", {"a": "\ud800"}, id="surrogate"),
            pytest.param("GET", "/v1/user", {5: "a"}, id="key"),
        ],
    )
    async def test_request(self, nothing_spent: Any, comfy: ComfyControl, method: Any, path: Any, params: Any) -> None:
        """What `request` cannot send is refused before anything is spent."""
        with pytest.raises(InvalidArgumentError):
            await comfy.request(method, path, params=params)
        nothing_spent()

    async def test_session_with_credentials(self) -> None:
        """A session whose own credentials would stand beside the token is refused, and they are not shown."""
        with pytest.warns(DeprecationWarning, match="deprecated"):
            session = aiohttp.ClientSession(auth=aiohttp.BasicAuth("me", "hunter2"))
        async with session:
            with pytest.raises(ConfigurationError, match="credentials of its own") as caught:
                ComfyControl("cfc_0123", session=session)
        assert "hunter2" not in str(caught.value)

    def test_no_token(self) -> None:
        """Without a token the error names the variable to set."""
        with pytest.raises(ConfigurationError, match="COMFYCONTROL_API_TOKEN"):
            ComfyControl()

    @pytest.mark.parametrize("token", ["", "   ", "cfc_a\nb", "cfc_\u00e9", "two words"])
    def test_unusable_token(self, token: str) -> None:
        """A token that cannot be sent is refused, and not shown."""
        with pytest.raises(ConfigurationError) as caught:
            ComfyControl(token)
        assert not token.strip() or token not in str(caught.value)

    @pytest.mark.parametrize(
        "url", ["ftp://x.test", "x.test", "https://", "https://user:pw@x.test", "http://x.test?a=1", "http://[bad"]
    )
    def test_unusable_base_url(self, url: str) -> None:
        """Nor is an address that cannot be called."""
        with pytest.raises(ConfigurationError, match="base URL"):
            ComfyControl("cfc_x", base_url=url)

    async def test_odd_token(self, server: LocalServer, caplog: pytest.LogCaptureFixture) -> None:
        """A token of another form is used all the same, with one warning that does not show it."""
        async with client_of(server, token="sk-12345678") as comfy:
            with pytest.raises(AuthenticationError, match="Invalid token"):
                await comfy.user.get()
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len([text for text in warnings if "cfc_" in text]) == 1
        assert not [text for text in warnings if "12345678" in text]


BAD_GRAPHS: list[Any] = [
    pytest.param("missing.json", None, "cannot read .*missing.json", id="missing-file"),
    pytest.param("not.json", "{1: oops", "is not JSON", id="not-json"),
    pytest.param("list.json", "[]", "holds a list", id="list"),
    pytest.param("empty.json", "", "is not JSON", id="empty-file"),
    pytest.param("binary.json", b"\x89PNG\r\n\xff", "UTF-8", id="image"),
    pytest.param("nothing.json", "{}", "empty", id="no-nodes"),
    pytest.param(
        "inside.json",
        json.dumps(GRAPH).replace("$text(color, 3368601)", "x $text(color)"),
        "placeholder",
        id="placeholder-in-text",
    ),
    pytest.param("link.json", json.dumps(GRAPH).replace('["1", 0]', '["9", 0]'), "9", id="broken-link"),
]


class TestGraphs:
    """Graphs that cannot run."""

    @pytest.mark.parametrize(("name", "content", "told"), BAD_GRAPHS)
    async def test_files(
        self,
        comfy: ComfyControl,
        nothing_spent: Callable[[], None],
        tmp_path: Path,
        name: str,
        content: str | bytes | None,
        told: str,
    ) -> None:
        """Whichever verb is given the file, it says what is wrong with it."""
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        for verb in (
            lambda: comfy.run(path),
            lambda: comfy.submit(str(path)),
            lambda: comfy.workflows.create(path, name="w"),
            lambda: comfy.templates.create("t", "d", path),
        ):
            with pytest.raises(GraphError, match=told):
                await verb()
        nothing_spent()

    async def test_ui_format(self, comfy: ComfyControl, nothing_spent: Callable[[], None]) -> None:
        """An export for the editor is told, with what to do instead."""
        with pytest.raises(GraphError, match=re.escape("Export (API)")):
            await comfy.run(WORKFLOWS / "ui_format_export.json")
        nothing_spent()

    @pytest.mark.parametrize(
        ("params", "told"),
        [
            pytest.param(None, "prefix", id="none"),
            pytest.param({"image": b"x"}, "prefix", id="one-missing"),
            pytest.param({"prefix": "p"}, "image", id="file-missing"),
            pytest.param({"prefix": "p", "image": b"x", "prefx": "q"}, "prefx", id="unknown"),
            pytest.param({"$prefix": "p", "image": b"x"}, "prefix", id="with-dollar"),
            pytest.param({"prefix": "p", "image": b"x", "method": "bicubic"}, "bicubic", id="outside-the-choice"),
            pytest.param({"prefix": "p", "image": "photo.png"}, "image", id="text-for-a-file"),
            pytest.param({"prefix": b"p", "image": b"x"}, "prefix", id="file-for-a-text"),
            pytest.param({"prefix": None, "image": b"x"}, "prefix", id="null"),
            pytest.param({"prefix": "p", "image": Path("/nothing/here.png")}, "here.png", id="missing-file"),
            pytest.param({"prefix": "p", "image": Path("/")}, "image", id="directory"),
            pytest.param({"prefix": "p", "image": File(io.StringIO("text"))}, "image", id="text-stream"),  # type: ignore[arg-type] # tested
        ],
    )
    async def test_parameters(
        self, comfy: ComfyControl, nothing_spent: Callable[[], None], params: dict[str, Any] | None, told: str
    ) -> None:
        """A parameter that is missing, unknown or of the wrong kind is named."""
        with pytest.raises((GraphError, InvalidArgumentError), match=re.escape(told)):
            await comfy.run(FILE_GRAPH, params=params)
        nothing_spent()

    async def test_everything_at_once(self, comfy: ComfyControl, nothing_spent: Callable[[], None]) -> None:
        """All that is wrong is listed in one error."""
        with pytest.raises(GraphError) as caught:
            await comfy.run(FILE_GRAPH, params={"method": "bicubic", "other": 1})
        text = " ".join(str(issue) for issue in caught.value.issues)
        for name in ("image", "prefix", "bicubic", "other"):
            assert name in text
        nothing_spent()

    async def test_other_kinds(self, comfy: ComfyControl, nothing_spent: Callable[[], None]) -> None:
        """What is no graph at all is told as well."""
        kinds: list[Any] = [None, 5, [], b"{}", json.dumps(GRAPH), {"1": object()}]
        for graph in kinds:
            with pytest.raises(GraphError):
                await comfy.run(graph)
        nothing_spent()


class TestArguments:
    """Arguments that the API is known to refuse."""

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda comfy: comfy.submit(GRAPH, name=""), id="empty-name"),
            pytest.param(lambda comfy: comfy.submit(GRAPH, name="x" * 201), id="long-name"),
            pytest.param(lambda comfy: comfy.submit(GRAPH, tags="gpu"), id="tags-as-text"),
            pytest.param(lambda comfy: comfy.submit(GRAPH, tags=["a,b"]), id="comma-in-a-tag"),
            pytest.param(lambda comfy: comfy.workflows.get("1"), id="id"),
            pytest.param(lambda comfy: comfy.workflows.get("../user"), id="path-as-id"),
            pytest.param(lambda comfy: comfy.workflows.get(UNKNOWN_ID + "/cancel"), id="path-behind-id"),
            pytest.param(lambda comfy: comfy.workflows.list(per_page=101).page(1), id="page-size"),
            pytest.param(lambda comfy: comfy.workflows.list().page(0), id="page-number"),
            pytest.param(lambda comfy: comfy.runners.create("", "http://x.test"), id="runner-name"),
            pytest.param(lambda comfy: comfy.runners.create("r", "x.test:8188"), id="endpoint"),
            pytest.param(lambda comfy: comfy.runners.create("r", "http://x.test", tags=["t"] * 11), id="many-tags"),
            pytest.param(lambda comfy: comfy.runners.create("r", "http://x.test", headers={"a": 1}), id="headers"),
            pytest.param(lambda comfy: comfy.runners.update(UNKNOWN_ID), id="nothing-to-change"),
            pytest.param(lambda comfy: comfy.runners.update(UNKNOWN_ID, status="off"), id="status"),
            pytest.param(lambda comfy: comfy.templates.create("t" * 101, "d", GRAPH), id="template-name"),
            pytest.param(lambda comfy: comfy.templates.create("t", "d" * 501, GRAPH), id="description"),
            pytest.param(lambda comfy: comfy.templates.update(UNKNOWN_ID), id="no-template-change"),
            pytest.param(lambda comfy: comfy.request("GET", "v1/user"), id="path"),
            pytest.param(lambda comfy: comfy.request("GET", "https://evil.test/"), id="url-as-path"),
            pytest.param(lambda comfy: comfy.request("GET ", "/v1/user"), id="method"),
            pytest.param(lambda comfy: comfy.request("POST", "/v1/runner", json={"a": float("nan")}), id="nan"),
            pytest.param(lambda comfy: comfy.request("POST", "/v1/runner", json=object()), id="no-json"),
        ],
    )
    async def test_refused_before_sending(
        self, comfy: ComfyControl, nothing_spent: Callable[[], None], call: Callable[[ComfyControl], Any]
    ) -> None:
        """Each is told before a request is spent."""
        with pytest.raises(InvalidArgumentError):
            await call(comfy)
        nothing_spent()


class TestService:
    """A service that does not answer as it should."""

    async def test_unreachable(self) -> None:
        """A server that is not there is told with its cause, and no slot is lost."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        limiter = LocalLimiter(10, 60.0)
        retry = RetryPolicy(attempts=3, base_delay=0.001)
        async with ComfyControl("cfc_x", base_url=f"http://127.0.0.1:{port}", limiter=limiter, retry=retry) as comfy:
            for call in (comfy.user.get, lambda: comfy.submit(GRAPH), lambda: comfy.run(GRAPH)):
                with pytest.raises(ConnectionFailedError, match=str(port)) as caught:
                    await call()
                assert isinstance(caught.value.__cause__, OSError)
        assert limiter.snapshot().used == 0

    async def test_unknown_host(self) -> None:
        """So is a host whose name cannot be resolved."""
        retry = RetryPolicy(attempts=1)
        async with ComfyControl("cfc_x", base_url="http://nowhere.invalid", retry=retry) as comfy:
            with pytest.raises(ConnectionFailedError, match=r"nowhere\.invalid"):
                await comfy.user.get()

    async def test_expired_token(self, server: LocalServer, comfy: ComfyControl) -> None:
        """An expired token is told in the service's words, by every verb, with one request each."""
        run = await comfy.submit(GRAPH)
        before = len(server.requests)
        server.expire_token()
        for call in (comfy.user.get, lambda: comfy.submit(GRAPH), run.refresh, run.outputs, run.cancel):
            with pytest.raises(AuthenticationError, match="Token has expired"):
                await call()
        assert len(server.requests) == before + 5
        assert len(server.workflows) == 1

    async def test_token_expires_while_waiting(self) -> None:
        """A token that expires in the middle of a wait ends it, instead of being asked again for ever."""
        async with connected(duration=10_000.0, sse_updates=3, sse_interval=1.0) as (server, comfy):
            run = await comfy.submit(GRAPH)
            server.expire_token()
            with pytest.raises(AuthenticationError, match="Token has expired"):
                await run.wait(timeout=20)
            assert len(server.requests) <= 3

    async def test_html_where_json_is_due(self, server: LocalServer, comfy: ComfyControl) -> None:
        """A page that is not the API's is named as such; a create may have taken effect."""
        page = "<!doctype html><title>Sign in to the hotel's network</title>"
        server.fail_next("*", "*", status=200, body=page, content_type="text/html", times=2)
        with pytest.raises(ResponseFormatError, match="HTML where JSON is due: Sign in to the hotel's network"):
            await comfy.user.get()
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await comfy.workflows.create(GRAPH, name="w")
        assert isinstance(caught.value.__cause__, ResponseFormatError)

    async def test_truncated_body(self, server: LocalServer) -> None:
        """An answer that breaks off is told after all attempts."""
        server.truncate_next("GET", "/v1/user", times=2)
        async with client_of(server, retry=RetryPolicy(attempts=2, base_delay=0.001)) as comfy:
            with pytest.raises(ResponseLostError, match="GET /v1/user"):
                await comfy.user.get()
            assert (await comfy.user.get()).name == "Local User"
        assert len(server.requests) == 3

    async def test_one_malformed_item(
        self, server: LocalServer, comfy: ComfyControl, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One malformed item does not lose its page: it stands apart, and is logged without its values."""
        for number in range(3):
            await comfy.workflows.create(GRAPH, name=f"w{number}")
        listed = await comfy.request("GET", "/v1/workflow", params={"per_page": 100})
        listed["workflows"][1]["created_at"] = "secret-value"
        answer: dict[str, Any] = {"status": 200, "body": json.dumps(listed), "content_type": "application/json"}
        server.fail_next("GET", "/v1/workflow", **answer)
        page = await comfy.workflows.list().page(1)
        assert [item.name for item in page.items] == ["w2", "w0"]
        (invalid,) = page.invalid_items
        assert (invalid.index, invalid.raw["name"]) == (1, "w1")
        assert "$.workflows[1].created_at" in invalid.message
        assert "secret-value" not in caplog.text
        server.fail_next("GET", "/v1/workflow", **answer)
        assert [item.name async for item in comfy.workflows.list()] == ["w2", "w0"]

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            pytest.param({"runners": None, "total": 0}, None, id="null-list"),
            pytest.param({"runners": [], "extra": 1}, None, id="no-total"),
            pytest.param({"items": []}, "runners", id="no-list"),
            pytest.param({"runners": {}}, "runners", id="object"),
            pytest.param([], "runners", id="bare-list"),
        ],
    )
    async def test_pages(self, server: LocalServer, comfy: ComfyControl, body: Any, told: str | None) -> None:
        """A page may say null for a list; one without a list is told."""
        text = json.dumps(body)
        server.fail_next("GET", "/v1/runner", status=200, body=text, content_type="application/json")
        if told is None:
            assert (await comfy.runners.list().page(1)).items == []
        else:
            with pytest.raises(ResponseFormatError, match=told):
                await comfy.runners.list().page(1)

    async def test_output_directory(self, server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
        """A directory that cannot be written is told, and the run can be downloaded elsewhere, for no request more."""
        run = await comfy.run(GRAPH)
        (tmp_path / "file").write_text("mine")
        before = len(server.requests)
        with pytest.raises(DownloadError, match="cannot write"):
            await run.download(tmp_path / "file" / "out")
        assert len(await run.download(tmp_path / "out")) == 1
        assert len(server.requests) == before


async def test_every_error_is_ours(server: LocalServer, comfy: ComfyControl, tmp_path: Path) -> None:
    """Everything above is caught by one `except ComfyControlError`."""
    mistakes: list[Callable[[], Any]] = [
        lambda: comfy.run(tmp_path / "missing.json"),
        lambda: comfy.run(Graph(FILE_GRAPH)),
        lambda: comfy.workflows.get("x"),
        lambda: comfy.workflows.get(UNKNOWN_ID),
        lambda: comfy.get_run(UNKNOWN_ID).wait(),
        lambda: comfy.get_run(UNKNOWN_ID).download(tmp_path),
    ]
    for mistake in mistakes:
        with pytest.raises(ComfyControlError):
            await mistake()
    assert (await comfy.user.get()).name == "Local User"
