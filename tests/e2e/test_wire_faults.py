"""Faults x calls: each call ends in the right value or an error of ours, within its bound, and makes nothing twice."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from comfycontrol_async import ComfyControl, ComfyControlError, LocalLimiter, RetryPolicy, Timeouts
from support import documented
from support.graphs import GRAPH
from support.services import TOKEN
from support.wire_faults import FAULTS, ID, FaultyServer, faulty_server

# Seconds; so short that two attempts and a half-read body end soon, and the bound beyond which a call hangs.
TIMEOUTS = Timeouts(connect=2.0, read=0.3, total=0.6)
BOUND = 20.0
RUNNER = documented.RUNNER["id"]

Call = Callable[[ComfyControl], Awaitable[Any]]


async def subscribe(comfy: ComfyControl) -> Any:
    """Follow a workflow over one stream."""
    return [update.status async for update in comfy.workflows.subscribe(ID)]


async def page(comfy: ComfyControl) -> Any:
    """List workflows."""
    return [item.id for item in (await comfy.workflows.list().page(1)).items]


async def outputs(comfy: ComfyControl) -> Any:
    """Fetch outputs."""
    return [output.id for output in await comfy.workflows.outputs(ID)]


async def id_of(call: Awaitable[Any]) -> Any:
    """Return the id of what a call returns."""
    return (await call).id


# How the API is called, and the right value. Those that make something come last.
CALLS: dict[str, tuple[Call, Any]] = {
    "get": (lambda c: id_of(c.user.get()), documented.USER["id"]),
    "list": (page, [documented.ACCEPTED["id"]]),
    "put": (lambda c: id_of(c.runners.update(RUNNER, name="n")), RUNNER),
    "outputs": (outputs, ["1"]),
    "cancel": (lambda c: c.workflows.cancel(ID), None),
    "stream": (subscribe, ["completed"]),
    "raw": (lambda c: c.request("GET", "/v1/user"), documented.USER),
    "create": (lambda c: id_of(c.workflows.create(GRAPH, name="n")), documented.ACCEPTED["id"]),
    "rerun": (lambda c: id_of(c.workflows.rerun(ID)), documented.ACCEPTED["id"]),
}


def client(url: str, *, patient: bool = False) -> ComfyControl:
    """Make a client that tries twice and is soon done, or one that has time on a busy machine too."""
    return ComfyControl(
        TOKEN,
        base_url=url,
        limiter=LocalLimiter(1000, 0.05),
        retry=RetryPolicy(attempts=8 if patient else 2, base_delay=0.0, max_elapsed=BOUND if patient else 1.0),
        timeouts=Timeouts(read=1.0, total=2.0) if patient else TIMEOUTS,
    )


async def judge(server: FaultyServer, label: str, name: str) -> str:
    """Make a call that meets a fault, and return what is wrong with how it ends; "" for nothing."""
    call, right = CALLS[name]
    async with client(f"{server.url}/{label}") as comfy:
        try:
            value = await asyncio.wait_for(call(comfy), BOUND)
        except ComfyControlError as error:
            shown = f"{error} {error!r} {error.__cause__!r}"
            verdict = "shows the token" if TOKEN in shown else "" if "\n" not in str(error) else "more than a line"
        except TimeoutError:
            verdict = f"goes on after {BOUND} s"
        except Exception as error:
            verdict = f"a raw error: {error!r}"
        else:
            # What any JSON is, `request` returns; a stream that ends early is followed up by who reads it.
            believed = value == right or name == "raw" or (name == "stream" and value == [])
            # Of what has no items a list is empty; and the id that a new workflow gets is not known before.
            believed = believed or (name in ("list", "outputs") and value == [])
            believed = believed or (name in ("create", "rerun") and label.startswith("about-another"))
            verdict = "" if believed else f"a wrong value: {value!r}"
    made = server.made[label]
    return f"made {made} times" if made > 1 and name in ("create", "rerun") else verdict


def test_how_many() -> None:
    """The matrix is as large as it is said to be."""
    assert len(FAULTS) >= 60
    assert len(CALLS) == 9


# The quick suite has what may be sent again and what may not; the others are slow for their number alone.
QUICK = {("get", False), ("create", False), ("create", True)}
MATRIX = [
    pytest.param(
        name,
        lasting,
        id=f"{name}-{'always' if lasting else 'once'}",
        marks=[] if (name, lasting) in QUICK else pytest.mark.slow,
    )
    for name in CALLS
    for lasting in (False, True)
]


@pytest.mark.parametrize(("name", "lasting"), MATRIX)
async def test_matrix(name: str, lasting: bool) -> None:
    """Every fault at once, each with a client of its own: one that passes, and one that lasts."""
    async with faulty_server() as server:
        labels = [fault + "*" * lasting for fault in FAULTS]
        verdicts = await asyncio.gather(*(judge(server, label, name) for label in labels))
    assert {label: verdict for label, verdict in zip(labels, verdicts, strict=True) if verdict} == {}


# What passes: of these faults a call that may be repeated notices nothing.
_PASSING = ("closed", "reset", "silence", "never-read", "100", "102", "103", "half", "408", "425", "429", "50", "52")
PASSING = [name for name in FAULTS if name.startswith(_PASSING)]


@pytest.mark.parametrize(
    "name", ["get", *(pytest.param(it, marks=pytest.mark.slow) for it in ("list", "put", "outputs", "raw"))]
)
async def test_what_passes(name: str) -> None:
    """A fault that passes does not reach who calls, when the request may be sent again."""
    call, right = CALLS[name]

    async def value_of(fault: str) -> Any:
        async with client(f"{server.url}/{fault}", patient=True) as comfy:
            try:
                return await asyncio.wait_for(call(comfy), BOUND)
            except ComfyControlError as error:
                return repr(error)

    async with faulty_server() as server:
        values = await asyncio.gather(*(value_of(fault) for fault in PASSING))
    assert {fault: value for fault, value in zip(PASSING, values, strict=True) if value != right} == {}


async def test_an_answer_that_nobody_asked_for() -> None:
    """A second answer on a kept-alive connection is not taken for the next call's."""
    async with faulty_server() as server, client(f"{server.url}/answered-twice", patient=True) as comfy:
        assert (await comfy.user.get()).id == documented.USER["id"]
        for _ in range(3):
            await asyncio.sleep(0.01)
            assert (await comfy.user.get()).id == documented.USER["id"]
            assert await id_of(comfy.workflows.create(GRAPH, name="n")) == documented.ACCEPTED["id"]
