"""Events: what callbacks get, that they harm nothing, and that nothing is made when nothing listens."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import attrs
import pytest

from comfycontrol_async import (
    ComfyControl,
    InvalidArgumentError,
    LocalLimiter,
    NotFoundError,
    Priority,
    RetryPolicy,
    ServerError,
    events,
)
from comfycontrol_async._http import _call, _hooks
from comfycontrol_async._http._hooks import Hooks
from comfycontrol_async.events import (
    BudgetWait,
    CallFinished,
    CallStarted,
    CooldownEnded,
    CooldownStarted,
    RequestFinished,
    RetryScheduled,
)
from support import documented
from support.scripted import BASE_URL, TOKEN, ScriptedApi

EVERY: tuple[type[Any], ...] = (
    CallStarted,
    RequestFinished,
    RetryScheduled,
    CallFinished,
    BudgetWait,
    CooldownStarted,
    CooldownEnded,
)


def listen(comfy: ComfyControl, *classes: type[Any]) -> list[Any]:
    """Collect the events of these classes."""
    seen: list[Any] = []
    for cls in classes or EVERY:
        comfy.on(cls, seen.append)
    return seen


# What is told


async def test_a_success(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A call that succeeds at once: it starts, its one attempt ends, it ends."""
    api.answer("GET", "/v1/user", documented.USER, headers={"cf-ray": "ray-1"})
    seen = listen(comfy)
    await comfy.user.get()
    started, attempt, finished = seen
    assert started == CallStarted(method="GET", path="/v1/user")
    assert (attempt.method, attempt.path, attempt.status, attempt.error) == ("GET", "/v1/user", 200, None)
    assert (attempt.attempt, attempt.request_id) == (1, "ray-1")
    assert (finished.status, finished.error, finished.attempts, finished.request_id) == (200, None, 1, "ray-1")
    assert 0.0 <= attempt.seconds <= finished.seconds
    assert attempt.limiter_wait == finished.limiter_wait >= 0.0


async def test_a_retry(api: ScriptedApi, comfy: ComfyControl) -> None:
    """Each attempt is told with its error, and the pause after it."""
    api.answer("GET", "/v1/user", {"message": "broken"}, status=503)
    api.answer("GET", "/v1/user", documented.USER)
    seen = listen(comfy)
    await comfy.user.get()
    assert [type(event) for event in seen] == [
        CallStarted,
        RequestFinished,
        RetryScheduled,
        RequestFinished,
        CallFinished,
    ]
    first, again, second, finished = seen[1:]
    assert (first.status, type(first.error), first.attempt) == (503, ServerError, 1)
    assert (again.status, again.error, again.attempt, again.delay) == (503, first.error, 1, 0.0)
    assert (second.status, second.error, second.attempt) == (200, None, 2)
    assert finished.attempts == 2


async def test_a_failure(api: ScriptedApi, comfy: ComfyControl) -> None:
    """What the call raises is the error of its end."""
    api.answer("GET", "/v1/user", {"message": "no"}, status=404, headers={"cf-ray": "ray-2"})
    seen = listen(comfy, CallFinished)
    with pytest.raises(NotFoundError) as caught:
        await comfy.user.get()
    assert [(event.error, event.status, event.request_id) for event in seen] == [(caught.value, 404, "ray-2")]


async def test_a_cancelled_call(api: ScriptedApi, comfy: ComfyControl) -> None:
    """A call that is cancelled ends too."""
    waiting = api.hold("GET", "/v1/user")
    seen = listen(comfy, RequestFinished, CallFinished)
    task = asyncio.ensure_future(comfy.user.get())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(event.error) for event in seen] == [asyncio.CancelledError] * 2


async def test_the_gate(api: ScriptedApi) -> None:
    """One 429: the cooldown begins once, and ends with the next grant."""
    api.answer("GET", "/v1/user", status=429)
    api.answer("GET", "/v1/user", documented.USER, times=2)
    async with ComfyControl(TOKEN, base_url=BASE_URL, limiter=LocalLimiter(1000, 0.05)) as comfy:
        seen = listen(comfy, CooldownStarted, CooldownEnded, RetryScheduled)
        await asyncio.gather(comfy.user.get(), comfy.user.get())
    assert [type(event) for event in seen] == [CooldownStarted, RetryScheduled, CooldownEnded]
    assert 0.0 < seen[0].seconds <= 0.05
    assert seen[1].delay == 0.0


async def test_a_long_wait(api: ScriptedApi) -> None:
    """A request that begins to wait for a second or more is told, with the estimate."""
    api.answer("GET", "/v1/user", documented.USER)
    async with ComfyControl(TOKEN, base_url=BASE_URL, limiter=LocalLimiter(1, 60.0)) as comfy:
        seen = listen(comfy, BudgetWait)
        await comfy.user.get()
        assert seen == []
        waiting = asyncio.ensure_future(comfy.with_options(priority=Priority.BULK).user.get())
        await asyncio.sleep(0)
        waiting.cancel()
    (event,) = seen
    assert event.seconds == pytest.approx(60.0, abs=1.0)
    assert event.priority is Priority.BULK


# Listening


async def test_siblings_share_callbacks_and_unsubscribing(api: ScriptedApi, comfy: ComfyControl) -> None:
    """What is registered at a client hears its siblings, until it is unsubscribed, any number of times."""
    api.answer("GET", "/v1/user", documented.USER, times=3)
    seen: list[Any] = []
    first, second = comfy.on(CallStarted, seen.append), comfy.on(CallStarted, seen.append)
    await comfy.with_options(timeouts=5).user.get()
    assert len(seen) == 2
    first()
    first()
    await comfy.user.get()
    assert len(seen) == 3
    second()
    await comfy.user.get()
    assert len(seen) == 3


