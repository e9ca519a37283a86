"""How the requests of a batch are let out."""

import asyncio

import attrs

from comfycontrol_async.batch._pacing import Pace
from comfycontrol_async.limits import Priority, RateLimitSnapshot
from comfycontrol_async.testing import FakeClock


def limits(*, available: int = 40, waiting: int = 0, cooldown: float = 0.0) -> RateLimitSnapshot:
    """Make the state of a limiter of 40 in 10 s."""
    return RateLimitSnapshot(
        limit=40,
        period=10.0,
        used=40 - available,
        available=available,
        waiting={**dict.fromkeys(Priority, 0), Priority.BULK: waiting},
        cooldown=cooldown,
        pacing="burst",
        next_free_in=0.0,
    )


class PaceWorld:
    """Those who wait for their turn, and the limiter as they find it."""

    def __init__(self, available: int, *, limit: int = 40) -> None:
        self.clock = FakeClock()
        self.available = available
        self.limit = limit
        self.crowd = 0
        self.asked = 0
        self.went: list[tuple[float, str]] = []
        self.pace = Pace(self.limits, self.clock)
        self.tasks: list[asyncio.Task[None]] = []

    def limits(self) -> RateLimitSnapshot:
        """Return the state of the limiter."""
        self.asked += 1
        return attrs.evolve(limits(available=self.available, waiting=self.crowd), limit=self.limit)

    def ask(self, name: str, count: int = 1, *, first: bool = False) -> None:
        """Let some wait for their turn."""

        async def one() -> None:
            await self.pace.turn(first=first)
            self.went.append((round(self.clock.monotonic() - 1000.0, 3), name))
            self.available -= 1

        self.tasks += [asyncio.create_task(one()) for _ in range(count)]

    @property
    def moments(self) -> list[float]:
        """When they went."""
        return [moment for moment, _ in self.went]


class TestPace:
    """How the requests of a batch are let out."""

    async def test_half_at_once(self) -> None:
        """Half of the budget goes at once, the rest evenly at the limit's rate."""
        world = PaceWorld(40)
        world.ask("submit", 30)
        await world.clock.advance(2.0)
        assert world.moments[:20] == [0.0] * 20
        assert world.moments[20:] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]

    async def test_outputs_first(self) -> None:
        """Requests for outputs go before submits, however long those have waited."""
        world = PaceWorld(4)
        world.ask("submit", 4)
        await world.clock.advance(0.3)
        world.ask("outputs", 2, first=True)
        await world.clock.advance(5.0)
        assert [name for _, name in world.went] == ["submit", "submit", "outputs", "outputs", "submit", "submit"]
        assert world.moments == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]

    async def test_crowd(self) -> None:
        """While others wait at the limiter they are let go first, but never for more than eight turns."""
        world = PaceWorld(0)
        world.crowd = 2
        world.ask("submit", 2)
        await world.clock.advance(2.1)
        assert world.moments == [2.0]
        world.crowd = 1
        await world.clock.advance(0.25)
        assert world.moments == [2.0, 2.25]

    async def test_late_timer(self) -> None:
        """A timer that fires late does not slow the rest down, and a pause gives no right to more than one."""
        world = PaceWorld(0)
        world.ask("submit", 4)
        await world.clock.advance(0.0)
        for moment in (0.3, 0.52, 0.75):
            # As if the loop had been busy: the timer is due at 0.25, 0.5 and 0.75.
            world.clock._now = 1000.0 + moment
            await world.clock.advance(0.0)
        assert world.moments == [0.0, 0.3, 0.52, 0.75]
        world = PaceWorld(0)
        world.ask("submit")
        await world.clock.advance(0.4)
        world.ask("submit", 3)
        await world.clock.advance(1.0)
        assert world.moments == [0.0, 0.4, 0.5, 0.75]

    async def test_cancelled(self) -> None:
        """A waiter that is cancelled takes no turn; closing leaves no timer."""
        world = PaceWorld(0)
        world.ask("submit", 4)
        await world.clock.advance(0.1)
        world.tasks[1].cancel()
        world.tasks[2].cancel()
        await world.clock.advance(0.2)
        assert world.moments == [0.0, 0.25]
        world.ask("submit")
        await world.clock.advance(0.0)
        assert world.clock.timers == 1
        world.pace.close()
        assert world.clock.timers == 0
        world.tasks[-1].cancel()

    async def test_large_limit(self) -> None:
        """A limit that is hardly used is looked at only now and then."""
        world = PaceWorld(100_000, limit=100_000)
        for _ in range(20):
            world.ask("submit", 100)
            await world.clock.advance(0.01)
        assert len(world.went) == 2000
        assert world.asked == 1
