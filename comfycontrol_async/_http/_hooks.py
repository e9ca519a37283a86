"""Hooks: the callbacks of a client, and how an event reaches them without harm to the call that it comes from."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args

from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.events import BudgetWait, CooldownEnded, CooldownStarted, Event
from comfycontrol_async.limits import Priority, RateLimitSnapshot

log = logging.getLogger("comfycontrol_async.events")

E = TypeVar("E", bound=Event)

_CLASSES: tuple[type[Event], ...] = get_args(Event)
# Coroutine callbacks that have not ended; more are dropped.
_MOST_PENDING = 1000
# Seconds for which closing waits for them.
_LAST_WAIT = 1.0
# Seconds from which a wait for the rate limit is worth an event.
_LONG_WAIT = 1.0


class Hooks:
    """The callbacks of a client and its siblings, by event class."""

    def __init__(self) -> None:
        # Empty when nothing listens: then nothing is asked and nothing made.
        self.callbacks: dict[type, list[Callable[[Any], object]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._dropped = False
        self._cooling = False

    def on(self, event_class: type[E], callback: Callable[[E], object]) -> Callable[[], None]:
        """Call `callback` with every event of this class; return a function that ends that.

        Raises:
            InvalidArgumentError: it is no class of `comfycontrol_async.events`, or the callback cannot be called.
        """
        if event_class not in _CLASSES:
            names = ", ".join(cls.__name__ for cls in _CLASSES)
            raise InvalidArgumentError(f"an event class is one of {names}, not {event_class!r}")
        if not callable(callback):
            raise InvalidArgumentError(f"a callback is a function of the event, not {callback!r}")

        def call(event: Any) -> object:  # of its own: one function may be given twice
            return callback(event)

        self.callbacks.setdefault(event_class, []).append(call)

        def unsubscribe() -> None:
            listening = self.callbacks.get(event_class, [])
            if call in listening:
                listening.remove(call)
            if not listening:
                self.callbacks.pop(event_class, None)

        return unsubscribe

    def wants(self, event_class: type[Event]) -> bool:
        """Return True if anything listens for this class; else its events need not be made."""
        return event_class in self.callbacks

    def emit(self, event: Event) -> None:
        """Call what listens for the event's class. Never raises: a callback that fails is logged."""
        for callback in tuple(self.callbacks.get(type(event), ())):
            try:
                result = callback(event)
                if inspect.isawaitable(result):
                    self._start(result)
            except (Exception, asyncio.CancelledError, GeneratorExit):
                log.exception("a callback for %s failed", type(event).__name__)

    def waiting(self, snapshot: Callable[[], RateLimitSnapshot], priority: Priority) -> None:
        """Report a request that is about to ask the limiter, if it will have to wait."""
        if not (self.wants(BudgetWait) or self.watches_gate):
            return
        state = snapshot()
        if state.cooldown > 0.0:
            self.refused(state.cooldown)
        if state.next_free_in >= _LONG_WAIT and self.wants(BudgetWait):
            self.emit(BudgetWait(seconds=state.next_free_in, priority=priority))

    @property
    def watches_gate(self) -> bool:
        """Whether anything listens for the gate that a 429 closes."""
        return self.wants(CooldownStarted) or self.wants(CooldownEnded)

    def refused(self, seconds: float) -> None:
        """Report a gate that is closed for `seconds`; once, however many requests meet it."""
        if not self._cooling and self.watches_gate:
            self._cooling = True
            self.emit(CooldownStarted(seconds=seconds))

    def granted(self) -> None:
        """Report that the gate is open, if it was reported as closed."""
        if self._cooling:
            self._cooling = False
            self.emit(CooldownEnded())

    async def aclose(self) -> None:
        """Wait a second for coroutine callbacks, cancel them, and leave behind what does not end even then."""
        tasks = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()} - {
            asyncio.current_task()  # a callback may close the client
        }
        self._tasks.clear()
        for _ in range(2):
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=_LAST_WAIT)
            for task in tasks:
                task.cancel()
        if tasks:
            log.warning("%d coroutine callbacks do not end when they are cancelled: they are left behind", len(tasks))

    def _start(self, result: Awaitable[object]) -> None:
        if len(self._tasks) >= _MOST_PENDING:
            if not self._dropped:
                self._dropped = True
                log.warning("%d coroutine callbacks are pending: events are dropped", _MOST_PENDING)
            if inspect.iscoroutine(result):
                result.close()
            return
        task = asyncio.get_running_loop().create_task(_finish(result), name="comfycontrol callback")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _finish(result: Awaitable[object]) -> None:
    try:
        await result
    except Exception:
        log.exception("a coroutine callback failed")
