"""Cancelling for good, on a fake clock."""

import asyncio

import pytest

from comfycontrol_async.errors import ServerError
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.runs._cancel import cancel_for_good
from comfycontrol_async.testing import FakeClock
from support.fake_service import FakeService


async def cancel(service: FakeService, id: str, seconds: float = 60.0) -> WorkflowSummary | None:
    """Cancel a workflow while time passes."""
    task = asyncio.ensure_future(cancel_for_good(service.resource(), id, service.clock))
    await service.clock.advance(seconds)
    assert service.clock.timers == 0
    return await task


@pytest.fixture
def service() -> FakeService:
    """Make a service."""
    return FakeService(FakeClock(), latency=0.05)


async def test_running(service: FakeService) -> None:
    """One that runs is cancelled by one request."""
    id = service.add(1000.0)
    assert await cancel(service, id) is None
    assert service.asked == [f"POST /v1/workflow/{id}/cancel"]
    assert service.status(service.records[id]) == "cancelled"


async def test_not_queued_yet(service: FakeService) -> None:
    """One that cannot be cancelled yet is cancelled as soon as it can be."""
    service.early, service.queued = 12.0, 100.0
    id = service.add(1000.0)
    assert await cancel(service, id) is None
    assert service.status(service.records[id]) == "cancelled"
    assert service.records[id].ends - service.records[id].created <= 13.5


async def test_never_queued(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """After 30 s it is logged as going on."""
    service.early = 1000.0
    id = service.add(2000.0)
    assert await cancel(service, id) is None
    assert f"workflow {id} could not be cancelled in 30 s: it goes on at the service" in caplog.text


@pytest.mark.parametrize("outcome", ["completed", "failed"])
async def test_over(service: FakeService, outcome: str) -> None:
    """One that has ended is returned as it ended."""
    ended = await cancel(service, service.add(0.0, outcome))
    assert ended is not None
    assert ended.status == outcome


async def test_slow(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that take for ever are bounded by the same 30 s."""
    service.latency = 1000.0
    assert await cancel(service, service.add(5000.0), 31.0) is None
    assert "could not be cancelled in 30 s" in caplog.text


async def test_fails(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:
    """When it cannot be asked for, that is logged, and raises nothing."""

    def fault(line: str) -> None:
        raise ServerError(503, "down")

    service.fault = fault
    assert await cancel(service, service.add(1000.0)) is None
    assert "it goes on at the service" in caplog.text
