"""The command line in a process of its own: signals, pipes, a terminal, and libraries that are missing."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from comfycontrol_async import ComfyControl
from comfycontrol_async.testing import LocalServer
from support.command_line import ROOT, TXT2IMG, call, ended, errors, line_with, plain_environment, started
from support.fake_comfyui import FakeComfyUI

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT and terminals of POSIX")


@pytest.mark.slow
async def test_demo_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends the demo with 130 and one word."""
    async with started(None, "demo", directory=tmp_path) as process:
        await line_with(process.stderr, "submitted 0/60")
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGINT)
        code, _, err = await ended(process)
    assert code == 130
    assert err.splitlines()[-1] == "interrupted"


async def test_demo_keep(tmp_path: Path) -> None:
    """With --keep the server stays and can be used, until Ctrl-C."""
    async with started(None, "demo", "-n", "1", "--speed", "50", "--keep", directory=tmp_path) as process:
        await use_server(process)
        process.send_signal(signal.SIGINT)
        assert (await ended(process))[0] == 0


async def test_serve() -> None:
    """The server can be used with what it prints; Ctrl-C is its proper end."""
    async with started(None, "serve", "--limit", "7", "--period", "5", "--speed", "2") as process:
        assert "7 requests per 2.5 s" in await line_with(process.stdout, "limit")
        await use_server(process)
        process.send_signal(signal.SIGINT)
        code, _, err = await ended(process)
    assert code == 0
    assert "1 requests, 0 times 429, 0 workflows" in err


async def test_serve_comfyui() -> None:
    """In front of a ComfyUI the server runs what it is sent there; requests are shown, its headers are not."""
    options = ("--no-limit", "--comfyui-header", "X-Pass: very-secret")
    async with (
        FakeComfyUI(headers={"X-Pass": "very-secret"}) as comfyui,
        started(None, "serve", "--comfyui", comfyui.url, *options) as process,
    ):
        token = (await line_with(process.stdout, "export COMFYCONTROL_API_TOKEN=")).partition("=")[2]
        url = (await line_with(process.stdout, "export COMFYCONTROL_BASE_URL=")).partition("=")[2]
        graph = {
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
        }
        async with ComfyControl(token, base_url=url) as comfy:
            run = await comfy.run(graph, timeout=20)
            (file,) = await run.files()
            assert (await file.read()).startswith(b"\x89PNG")
        shown = await line_with(process.stderr, "POST /v1/workflow")
        process.send_signal(signal.SIGINT)
        code, out, err = await ended(process)
    assert code == 0
    assert "201" in shown
    assert "1 workflows" in err
    assert "very-secret" not in out + err


async def use_server(process: asyncio.subprocess.Process) -> None:
    """Make a request with the settings that a process prints for shells."""
    token = (await line_with(process.stdout, "export COMFYCONTROL_API_TOKEN=")).partition("=")[2]
    url = (await line_with(process.stdout, "export COMFYCONTROL_BASE_URL=")).partition("=")[2]
    async with ComfyControl(token, base_url=url) as comfy:
        assert (await comfy.user.get()).name


async def test_serve_without_comfyui() -> None:
    """A ComfyUI that is not there is one line."""
    result = await call(None, "serve", "--comfyui", "http://127.0.0.1:9")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == errors(result)
    assert len(errors(result)) == 1


async def test_serve_port_taken() -> None:
    """A port that is taken is one line."""
    async with LocalServer() as server:
        result = await call(None, "serve", "--port", server.url.rpartition(":")[2])
    assert result.exit_code == 2
    assert not result.stdout
    (line,) = errors(result)
    assert line.startswith("error: cannot listen on 127.0.0.1 port ")


