"""The pytest plugin, run in a pytest of its own."""

import json
import textwrap

import pytest

from comfycontrol_async.testing import pytest_plugin

pytest_plugins = ["pytester"]

USES_SERVER = """
    import pytest

    def test_default(comfycontrol_server):
        assert comfycontrol_server.speed == 20.0
        assert comfycontrol_server.url.startswith("http://127.0.0.1:")

    {mark}
    @pytest.mark.comfycontrol(limit=3, speed=50)
    async def test_options(comfycontrol_server):
        assert (comfycontrol_server.limit, comfycontrol_server.period) == (3, 0.2)

    @pytest.mark.comfycontrol(limit=4, speed=10.0)
    class TestNearer:
        {mark}
        @pytest.mark.comfycontrol(limit=5)
        async def test_nearer(self, comfycontrol_server, comfycontrol):
            assert (comfycontrol_server.limit, comfycontrol_server.speed) == (5, 10.0)
            assert (await comfycontrol.user.get()).id == comfycontrol_server.user["id"]
"""
USES_CLIENT = """
    import pytest

    class TestClient:
        @pytest.mark.asyncio(loop_scope="{scope}")
        @pytest.mark.parametrize("turn", [1, 2])
        async def test_client(self, comfycontrol, comfycontrol_server, turn):
            assert (await comfycontrol.user.get()).id == comfycontrol_server.user["id"]
            snapshot = comfycontrol.limiter.snapshot()
            assert (snapshot.limit, snapshot.period) == (comfycontrol_server.limit, comfycontrol_server.period)
"""
GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "color": "$text(prompt, 255)"}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "poster"}},
}


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *options: str) -> pytest.RunResult:
    """Run pytest on the files made, with no other plugins than those named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugin = ("-p", "comfycontrol_async.testing.pytest_plugin")
    strict = ("--strict-markers", "-W", "error", "-p", "no:cacheprovider")
    return pytester.runpytest_subprocess(*plugin, *strict, *options)


@pytest.mark.parametrize("mode", ["auto", pytest.param("strict", marks=pytest.mark.slow)])
def test_server_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The fixture gives a started server, with the options of the nearest markers, in both modes of pytest-asyncio."""
    pytester.makeini(f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(USES_SERVER.format(mark="@pytest.mark.asyncio" if mode == "strict" else ""))
    run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=3)


def test_loop_scopes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client works on a loop of every scope, with a limiter for the scaled limit, and leaves no warning."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    scopes = ("function", "class", "module", "package", "session")
    pytester.makepyfile(**{f"test_{scope}": USES_CLIENT.format(scope=scope) for scope in scopes})
    run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=10)


@pytest.mark.comfycontrol(5)
def test_marker_without_names(request: pytest.FixtureRequest) -> None:
    """Options without a name are refused, not passed over."""
    with pytest.raises(pytest.fail.Exception, match="takes options by name"):
        request.getfixturevalue("comfycontrol_server")


@pytest.mark.slow
def test_anyio(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client works in tests that anyio runs."""
    pytest.importorskip("anyio")
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_client(comfycontrol, comfycontrol_server):
            assert (await comfycontrol.user.get()).id == comfycontrol_server.user["id"]
    """)
    run(pytester, monkeypatch, "-p", "anyio.pytest_plugin").assert_outcomes(passed=1)


@pytest.mark.slow
def test_aiohttp(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client works in tests that the plugin of aiohttp runs, on which pytest-aiohttp is built."""
    pytester.makepyfile("""
        async def test_client(comfycontrol, comfycontrol_server):
            assert (await comfycontrol.user.get()).id == comfycontrol_server.user["id"]
    """)
    own = ("-p", "aiohttp.pytest_plugin", "-W", "ignore:aiohttp.pytest_plugin will be removed")
    run(pytester, monkeypatch, *own).assert_outcomes(passed=1)


@pytest.mark.slow
def test_fastapi(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI's synchronous TestClient calls an app that uses the client."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    pytester.makepyfile("""
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        def test_app(comfycontrol, comfycontrol_server):
            app = FastAPI()

            @app.get("/name")
            async def name():
                return (await comfycontrol.user.get()).name

            with TestClient(app) as client:
                assert client.get("/name").json() == comfycontrol_server.user["name"]
    """)
    run(pytester, monkeypatch, "-W", "ignore:Using `httpx` with").assert_outcomes(passed=1)


@pytest.mark.slow
def test_workers(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker of pytest-xdist has its own server."""
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(USES_CLIENT.format(scope="function"))
    result = run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin", "-p", "xdist.plugin", "-n", "2")
    result.assert_outcomes(passed=2)


def test_no_plugin_for_async_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a plugin that runs async tests they fail, with a sentence that says what to do, and others pass.

    A synchronous test may run a loop after the other with one client, beside several servers.
    """
    pytester.makepyfile("""
        import asyncio

        async def test_async(comfycontrol):
            pass

        def test_loops(comfycontrol, comfycontrol_server, comfycontrol_server_factory):
            async def name():
                return (await comfycontrol.user.get()).name

            assert asyncio.run(name()) == asyncio.run(name())
            assert len(comfycontrol_server.requests) == 2
            other = comfycontrol_server_factory(limit=3)
            assert (other.limit, other.requests) == (3, [])
    """)
    result = run(pytester, monkeypatch)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*no plugin runs this async test: install comfycontrol-async?testing?*"])


def test_recipe(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests in the plugin's docstring do what it says, in a second."""
    recipe = (pytest_plugin.__doc__ or "").split("\n\n")
    tests = [block for block in recipe if block.startswith("    @pytest")]
    assert len(tests) == 2
    imports = "import pytest\nfrom comfycontrol_async import WorkflowFailedError\n"
    imports += "from comfycontrol_async.testing import Failure\n\n"
    pytester.makepyfile(imports + "\n\n".join(textwrap.dedent(test) for test in tests))
    (pytester.path / "poster.json").write_text(json.dumps(GRAPH))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=2)
