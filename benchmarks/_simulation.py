"""A saturated client, a network and an edge in simulated time: months of requests in seconds, with the real limiter.

The event loop's clock jumps to the next timer instead of sleeping, so everything asynchronous runs as it is. A request
takes a round trip that its profile draws, half of it before it arrives. A connection is used again when it was idle for
less than 15 s (aiohttp's keep-alive); otherwise it is set up in two more round trips (TCP, TLS 1.3), where the profile
has that. A lost request gets no answer but a reset after its round trip; half of the lost have arrived before.
"""

import asyncio
import math
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import attrs

from comfycontrol_async import LocalLimiter
from comfycontrol_async.limits import Permit
from comfycontrol_async.testing.server._edge import make_edge, most_in_window

LIMIT, PERIOD, COOLDOWN = 40, 10.0, 10.0
KEEP_ALIVE = 15.0


class _Selector(selectors.DefaultSelector):
    """Never sleeps: moves the clock instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> Any:
        """Jump to the next timer."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self.loop.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated time; also a `Clock` for the limiter."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the simulated seconds."""
        return self.now


class VirtualClock:
    """The simulated time as the limiter's `Clock`; timers fire between 1 ms early and 1 ms late."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop = loop
        self._chance = chance

    def monotonic(self) -> float:
        """Return the simulated seconds."""
        return self._loop.now

    def utcnow(self) -> datetime:
        """Return a wall time that moves with them."""
        return datetime.fromtimestamp(self._loop.now, UTC)

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Run the callback in about `delay` seconds."""
        return self._loop.call_later(max(0.0, delay + self._chance.uniform(-0.001, 0.001)), callback)

    async def sleep(self, seconds: float) -> None:
        """Sleep in simulated time."""
        await asyncio.sleep(seconds)


class Ours:
    """LocalLimiter as the client uses it."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._limiter = LocalLimiter(LIMIT, PERIOD, clock=VirtualClock(loop, chance))

    async def acquire(self, refused: Permit | None) -> Permit:
        """Wait for a slot, at the head of the lane after a refusal."""
        return await (self._limiter.acquire() if refused is None else refused.requeue())

    def refused(self) -> None:
        """Close the gate."""
        self._limiter.cool_down(COOLDOWN)


class SendStamps:
    """A window over the moments of sending: the shape of every exact peer."""

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self._loop = loop
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._sent = deque([-math.inf] * LIMIT)

    async def acquire(self, refused: Permit | None) -> None:
        """Wait in line for the moment at which the next may go; not before the pause after a 429 is over."""
        async with self._lock:
            while (wait := max(self.ready(self._loop.now), self._until) - self._loop.now) > 0:  # noqa: ASYNC110 # for a time
                await asyncio.sleep(wait + 0.001)
            self.go(self._loop.now)

    def refused(self) -> None:
        """Pause all for as long as the API asks for."""
        self._until = max(self._until, self._loop.now + COOLDOWN)

    def ready(self, now: float) -> float:
        """Return when the next may go."""
        return self._sent[0] + PERIOD

    def go(self, now: float) -> None:
        """Count one."""
        self._sent.popleft()
        self._sent.append(now)


class LeakyBucket(SendStamps):
    """A bucket of `limit` that leaks evenly: aiolimiter's shape."""

    _level = 0.0
    _at = 0.0

    def ready(self, now: float) -> float:
        """Return when there is room for one more."""
        return self._at + max(0.0, self._level + 1 - LIMIT) * PERIOD / LIMIT

    def go(self, now: float) -> None:
        """Pour one in."""
        self._level = max(0.0, self._level - (now - self._at) * LIMIT / PERIOD) + 1
        self._at = now


class FixedWindow(SendStamps):
    """A budget that is full again a period after the first use: hikari's shape."""

    _left = 0
    _end = -math.inf

    def ready(self, now: float) -> float:
        """Return when there is budget."""
        return now if self._left and now < self._end else self._end

    def go(self, now: float) -> None:
        """Spend one."""
        if now >= self._end:
            self._end, self._left = now + PERIOD, LIMIT
        self._left -= 1


SHAPES: dict[str, Callable[[VirtualLoop, random.Random], Any]] = {
    "comfycontrol_async": Ours,
    "send-stamp window": SendStamps,
    "leaky bucket": LeakyBucket,
    "fixed window": FixedWindow,
}

# The log-normal law with median 80 ms whose 99th percentile is 510 ms.
SIGMA = math.log(510 / 80) / 2.3263


@attrs.frozen
class Profile:
    """A network: how long a round trip takes, whether connections are set up, how many requests are lost."""

    name: str
    round_trip: Callable[[random.Random], float]
    set_up: bool = False
    loss: float = 0.0
    # Every `STALL_EVERY` seconds nothing passes for so long, either way; then all that was sent does.
    stall: float = 0.0
    # The share of requests whose answer comes 2 to 12.5 s after they were written; they arrive at any moment between.
    late: float = 0.0
    # Whether the transport knows what has arrived, as TCP does on Linux.
    word: bool = False


def heavy_tail(chance: random.Random) -> float:
    """Draw a round trip with a heavy tail."""
    return 0.08 * math.exp(chance.gauss(0.0, SIGMA))


PROFILES = [
    Profile("constant 50 ms", lambda chance: 0.05),
    Profile("uniform 20-200 ms", lambda chance: chance.uniform(0.02, 0.2)),
    Profile("heavy tail", heavy_tail),
    Profile("heavy tail, set-up", heavy_tail, set_up=True),
    Profile("heavy tail, set-up, 1 % lost", heavy_tail, set_up=True, loss=0.01),
]


