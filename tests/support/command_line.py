"""How the tests of the command line run it: in this process, or in one of its own."""

import asyncio
import functools
import inspect
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import typer.testing
from typer.testing import CliRunner, Result

from comfycontrol_async.cli._app import app
from comfycontrol_async.testing import LocalServer, read_png_text

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / "tests" / "data" / "workflows"
TXT2IMG = str(WORKFLOWS / "sd01_txt2img.template.json")
BLEND = str(WORKFLOWS / "mf03_load_blend.template.json")
UI_FORMAT = str(WORKFLOWS / "ui_format_export.json")
# Before click 8.2 the two streams were one unless asked for.
APART: Any = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}
# The runner would build the commands for each call, which takes longer than most of them.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined] # not exported


def environment(server: LocalServer | None = None) -> dict[str, str | None]:
    """Return what the command line finds in its environment."""
    plain: dict[str, str | None] = {"COLUMNS": "200", "NO_COLOR": "1", "FORCE_COLOR": None, "GITHUB_ACTIONS": None}
    if server is not None:
        plain |= {"COMFYCONTROL_API_TOKEN": server.token, "COMFYCONTROL_BASE_URL": server.url}
    return plain


async def call(server: LocalServer | None, *args: str) -> Result:
    """Run a command in a thread of this process, since the server has this one's loop."""
    runner = CliRunner(**APART)
    return await asyncio.to_thread(runner.invoke, app, list(args), env=environment(server), prog_name="comfycontrol")


def errors(result: Result) -> list[str]:
    """Return the lines of stderr that are errors, having made sure that there is no traceback."""
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


def listed(directory: Path) -> list[Path]:
    """Return what is in a directory, in order."""
    return sorted(directory.iterdir())


def graph_of(path: Path) -> Any:
    """Return the graph that an image carries."""
    return json.loads(read_png_text(path.read_bytes())["prompt"])


@asynccontextmanager
async def started(
    server: LocalServer | None, *args: str, directory: Path | None = None, **extra: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command as people do, in a process of its own, which is killed if it is still there at the end."""
    wanted = {key: value for key, value in environment(server).items() if value is not None}
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "GITHUB_ACTIONS")}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "comfycontrol_async", *args),
        stdout=pipe,
        stderr=pipe,
        cwd=directory,
        env=kept | wanted | {"PYTHONPATH": str(ROOT)} | extra,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(stream: asyncio.StreamReader | None, text: str) -> str:
    """Return the next line of a stream that holds `text`."""
    assert stream is not None
    while line := (await stream.readline()).decode():
        if text in line:
            return line.rstrip("\n")
    raise AssertionError(f"the stream ended without {text!r}")


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Wait for a process and return its exit code and what was left of its output."""
    out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


def plain_environment(server: LocalServer | None = None) -> dict[str, str]:
    """Return an environment for a process of its own: this one's, with the settings of `environment`."""
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "GITHUB_ACTIONS")}
    wanted = {key: value for key, value in environment(server).items() if value is not None}
    return kept | wanted | {"PYTHONPATH": str(ROOT)}
