"""The pytest plugin, run in a pytest of its own."""

import pytest

pytest_plugins = ["pytester"]

USES_SERVER = """
    import pytest

    {mark}
    async def test_default(comfycontrol_server):
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
        async def test_nearer(self, comfycontrol_server):
            assert (comfycontrol_server.limit, comfycontrol_server.speed) == (5, 10.0)
"""


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *options: str) -> pytest.RunResult:
    """Run pytest on the files made, with no other plugins than those named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugin = ("-p", "comfycontrol_async.testing.pytest_plugin")
    return pytester.runpytest_subprocess(*options, *plugin, "--strict-markers", "-W", "error", "-p", "no:cacheprovider")


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_server_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The fixture gives a started server, with the options of the nearest markers, in both modes of pytest-asyncio."""
    pytester.makeini(f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(USES_SERVER.format(mark="@pytest.mark.asyncio" if mode == "strict" else ""))
    run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=3)


def test_client_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client fixture talks to the server fixture, with a limiter for the scaled limit."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile("""
        async def test_client(comfycontrol, comfycontrol_server):
            assert (await comfycontrol.user.get()).id == comfycontrol_server.user["id"]
            snapshot = comfycontrol.limiter.snapshot()
            assert (snapshot.limit, snapshot.period) == (comfycontrol_server.limit, comfycontrol_server.period)
    """)
    run(pytester, monkeypatch, "-p", "pytest_asyncio.plugin").assert_outcomes(passed=1)


def test_without_pytest_asyncio(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pytest-asyncio the plugin loads, and tests that need its fixtures are skipped with the reason."""
    pytester.makepyfile(hide="import sys\nsys.modules['pytest_asyncio'] = None\n")
    pytester.syspathinsert()
    pytester.makepyfile("def test_server(comfycontrol_server): pass\ndef test_client(comfycontrol): pass\n")
    result = run(pytester, monkeypatch, "-p", "hide", "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*the fixtures of comfycontrol_async need pytest-asyncio*"])