STALL_EVERY = 180.0

HARD_LINES = [
    Profile(
        f"{name}, {'with' if word else 'without'} TCP's word",
        heavy_tail,
        set_up=True,
        stall=stall,
        late=late,
        word=word,
    )
    for name, stall, late in [
        ("stalls of 2 s", 2.0, 0.0),
        ("stalls of 5 s", 5.0, 0.0),
        ("stalls of 12 s", 12.0, 0.0),
        ("1 % late by 2 to 12.5 s", 0.0, 0.01),
        ("5 % late, stalls of 5 s", 5.0, 0.05),
    ]
    for word in (True, False)
]
# Both together delay some requests by more than the hold cap and a period.
BEYOND = HARD_LINES.pop()


@attrs.define
class Outcome:
    """What became of the requests of one run; `arrivals` are their moments, refused ones included."""

    answered: int = 0
    lost: int = 0
    refused: int = 0
    cooldowns: int = 0
    elapsed: float = 0.0
    arrivals: list[float] = attrs.field(factory=list, repr=False)
    cooled: list[float] = attrs.field(factory=list, repr=False)

    def share(self, count: int) -> float:
        """Return how fast `count` requests were beside the ideal: the limit at once, then one each period / limit."""
        return max(0.0, count - LIMIT) * PERIOD / LIMIT / self.elapsed

    @property
    def over(self) -> int:
        """How many arrivals were one too many for the period before them."""
        stamps = sorted(self.arrivals)
        return sum(later - sooner < PERIOD for sooner, later in zip(stamps, stamps[LIMIT:], strict=False))

    @property
    def most(self) -> int:
        """The most arrivals in any period."""
        return most_in_window(sorted(self.arrivals), PERIOD)


class Client:
    """Sends as many requests as its limiter lets out, until so many have ended."""

    def __init__(self, shape: str, edge: str, profile: Profile, seed: int, loop: VirtualLoop) -> None:
        self._chance = random.Random(f"{edge} {profile.name} {seed}")
        self._edge = make_edge(edge, LIMIT, PERIOD, COOLDOWN, self._chance.uniform(0.0, PERIOD))
        self._limiter = SHAPES[shape](loop, self._chance)
        self._profile = profile
        self._loop = loop
        self._idle: deque[float] = deque()
        self._room = asyncio.Semaphore(4 * LIMIT)
        self._tasks: set[asyncio.Task[None]] = set()
        self.outcome = Outcome()

    async def run(self, count: int) -> Outcome:
        """Send `count` requests until each is answered or lost."""
        started = self._loop.now
        for _ in range(count):
            # Enough at once to saturate every limiter.
            await self._room.acquire()
            task = asyncio.create_task(self._request())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await asyncio.gather(*self._tasks)
        self.outcome.elapsed = self._loop.now - started
        return self.outcome

    async def _request(self) -> None:
        permit = None
        while True:
            permit = await self._limiter.acquire(permit)
            if await self._attempt(permit):
                self._room.release()
                return

    async def _attempt(self, permit: Permit | None) -> bool:
        """Send once; tell whether that was the end of it."""
        chance, profile = self._chance, self._profile
        if self._sets_up():
            await asyncio.sleep(2 * profile.round_trip(chance))
        arrived = False
        if permit is not None:
            permit.sent((lambda: arrived) if profile.word else None)
        there = back = profile.round_trip(chance) / 2
        if chance.random() < profile.late:
            total = chance.uniform(2.0, 12.5)
            there = chance.uniform(0.0, total)
            back = total - there
        fate = chance.random()
        await self._pass_line(there)
        arrived = True
        passes = fate < profile.loss / 2 or self._arrives()
        await self._pass_line(back)
        if fate < profile.loss:
            self.outcome.lost += 1
            if permit is not None:
                permit.lost()
            return True
        self._idle.append(self._loop.now)
        if permit is not None:
            permit.arrived()
        if not passes:
            self.outcome.refused += 1
            self._limiter.refused()
            return False
        self.outcome.answered += 1
        return True

    async def _pass_line(self, seconds: float) -> None:
        """Be on the way for so long, or until the line's stall is over."""
        at = self._loop.now + seconds
        since = at % STALL_EVERY
        # TCP sends again what was lost, at moments of its own: not all comes at once.
        again = self._profile.stall - since + self._chance.uniform(0.0, 0.3) if since < self._profile.stall else 0.0
        await asyncio.sleep(seconds + again)

    def _sets_up(self) -> bool:
        """Take an idle connection, or tell that one has to be set up."""
        while self._idle and self._idle[0] < self._loop.now - KEEP_ALIVE:
            self._idle.popleft()
        if self._idle:
            self._idle.pop()
            return False
        return self._profile.set_up

    def _arrives(self) -> bool:
        now = self._loop.now
        cooling = self._edge.cooling(now)
        passes = self._edge.admit(now)
        self.outcome.arrivals.append(now)
        if not passes and not cooling:
            self.outcome.cooldowns += 1
            self.outcome.cooled.append(now)
        return passes


def simulate(shape: str, edge: str, profile: Profile, count: int, seed: int = 1) -> Outcome:
    """Run one client against one edge."""
    loop = VirtualLoop()

    async def run() -> Outcome:
        return await Client(shape, edge, profile, seed, loop).run(count)

    return run_on(loop, run())


def run_on(loop: VirtualLoop, coroutine: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run on a loop of simulated time and close it."""
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()
