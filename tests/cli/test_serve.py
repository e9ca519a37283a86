"""`comfycontrol serve`: the requests that it shows."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from comfycontrol_async.cli import _serve
from comfycontrol_async.testing import RequestRecord


async def test_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is shown once it is settled: neither a slow one nor a lost one holds up those behind it."""
    told: list[str] = []
    monkeypatch.setattr(_serve, "print_note", told.append)
    monkeypatch.setattr(_serve, "_LOG_EVERY", 0.0)
    records = [RequestRecord(at=1.0, method="GET", path=f"/{name}", query={}, headers={}) for name in "abc"]
    server: Any = SimpleNamespace(requests=records)
    task = asyncio.create_task(_serve._log_requests(server))
    await asyncio.sleep(0)
    records[1].settle(status=200)
    records[2].settle(dropped=True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert told == ["    1.00 s  200  GET /b", "    1.00 s  lost  GET /c"]
    records[0].settle(status=429)
    records.append(RequestRecord(at=2.0, method="PUT", path="/d", query={}, headers={}, status=400))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert told[2:] == ["    1.00 s  429  GET /a", "    2.00 s  400  PUT /d"]
