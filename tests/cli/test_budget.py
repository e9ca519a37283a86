"""The budget that the runs of the command line share."""

import os
from pathlib import Path

import pytest

from comfycontrol_async.limits.file import FileLimiter
from comfycontrol_async.testing import LocalServer
from support.command_line import call


def budgets(cache: Path) -> list[Path]:
    """List the files that hold a budget."""
    return sorted((cache / "comfycontrol").glob("*.slots"))


async def test_second_run_knows_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run has sent counts for the next; another server has another budget."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    async with LocalServer() as server:
        for _ in range(2):
            assert (await call(server, "whoami")).exit_code == 0
    (file,) = budgets(tmp_path)
    assert FileLimiter(file).snapshot().used == 2
    async with LocalServer() as other:
        assert (await call(other, "whoami")).exit_code == 0
    assert len(budgets(tmp_path)) == 2


async def test_no_place_for_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be, the command works all the same, with a budget of its process."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    async with LocalServer() as server:
        assert (await call(server, "whoami")).exit_code == 0
        assert "used      1 of 40" in (await call(server, "limits")).stdout
