"""Programs without a `limiter=` share one budget: one after another, at once, and the command line too."""

import asyncio
import sys
from pathlib import Path

import pytest

from comfycontrol_async.testing import LocalServer

LIMIT = 10
PROGRAM = """
import asyncio
from comfycontrol_async import ComfyControl

async def main():
    async with ComfyControl() as comfy:
        for _ in range(8):
            await comfy.user.get()

asyncio.run(main())
"""
LIBRARY = ["-c", PROGRAM]
COMMAND_LINE = ["-m", "comfycontrol_async", "whoami"]


@pytest.mark.parametrize(
    "at_once", [pytest.param(False, marks=pytest.mark.slow), True], ids=["one after another", "at once"]
)
async def test_no_429(tmp_path: Path, at_once: bool) -> None:
    """No program gets a 429, although each alone uses nearly all of the budget."""
    async with LocalServer(limit=LIMIT, period=1.0, cooldown=1.0) as server:
        environment = {
            "COMFYCONTROL_API_TOKEN": server.token,
            "COMFYCONTROL_BASE_URL": server.url,
            "COMFYCONTROL_LIMITER": f"file?limit={LIMIT}&period=1",
            "XDG_CACHE_HOME": str(tmp_path),
            "PYTHONPATH": ":".join(sys.path),
            "PATH": "",
        }

        async def run(arguments: list[str]) -> None:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                env=environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()

        programs = [LIBRARY, LIBRARY, COMMAND_LINE]
        if at_once:
            await asyncio.gather(*map(run, programs))
        else:
            for program in programs:
                await run(program)
        assert server.refused == 0
        assert server.max_in_window <= LIMIT
        assert len(server.requests) == 17
    assert len(list((tmp_path / "comfycontrol").iterdir())) == 1  # the test is over