async def test_run_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends the waiting with 130, and tells which workflow goes on."""
    async with LocalServer(duration=1e6) as server, started(server, "run", TXT2IMG, "-p", "prompt=x") as process:
        await line_with(process.stderr, "accepted")
        process.send_signal(signal.SIGINT)
        code, out, err = await ended(process)
        (id,) = server.workflows
        assert server.workflows[id].status != "cancelled"
    assert code == 130
    assert not out
    assert err.splitlines()[-1] == f"interrupted: workflow {id} goes on at the service; comfycontrol get {id}"


async def test_submit_interrupted(tmp_path: Path) -> None:
    """Ctrl-C before the answer says that it may have been created, and under which name."""
    async with LocalServer() as server:
        server.delay_next("POST", "/v1/workflow", 100)
        async with started(server, "run", TXT2IMG, "-p", "prompt=x", "--name", "mine") as process:
            await line_with(process.stderr, "submitting")
            process.send_signal(signal.SIGINT)
            code, _, err = await ended(process)
    assert code == 130
    assert "'mine'" in err.splitlines()[-1]


async def test_demo(tmp_path: Path) -> None:
    """The demo needs neither a token nor an option, and no proxy gets its requests.

    On a terminal the progress is redrawn, and stdout stays free of it.
    """
    terminal, tty = os.openpty()
    colourful = {name: value for name, value in plain_environment().items() if name != "NO_COLOR"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "comfycontrol_async", "demo", "-n", "6", "--speed", "50"),
        stdout=asyncio.subprocess.PIPE,
        stderr=tty,
        cwd=tmp_path,
        env=colourful | {"TERM": "xterm", "PYTHONUTF8": "1", "HTTP_PROXY": "http://127.0.0.1:9"},
    )
    os.close(tty)
    out, _ = await process.communicate()
    shown = os.read(terminal, 65536).decode(errors="replace")  # what is there, cut anywhere
    os.close(terminal)
    assert process.returncode == 0
    assert "\x1b" in shown
    assert "downloaded" in shown
    assert b"\x1b" not in out
    assert b"6 of 6 completed" in out
    assert len(list((tmp_path / "comfycontrol-demo").glob("*.png"))) == 6


@pytest.mark.parametrize("missing", ["typer", "rich"])
async def test_without_extra(missing: str) -> None:
    """Without typer or rich the command line says in one line what to install."""
    code = f"import sys; sys.modules[{missing!r}] = None; from comfycontrol_async.cli import main; main()"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=pipe, stderr=pipe, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    status, out, err = await ended(process)
    assert status == 1
    assert not out
    assert err == f"error: the command line needs {missing}: pip install 'comfycontrol-async[cli]'\n"


async def test_light_import() -> None:
    """The package and the commands' table load neither the server nor rich's progress."""
    code = (
        "import sys, comfycontrol_async; assert 'typer' not in sys.modules and 'rich' not in sys.modules;"
        "import comfycontrol_async.cli._app; heavy = {'aiohttp.web', 'rich.live', 'comfycontrol_async.testing'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    out, _ = await process.communicate()
    assert out == b"[]\n"


STUBBORN = """
import asyncio
from comfycontrol_async.cli._execute import execute
async def work():
    print("begun", flush=True)
    try:
        await asyncio.sleep(1e6)
    finally:
        print("cleaning up", flush=True)
        await asyncio.sleep(1e6)
execute(work())
"""


async def test_interrupted_twice() -> None:
    """The first Ctrl-C lets a command clean up, the second ends the process at once."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUBBORN, stdout=pipe, stderr=pipe, env=plain_environment()
    )
    await line_with(process.stdout, "begun")
    process.send_signal(signal.SIGINT)
    await line_with(process.stdout, "cleaning up")
    process.send_signal(signal.SIGINT)
    code, _, _ = await ended(process)
    assert code == 130


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "--json"),
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in (("whoami",), ("limits",), ("check", TXT2IMG), ("serve",))
        ),
    ],
    ids=" ".join,
)
async def test_stdout_closed_from_the_start(command: tuple[str, ...]) -> None:
    """Where the shell has closed stdout (`>&-`), Python has none: one line says so."""
    async with LocalServer() as server:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "comfycontrol_async", *command),
            stderr=asyncio.subprocess.PIPE,
            env=plain_environment(server),
        )
        _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines() == ["error: cannot write to stdout: it is closed"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("command", ["--version", "-h"])
async def test_stdout_full(command: str) -> None:
    """What typer prints by itself ends in one line too, where the disk is full."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" >/dev/full', "sh", sys.executable, "-m", "comfycontrol_async", command),
        stderr=asyncio.subprocess.PIPE,
        env=plain_environment(),
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines() == ["error: cannot write to stdout: No space left on device"]