async def test_nothing_is_made_when_nothing_listens(
    api: ScriptedApi, comfy: ComfyControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without callbacks no event is made, and the limiter is not asked for its state."""
    api.answer("GET", "/v1/user", status=429)
    api.answer("GET", "/v1/user", documented.USER)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("made though nothing listens")

    for module in (_call, _hooks):
        for cls in EVERY:
            if hasattr(module, cls.__name__):
                monkeypatch.setattr(module, cls.__name__, type(cls.__name__, (), {"__init__": fail}))
    monkeypatch.setattr(LocalLimiter, "snapshot", fail)
    await asyncio.wait_for(comfy.user.get(), 10)


@pytest.mark.parametrize(
    ("event_class", "callback", "text"),
    [
        pytest.param(str, print, "an event class is one of CallStarted, ", id="class"),
        pytest.param("CallStarted", print, "not 'CallStarted'", id="name"),
        pytest.param(CallStarted, "print", "a callback is a function", id="callback"),
    ],
)
def test_refused(event_class: Any, callback: Any, text: str) -> None:
    """What is no event class or cannot be called is refused at once."""
    with pytest.raises(InvalidArgumentError, match=text):
        Hooks().on(event_class, callback)


def test_event_classes() -> None:
    """Every class of the module can be listened to, and is a frozen value with slots."""
    assert set(_hooks._CLASSES) == {value for value in vars(events).values() if attrs.has(value)}
    for cls in _hooks._CLASSES:
        Hooks().on(cls, print)
        assert "__dict__" not in dir(cls)


# Callbacks that misbehave


@pytest.mark.parametrize("error", [ValueError("boom"), asyncio.CancelledError(), GeneratorExit()], ids=repr)
async def test_a_callback_that_fails(
    api: ScriptedApi, comfy: ComfyControl, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """It is logged, and neither the call nor the callback beside it notices."""
    api.answer("GET", "/v1/user", documented.USER)

    def fail(_: object) -> None:
        raise error

    comfy.on(CallStarted, fail)
    seen = listen(comfy, CallStarted)
    assert (await comfy.user.get()).id
    assert len(seen) == 1
    assert [record.getMessage() for record in caplog.records if record.name.endswith(".events")] == [
        "a callback for CallStarted failed"
    ]


async def test_coroutine_callbacks(api: ScriptedApi, caplog: pytest.LogCaptureFixture) -> None:
    """They run as tasks beside the call; what fails is logged, and closing waits for the rest."""
    api.answer("GET", "/v1/user", documented.USER)
    done: list[str] = []

    async def note(event: CallStarted) -> None:
        await asyncio.sleep(0.01)
        done.append(event.path)

    async def fail(_: CallStarted) -> None:
        raise ValueError("boom")

    async with ComfyControl(TOKEN, base_url=BASE_URL, limiter=LocalLimiter()) as comfy:
        comfy.on(CallStarted, note)
        comfy.on(CallStarted, fail)
        await comfy.user.get()
        assert done == []
    assert done == ["/v1/user"]
    assert "a coroutine callback failed" in caplog.text


async def test_pending_callbacks_are_bounded(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many may be pending; more are dropped, said once; closing cancels what does not end in time."""
    monkeypatch.setattr(_hooks, "_LAST_WAIT", 0.01)
    hooks = Hooks()
    started = 0

    async def hang(_: object) -> None:
        nonlocal started
        started += 1
        await asyncio.Event().wait()

    hooks.on(CooldownEnded, hang)
    before = asyncio.all_tasks()
    for _ in range(1200):
        hooks.emit(CooldownEnded())
    await asyncio.sleep(0)
    assert started == 1000
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    await hooks.aclose()
    assert asyncio.all_tasks() == before


async def test_stubborn_callback(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing ends although a callback does not end when it is cancelled, and says so."""
    monkeypatch.setattr(_hooks, "_LAST_WAIT", 0.01)
    hooks = Hooks()
    free = asyncio.Event()

    async def stay(_: object) -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()

    hooks.on(CooldownEnded, stay)
    hooks.emit(CooldownEnded())
    async with asyncio.timeout(5):
        await hooks.aclose()
    assert "1 coroutine callbacks do not end" in caplog.text
    free.set()


async def test_a_callback_may_close_the_client() -> None:
    """Closing from a coroutine callback does not wait for itself."""
    hooks = Hooks()
    closed = asyncio.Event()

    async def close(_: object) -> None:
        await hooks.aclose()
        closed.set()

    hooks.on(CooldownEnded, close)
    hooks.emit(CooldownEnded())
    await asyncio.wait_for(closed.wait(), 5)


async def test_cancelled_while_closing() -> None:
    """A close that is cancelled leaves the callbacks to end by themselves."""
    hooks = Hooks()
    free = asyncio.Event()

    async def wait(_: object) -> None:
        await free.wait()

    hooks.on(CooldownEnded, wait)
    hooks.emit(CooldownEnded())
    closing = asyncio.ensure_future(hooks.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    free.set()


async def test_retries_are_not_told_twice(
    api: ScriptedApi, comfy: ComfyControl, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log a retry is one line at INFO, and a 429 is the limiter's line alone."""
    comfy = comfy.with_options(retry=RetryPolicy(base_delay=0.0))
    api.answer("GET", "/v1/user", status=503)
    api.answer("GET", "/v1/user", status=429)
    api.answer("GET", "/v1/user", documented.USER)
    with caplog.at_level(logging.INFO):
        await comfy.user.get()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("comfycontrol_async")]
    assert said == [
        "GET /v1/user: 503; again in 0.00 s",
        "the server refused a request: nothing is sent for 0.1 s",
        "the cooldown is over: requests are sent again",
    ]
