"""RedisStore: slots that a server keeps which has to be asked for them: when it is asked, what is done without it.

`take` gives what the last answer brought and asks for the rest: one question at a time, for all waiters together, and
each question says what became of the slots that were had before. In numbers, limit 40: 30 tasks want slots at 0.0, one
question goes out, its answer brings 30 at 0.001; their requests are answered at 0.2, and the question that asks for the
next slots says so. While no task waits that is said within 0.05 s.

Whatever goes wrong with a question but the lack of rights and another rule counts as "the server is gone", until a
question is answered. What a question that failed may have taken is given back by the next one.
"""

import asyncio
import logging
import math
import secrets
from collections.abc import Callable
from typing import Literal, Protocol

from comfycontrol_async._clock import Clock, Timer
from comfycontrol_async.errors import ComfyControlError, ConfigurationError, ConnectionFailedError
from comfycontrol_async.limits._known import Known
from comfycontrol_async.limits._pacing import NEVER
from comfycontrol_async.limits._question import KEEP, Answer, Question
from comfycontrol_async.limits._rule import LEASE, LOST_TAIL, Rule
from comfycontrol_async.limits._store import BudgetState, Slot, Taken

log = logging.getLogger("comfycontrol_async.limits")

Policy = Literal["local", "wait", "raise"]

# Seconds within which the server is told what became of requests, while no task waits for slots. While one does, the
# next question says it: how long ago it was goes with it, so being late costs nothing.
_TELL_SOON = 0.05
# Seconds between two questions at the least, unless a slot was refunded.
_SHORTEST = 0.001
# Seconds between two tries to reach a server that is gone.
_RETRY = 1.0

_CONSEQUENCE = {
    "local": "this process goes on with its share of the budget",
    "wait": "requests wait until it is back",
    "raise": "requests are refused until it is back",
}


class ServerGoneError(Exception):
    """The server gave no answer that can be used; the next one may."""


class Server(Protocol):
    """The server that keeps the slots; it answers within `timeout` seconds or not at all."""

    timeout: float

    def open(self, on_close: Callable[[], None]) -> None:
        """Get ready for the running loop, and call `on_close` before it ends; raises ConfigurationError."""

    async def close(self) -> None:
        """Close the connection; raises nothing."""

    def forget(self) -> None:
        """Let go of a connection that is the parent's."""

    async def ask(self, question: Question) -> Answer:
        """Run `acquire.lua`; raises ServerGoneError, whatever the cause, or ConfigurationError."""
        ...


