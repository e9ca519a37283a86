"""RemoteLimiter: slots that a server keeps which is asked for them: when it is asked, and what is done without it."""

import asyncio
import logging
import math
import secrets
from asyncio import _get_running_loop
from collections.abc import Sequence
from typing import Literal, Protocol

import attrs

from comfycontrol_async._clock import Clock
from comfycontrol_async.errors import ComfyControlError, ConfigurationError, ConnectionFailedError
from comfycontrol_async.limits._grant import Grant
from comfycontrol_async.limits._joint import LEASE, JointLimiter
from comfycontrol_async.limits._local_share import LocalShare
from comfycontrol_async.limits._news import News
from comfycontrol_async.limits._question import KEEP, Answer, OtherRule, Question, parse_answer
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.limits._view import View
from comfycontrol_async.limits._window import HOLD_CAP, LOST_TAIL

log = logging.getLogger("comfycontrol_async.limits")

Policy = Literal["local", "wait", "raise"]

# Seconds within which the server is told what became of requests, while nobody here waits for slots. While somebody
# does, the next question tells it: how long ago it was goes with it, so being late costs nothing.
_TELL_SOON = 0.05
# Seconds between two tries to reach a server that is gone.
_RETRY = 1.0
# Seconds after which it is not known any more how many wait in other processes.
_STALE = 1.0


class ServerGoneError(Exception):
    """The server gave no answer that can be used; the next one may."""


class Server(Protocol):
    """Whoever keeps the slots; it answers within `timeout` seconds or not at all."""

    key: str
    timeout: float

    def open(self) -> None:
        """Get ready for the running loop."""

    async def close(self) -> None:
        """Close the connection."""

    def forget(self) -> None:
        """Let go of a connection that is the parent's."""

    async def ask(self, question: list[str]) -> Sequence[int]:
        """Run `acquire.lua`; raises ServerGoneError or ConfigurationError."""
        ...


