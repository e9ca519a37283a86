"""Who goes first: each request says what it does to the work behind it, and the pipeline passes that on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import pytest

from comfycontrol_async import ComfyControl, ComfyControlError, LocalLimiter, Permit, Priority, RateLimitSnapshot, Stage
from support.scripted import BASE_URL, TOKEN

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {}}}
ID = "550e8400-e29b-41d4-a716-446655440000"

CALLS: dict[str, tuple[Callable[[ComfyControl], Coroutine[Any, Any, Any]], Priority, Stage]] = {
    "cancel": (lambda comfy: comfy.workflows.cancel(ID), Priority.INTERACTIVE, Stage.CANCEL),
    "cancel of a run": (lambda comfy: comfy.get_run(ID).cancel(), Priority.INTERACTIVE, Stage.CANCEL),
    "interrupt": (lambda comfy: comfy.runners.interrupt(ID), Priority.INTERACTIVE, Stage.CANCEL),
    "outputs": (lambda comfy: comfy.workflows.outputs(ID), Priority.NORMAL, Stage.FINISH),
    "one workflow": (lambda comfy: comfy.workflows.get(ID), Priority.NORMAL, Stage.FINISH),
    "subscribe": (lambda comfy: anext(comfy.workflows.subscribe(ID)), Priority.NORMAL, Stage.FINISH),
    "create": (lambda comfy: comfy.workflows.create(GRAPH, name="a"), Priority.NORMAL, Stage.CREATE),
    "rerun": (lambda comfy: comfy.workflows.rerun(ID), Priority.NORMAL, Stage.CREATE),
    "listing": (lambda comfy: comfy.workflows.list().first(), Priority.NORMAL, Stage.OTHER),
    "user": (lambda comfy: comfy.user.get(), Priority.NORMAL, Stage.OTHER),
}


class EnoughError(ComfyControlError):
    """The limiter has seen what the test wants to know."""


@attrs.define
class Recorder:
    """A limiter by another author that grants nothing, and knows of no stages."""

    seen: list[tuple[Priority, Stage | None]] = attrs.field(factory=list)

    async def acquire(self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None) -> Permit:
        """Record who asks."""
        self.seen.append((priority, None))
        raise EnoughError

    def cool_down(self, seconds: float) -> None:
        """Do nothing."""

    def snapshot(self) -> RateLimitSnapshot:
        """Return the state of an unused limiter."""
        return LocalLimiter().snapshot()


class StageRecorder(Recorder):
    """One that knows of stages."""

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: Stage | None = None
    ) -> Permit:
        """Record who asks for what."""
        self.seen.append((priority, stage))
        raise EnoughError


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [Recorder, StageRecorder], ids=["no stages", "stages"])
async def test_stage(name: str, kind: type[Recorder]) -> None:
    """Cancels go in the highest lane; a limiter whose `acquire` takes no stage is called without it."""
    call, priority, stage = CALLS[name]
    limiter = kind()
    given: Any = limiter  # that of no stages is not what the type asks for
    async with ComfyControl(TOKEN, base_url=BASE_URL, limiter=given) as comfy:
        with pytest.raises(EnoughError):
            await asyncio.wait_for(call(comfy), 5.0)
    assert limiter.seen == [(priority, stage if kind is StageRecorder else None)]