class RedisStore:
    """The store (`SlotStore`). A slot is the number of a grant under this process's name, and never used twice.

    While the server is gone and `policy` is "local", `share` slots are this process's own.
    """

    def __init__(self, rule: Rule, clock: Clock, server: Server, policy: Policy, share: int) -> None:
        self._rule = rule
        self._clock = clock
        self._server = server
        self._policy = policy
        self._share = share
        self._every = min(_RETRY, rule.period / 4)
        # How many numbers were given to slots; it goes on in a forked child, so that none is used twice.
        self._numbered = 0
        self._start_over()

    def _start_over(self) -> None:
        """Know nothing of the server, and take a name that it has not heard before."""
        self._name = secrets.token_hex(6)
        self._wake: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._tell_at = math.inf
        # Whether a question is about to be sent or was, and which.
        self._asking = False
        self._question: Question | None = None
        # How many slots are wanted, from when on to ask for them, and whether one was refunded since the last question.
        self._wanted = 0
        self._ask_at = -math.inf
        self._refunded = False
        # What the server does not know: until when our slots are taken and whether that is the last word, a cooldown,
        # that no task waits any more.
        self._news: dict[Slot, tuple[float, bool]] = {}
        self._untold_gate = NEVER
        self._registered = False
        # What the last answer brought: slots and the end of their lease, or an error for all waiters.
        self._brought: list[Slot] = []
        self._lease = math.inf
        self._error: ComfyControlError | None = None
        self._known = Known(self._rule, self._share)
        self._asked_at = -math.inf
        # When the last question failed, if it did.
        self._failed_at: float | None = None

    def _open(self) -> None:
        self._server.open(self._on_close)
        self._loop = asyncio.get_running_loop()

    def _on_close(self) -> None:
        """Ask nothing more, as the loop ends or the limiter was closed; unless slots are wanted again."""
        self._stop_timer()
        self._loop = None
        if self._task is not None:
            self._task.cancel()

    # The store

    def attach(self, wake: Callable[[], None]) -> None:
        """Open a connection on the running loop."""
        if self._question is not None:  # its answer was for a loop that is gone
            self._put_back(self._question, self._clock.monotonic())
        self._stop_timer()
        self._asking, self._question, self._task = False, None, None
        self._open()
        self._wake = wake

    def take(self, wanted: int, now: float) -> Taken:
        """Take what the last answer brought, and ask for the rest if it is time to."""
        if self._loop is None:
            self._open()
        if self._error is not None:
            error, self._error, self._wanted = self._error, None, 0
            raise error
        slots, lease = self._use_brought(wanted, now), self._lease
        self._wanted = wanted - len(slots)
        wake = math.inf
        if self._wanted and self._share_usable(now):
            own = self._known.take_share(self._numbered, self._wanted, now)
            self._numbered += len(own)
            self._wanted -= len(own)
            lease = min(lease, now + LEASE) if slots else now + LEASE
            slots += own
            wake = self._known.next_of_share(now)
        if self._wanted:
            ask_at = max(self._ask_at, self._known.gate)
            if now >= ask_at or (self._untold_gate > now and self._failed_at is None):
                self._ask()
            elif not self._asking:
                wake = min(wake, ask_at)
        return Taken(slots, wake if self._wanted else math.inf, lease, self._known.gate)

    def release_at(self, slot: Slot, free_at: float, now: float, *, final: bool = True) -> None:
        """Have the server told with the next question."""
        self._known.released(slot, free_at, now, final=final)
        self._news[slot] = (free_at, final or self._news.get(slot, (0.0, False))[1])
        if final and not self._known.rivals and self._failed_at is None:
            self._ask_at = min(self._ask_at, free_at)
        # News of a request that has ended can wait for the next question.
        patient = self._wanted and free_at <= now + self._rule.span + LOST_TAIL
        self._tell(self._rule.span / 2 if patient else _TELL_SOON, now)

    def refund(self, slot: Slot, now: float) -> None:
        """Free a slot at once."""
        self._known.refunded(slot)
        self._news[slot] = (now, False)
        self._refunded = True
        self._ask_at = -math.inf
        self._tell(_TELL_SOON, now)

    def refused(self, until: float, now: float) -> bool:
        """Close the gate here, and have it closed for all; what that means for the pace comes with the answer."""
        self._untold_gate = max(self._untold_gate, until)
        self._known.gate = max(self._known.gate, until)
        self._ask()
        return False

    def forget(self) -> None:
        """Take ourselves off those who wait, so that no turn is kept for us."""
        self._wanted = 0
        self._error = None
        if self._registered:
            self._tell(_TELL_SOON, self._clock.monotonic())

    def after_fork(self) -> None:
        """Let go of what is the parent's."""
        self._server.forget()
        self._start_over()

    def state(self, now: float) -> BudgetState:
        """Return what the last answer said, and what we know of our own slots since then."""
        return self._known.state(now)

    async def aclose(self) -> None:
        """Tell the server what became of the last requests, and close the connection if it is ours."""
        self._stop_timer()
        if self._loop is None or self._loop is not asyncio.get_running_loop():
            await self._server.close()
            return
        while self._asking:
            await (self._clock.sleep(0.0) if self._task is None else asyncio.wait([self._task]))
        self._asking = True  # so that no other question begins
        loop, now = self._loop, self._clock.monotonic()
        try:
            if self._has_news(now) and self._failed_at is None:
                self._wanted = 0
                await self._put(self._next_question(now))
            await self._server.close()
        finally:
            self._asking = False
            if self._wake is not None:
                loop.call_soon(self._wake)  # tasks that still wait go on, with a new connection

    # Slots

    def _use_brought(self, wanted: int, now: float) -> list[Slot]:
        """Return slots that the last answer brought; what it brought beyond that is free at once."""
        slots, self._brought = self._brought, []
        if now < self._known.gate:
            wanted = 0
        for slot in slots[wanted:]:
            self.refund(slot, now)
        if slots and self._lease < now + LEASE / 2:  # the answer came late
            self._lease = now + LEASE
            for slot in slots[:wanted]:
                self.release_at(slot, self._lease + self._rule.span, now, final=False)
        return slots[:wanted]

    def _share_usable(self, now: float) -> bool:
        """Return whether our share may be used: the last try to reach the server is not too old to judge by."""
        return self._known.share_at is not None and not self._stale(now) and self._known.gate <= now

    # Asking

    def _tell(self, delay: float, now: float) -> None:
        """Ensure that the server hears the news within `delay` seconds."""
        if self._failed_at is not None:
            delay = max(delay, self._every)
        if self._loop is None or self._asking or now + delay >= self._tell_at:
            return
        self._stop_timer()
        self._tell_at = now + delay
        self._timer = self._clock.call_later(delay, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._tell_at = None, math.inf

    def _on_timer(self) -> None:
        self._timer, self._tell_at = None, math.inf
        self._ask()

    def _ask(self) -> None:
        """Send a question, when all tasks that want slots now have said so."""
        loop = self._loop
        if not self._asking and loop is not None and loop is asyncio._get_running_loop():
            self._asking = True
            loop.call_soon(self._send)

    def _send(self) -> None:
        now = self._clock.monotonic()
        self._stop_timer()
        if (
            self._loop is None
            or self._loop is not asyncio._get_running_loop()
            or not (self._wanted or self._has_news(now) or self._known.share_at is not None)
        ):
            self._asking = False
            return
        self._question = self._next_question(now)
        self._task = self._loop.create_task(self._converse(self._question))

    def _has_news(self, now: float) -> bool:
        return bool(self._news) or self._registered or self._untold_gate > now

    def _under_way(self, now: float) -> dict[Slot, tuple[float, bool]]:
        """Return what a server that has lost its data has to be told."""
        return {slot: (until, True) for slot, until in self._known.own(now).items()}

    def _next_question(self, now: float) -> Question:
        doubt: Literal["none", "unreachable", "sent"] = "none"
        # Nothing in the server is charged any more that should have been free a lease and a span ago.
        old = now - LEASE - self._rule.span
        news, self._news = {slot: entry for slot, entry in self._news.items() if entry[0] > old}, {}
        if self._failed_at is not None:
            doubt = "sent" if self._known.share_used else "unreachable"
            # A server that was restarted may know nothing of what is under way.
            news = self._under_way(now) | news
        cooldown, self._untold_gate = max(0.0, self._untold_gate - now), NEVER
        self._refunded = False
        first, self._numbered = self._numbered, self._numbered + self._wanted
        return Question(
            name=self._name,
            rule=self._rule,
            want=self._wanted,
            first=first,
            told={slot: (until - now, final) for slot, (until, final) in news.items()},
            known=now < self._asked_at + self._rule.span + KEEP / 2,
            doubt=doubt,
            cooldown=cooldown,
            round_trip=self._known.round_trip,
        )

    async def _converse(self, question: Question) -> None:
        """Ask one question, and have the waiters served with what it brought."""
        assert self._wake is not None  # attached before anything was asked
        try:
            await self._put(question)
        except BaseException:  # cancelled, whatever the reason: the waiters do not hang
            self._put_back(question, self._clock.monotonic())
            self._asking, self._question, self._task = False, None, None
            if self._loop is not None and self._loop is asyncio._get_running_loop():
                self._loop.call_soon(self._wake)
            raise
        self._asking, self._task = False, None
        now = self._clock.monotonic()
        if self._has_news(now) or self._known.share_at is not None:
            urgent = self._untold_gate > now and self._error is None
            patient = self._rule.span / 2 if self._wanted else _TELL_SOON
            self._tell(0.0 if urgent else self._every if self._error else patient, now)
        self._wake()
        self._error = None  # that, or slots, for which no task waits any more
        self._use_brought(0, now)

    async def _put(self, question: Question) -> None:
        sent_at = self._clock.monotonic()
        try:
            answer = await self._server.ask(question)
        except ServerGoneError as gone:
            self._put_back(question, sent_at)
            self._on_gone(gone, self._clock.monotonic())
        except ConfigurationError as error:
            self._put_back(question, sent_at)
            self._error = error
            self._ask_at = -math.inf
        else:
            self._on_answer(answer, question, sent_at)
        self._question = None

    def _put_back(self, question: Question, sent_at: float) -> None:
        """Remember what the server did not hear, as far as we know; what it gave us meanwhile is not used."""
        unused = range(question.first, question.first + min(question.want, self._rule.limit))
        told = {slot: (sent_at + left, final) for slot, (left, final) in question.told.items()}
        self._news = dict.fromkeys(unused, (sent_at, False)) | told | self._news
        if question.cooldown:
            self._untold_gate = max(self._untold_gate, sent_at + question.cooldown)

    def _on_answer(self, answer: Answer, question: Question, sent_at: float) -> None:
        now = self._clock.monotonic()
        self._log_answer(answer)
        self._failed_at = None
        self._asked_at = sent_at
        self._known.learn(answer, sent_at, now)
        self._registered = question.want > answer.taken
        if answer.charged:  # and what is under way may be charged no more
            self._news = self._under_way(now) | self._news
        self._lease = sent_at + LEASE
        self._brought = list(range(question.first, question.first + answer.taken))
        for slot in self._brought:
            self._known.took(slot, self._lease, sent_at)
        at_once = not self._registered or self._refunded
        self._ask_at = -math.inf if at_once else now + max(answer.wake, _SHORTEST)

    def _log_answer(self, answer: Answer) -> None:
        spent = ": the window counts as spent" if answer.charged else ""
        if self._failed_at is not None:
            log.warning("Redis is back%s", spent)
        elif answer.charged:
            log.warning("Redis was started a moment ago, or lost its data%s", spent)
        if answer.began:
            log.warning("our own count cannot explain that: requests are spread from now on")

    # While the server is gone

    def _on_gone(self, gone: ServerGoneError, now: float) -> None:
        first = self._stale(now)
        self._failed_at = now
        if first:
            log.warning("Redis cannot be used (%s): %s", gone, _CONSEQUENCE[self._policy], exc_info=gone.__cause__)
        self._ask_at = now + self._every
        if self._policy == "raise":
            self._ask_at = -math.inf
            self._error = ConnectionFailedError(f"the Redis server of the rate limit cannot be used: {gone}")
            self._error.__cause__ = gone.__cause__
        elif self._policy == "local" and (first or self._known.share_at is None):
            self._known.go_on_alone(now)

    def _stale(self, now: float) -> bool:
        """Return whether the last failure, if any, is too old to assume that the server is still gone."""
        return self._failed_at is None or now > self._failed_at + 2 * self._every + self._server.timeout