class RemoteLimiter(JointLimiter):
    """The limiter behind RedisLimiter; see there.

    All slots that are wanted are asked for together, one question at a time, and each question tells what became of the
    slots that were had before. Who waits sleeps until the moment that the server named.

    While the server is gone and `policy` is "local", `share` slots are this process's own.
    """

    def __init__(self, rule: Rule, clock: Clock, server: Server, policy: Policy, share: int) -> None:
        super().__init__(rule, clock)
        self._server = server
        self._policy = policy
        self._share_limit = share
        self._every = min(_RETRY, rule.period / 4)
        self._start_over()

    def _start_over(self) -> None:
        """Know nothing of the server, and be called something that it has not heard before."""
        self._name = secrets.token_hex(6)
        # How many grants have had a number under that name.
        self._numbered = 0
        self._news = News(self._clock, self._ask)
        self._task: asyncio.Task[None] | None = None
        # When it makes sense to ask for slots again, when the last question was sent that was answered, and whether to
        # ask again as soon as the question under way was answered.
        self._ask_at = self._asked_at = -math.inf
        self._again = False
        self._seen: View | None = None
        # For how long a slot is held, in the mean of the last ones.
        self._round_trip = 0.0
        # When the last question failed, if it did, and what may be sent until one does not.
        self._failed_at: float | None = None
        self._share: LocalShare | None = None

    async def aclose(self) -> None:
        """Tell the server what became of the last requests, and close the connection if it is ours."""
        if self._loop is asyncio.get_running_loop():
            if self._task is not None:
                await asyncio.wait([self._task])
            if self._news and self._failed_at is None:
                await self._ask_once()
        await self._server.close()

    # Where the slots are kept

    def _open(self) -> None:
        self._task = None
        self._news.stop()
        self._server.open()

    def _take_now(self) -> Grant | None:
        return None

    def _pump(self, now: float) -> None:
        if self._gate.open_if_due(now):
            log.info("the cooldown is over: requests are sent again")
        if not self._queue.lanes.size:
            self._queue.wake_at(math.inf, now)
            return
        wake = math.inf if self._share is None else self._hand_out_locally(self._share, now)
        if self._task is None:
            if now >= self._ask_at:
                self._ask()
            else:
                wake = min(wake, self._ask_at)
        self._queue.wake_at(wake, now)

    def _note(self, grant: Grant, free_at: float, now: float) -> None:
        if now >= grant.lease and grant.capped:
            return
        self._news.moments[grant.key] = free_at
        if self._share is not None:
            self._share.note(grant.key, free_at)
            self._queue.wake_at(min(self._ask_at, self._share.next_free(now)), now)
        answered = free_at <= now + self._span
        if answered:
            held = now - (grant.lease - LEASE)
            self._round_trip += (min(held, HOLD_CAP) - self._round_trip) / 8
        # The answer to a request can wait for the next question, which tells how old it is.
        patient = self._queue.lanes.size and (answered or free_at <= now + self._span + LOST_TAIL)
        self._tell(self._span / 2 if patient else _TELL_SOON, now)

    def _give_back(self, grant: Grant, now: float) -> None:
        self._news.moments[grant.key] = now
        if self._share is not None:
            self._share.note(grant.key, now)
        elif self._queue.lanes.size:
            self._ask_at = -math.inf
        self._tell(_TELL_SOON, now)

    def _close_gate(self, now: float) -> None:
        self._news.cooldown = True
        self._ask()

    def _view(self, now: float) -> View:
        gate, smooth = self._gate.until, self._rule.pacing == "smooth"
        if self._share is not None:
            return View(limit=self._share.limit, moments=self._share.moments(now), gate=gate, smooth=smooth)
        if self._seen is None:
            return View(limit=self._rule.limit, moments=(), gate=gate, smooth=smooth)
        fresh = now < self._asked_at + _STALE
        return attrs.evolve(self._seen, gate=gate, rivals=self._seen.rivals if fresh else ())

    def _demand_grew(self) -> None:
        pass  # said with the next question

    def _let_go(self) -> None:
        self._server.forget()
        self._start_over()

    # Asking

    def _tell(self, delay: float, now: float) -> None:
        """See to it that the server hears the news within `delay` seconds."""
        if self._failed_at is not None:
            delay = max(delay, self._every)
        if self._task is None:
            self._news.tell_at(now + delay, now)

    def _ask(self) -> None:
        """Ask the server, now or after the question that is under way."""
        self._again = True
        loop = self._loop
        if self._task is None and loop is not None and loop is _get_running_loop():
            self._task = loop.create_task(self._keep_asking())

    async def _keep_asking(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._ask_once()
        finally:
            if self._task is asyncio.current_task():
                self._task = None
        if self._news:
            self._tell(self._span / 2 if self._queue.lanes.size else _TELL_SOON, self._monotonic())

    async def _ask_once(self) -> None:
        """Send one question and act on the answer."""
        want = self._queue.lanes.size
        if not (want or self._news or self._share is not None):
            return
        sent_at = self._monotonic()
        told, cooldown = self._news.take()
        question = self._question(want, told, cooldown, sent_at)
        self._numbered += want
        try:
            answer = parse_answer(await self._server.ask(question.arguments()))
        except ServerGoneError as gone:
            self._news.put_back(told, cooldown, self._monotonic())
            self._on_gone(gone)
        except ComfyControlError as error:
            self._refuse_all(error)
        else:
            if isinstance(answer, OtherRule):
                self._refuse_all(self._other_rule(answer))
            else:
                self._on_answer(answer, question, sent_at)

    def _question(self, want: int, told: dict[int, float], cooldown: bool, now: float) -> Question:
        doubt = 0
        if self._failed_at is not None:
            doubt = 2 if self._share is not None and self._share.granted else 1
            # A server that was restarted may know nothing of what is under way.
            told = {grant.key: grant.lease + self._span for grant in self._held} | told
        return Question(
            name=self._name,
            rule=self._rule,
            want=want,
            first=self._numbered,
            told={number: free_at - now for number, free_at in told.items()},
            known=now < self._asked_at + self._span + KEEP / 2,
            doubt=doubt,
            cooldown=self._gate.remaining(now) if cooldown else 0.0,
            round_trip=self._round_trip,
        )

    def _other_rule(self, other: OtherRule) -> ConfigurationError:
        return ConfigurationError(
            f"the key {self._server.key!r} is for {other.limit} requests per {other.period:g} s, not "
            f"{self._rule.limit} per {self._rule.period:g} s; all processes must use the same limit"
        )

    def _on_answer(self, answer: Answer, question: Question, sent_at: float) -> None:
        now = self._monotonic()
        self._asked_at = sent_at
        self._tell_user(answer)
        self._failed_at = self._share = None
        if answer.cooldown:
            self._gate.close(now + answer.cooldown)
        self._seen = View(
            limit=self._rule.limit,
            moments=[now + moment for moment in answer.busy],
            smooth=answer.smooth,
            pace_at=now + answer.pace,
            rivals=answer.rivals,
        )
        lease = sent_at + LEASE
        numbers = range(question.first, question.first + answer.taken)
        grants = [Grant(self, number, lease, lease + self._span) for number in numbers]
        if self._gate.passes(now):
            self._hand_out(grants, now)
        else:
            for grant in grants:
                self._give_back(grant, now)
        self._plan(now, now + answer.wake if question.want > answer.taken else now)

    def _tell_user(self, answer: Answer) -> None:
        spent = ": the window counts as spent" if answer.charged else ""
        if self._failed_at is not None:
            log.warning("Redis is back%s", spent)
        elif answer.charged:
            log.warning("Redis was started a moment ago, or lost its data%s", spent)
        if answer.began:
            log.warning("our own count cannot explain that: requests are spread from now on")

    def _plan(self, now: float, ask_at: float) -> None:
        """Ask again when there is something to be had."""
        self._ask_at = max(ask_at, self._gate.until)
        if not self._queue.lanes.size:
            self._ask_at = -math.inf
        elif self._ask_at <= now:
            self._again = True
        else:
            self._queue.refuse(self._ask_at, self._left)
            self._queue.wake_at(self._ask_at, now)

    # While the server is gone

    def _on_gone(self, gone: ServerGoneError) -> None:
        now = self._monotonic()
        first, self._failed_at = self._stale(now), now
        if first:
            log.warning("Redis cannot be used (%s): %s", gone, _CONSEQUENCE[self._policy])
        self._ask_at = now + self._every
        if self._policy == "raise":
            self._ask_at = -math.inf
            error = ConnectionFailedError(f"the Redis server of the rate limit cannot be used: {gone}")
            error.__cause__ = gone.__cause__
            self._refuse_all(error)
            return
        wake = self._ask_at
        if self._policy == "local":
            if first or self._share is None:
                # Whatever all processes sent until now counts, and what we have under way may be the last of it.
                tail = HOLD_CAP if self._held else LOST_TAIL
                self._share = LocalShare(self._share_limit, now + tail + self._span)
            wake = min(wake, self._hand_out_locally(self._share, now))
            # Whether anybody waits or not: others may use all of the budget as soon as the server is back.
            self._news.tell_at(self._ask_at, now)
        self._queue.wake_at(wake, now)

    def _stale(self, now: float) -> bool:
        """Tell whether the server was not tried for so long that it may have been back meanwhile."""
        return self._failed_at is None or now > self._failed_at + 2 * self._every + self._server.timeout

    def _hand_out_locally(self, share: LocalShare, now: float) -> float:
        """Grant from our share, and return when the next grant is possible."""
        if self._stale(now):
            return math.inf
        if not self._gate.passes(now):
            return self._gate.until
        lease = now + LEASE
        grants: list[Grant] = []
        while len(grants) < self._queue.lanes.size and share.take(self._numbered, lease + self._span, now):
            grants.append(Grant(self, self._numbered, lease, lease + self._span))
            self._numbered += 1
        self._hand_out(grants, now)
        return share.next_free(now)


_CONSEQUENCE = {
    "local": "this process goes on with its share of the budget",
    "wait": "requests wait until it is back",
    "raise": "requests are refused until it is back",
}
