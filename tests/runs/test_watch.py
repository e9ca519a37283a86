"""The shared watcher, on a fake clock: what it asks for, what it tells, and what it leaves running."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from comfycontrol_async import WatchPolicy
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ClientClosedError,
    ComfyControlError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitWaitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
)
from comfycontrol_async.limits import Limiter, Priority
from comfycontrol_async.models import WorkflowStatus, WorkflowSummary, WorkflowUpdate
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._state import State, merge
from comfycontrol_async.runs._watch import Watcher
from support.fake_service import FakeLimiter, FakeService, Record, World, event

DOWN = ServerError(503, "down", "GET", "/v1/workflow")


class WatchWorld(World):
    """A service, a watcher of it, and those who wait."""

    def __init__(self, **policy: Any) -> None:
        super().__init__()
        self.limiter = FakeLimiter()
        self.watcher = self.watch(**policy)
        # Who was told of an end, and how late; who got an error.
        self.late: dict[str, float] = {}
        self.errors: dict[str, Exception] = {}
        self.updates: list[WorkflowUpdate] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, **policy: Any) -> Watcher:
        """Make a watcher."""

        def limiter() -> Limiter:
            return self.limiter

        self.ledger = Ledger(self.clock)
        self.route = Route(self.service.send, self.service.resource(), self.service.open)
        return Watcher(self.route, WatchPolicy(**policy), limiter, self.ledger, self.clock)

    def wait(self, id: str, *, key: str = "", **options: Any) -> None:
        """Let a task follow a workflow."""
        self.tasks[key or id] = asyncio.create_task(self._follow(id, key or id, options))

    def submit(self, duration: float = 30.0, **options: Any) -> str:
        """Create a workflow as this client would, and follow it."""
        id = self.service.add(duration)
        self.ledger.record(id)
        self.wait(id, **options)
        return id

    def known(self, id: str) -> State:
        """Return what a client knows of a workflow that it is about to wait for."""
        record = self.service.records.get(id)
        created = self.clock.monotonic() if record is None else record.created
        created_at = self.service.time(created).replace(microsecond=0)
        return merge(
            None,
            WorkflowSummary(
                id=id, name="row", status=WorkflowStatus.ACCEPTED, created_at=created_at, updated_at=created_at
            ),
        )

    async def _follow(self, id: str, key: str, options: dict[str, Any]) -> None:
        try:
            async with aclosing(self.watcher.follow(self.known(id), self.route, **options)) as states:
                async for state in states:
                    self.updates.append(state.update())
            self.late[key] = self.clock.monotonic() - self.service.records[id].ends
        except Exception as error:
            self.errors[key] = error

    async def leave(self, keys: Sequence[str] | None = None) -> None:
        """Cancel those who wait, all by default."""
        keys = list(self.tasks) if keys is None else keys
        leaving = [self.tasks[key] for key in keys]
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        for key in keys:
            del self.tasks[key]


def running() -> set[str]:
    """Name the watcher's tasks."""
    return {name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("comfycontrol")}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Make a world, and see that nothing is left running in it."""
    world = WatchWorld()
    yield world
    await world.leave()
    assert running() == set()
    assert world.service.open_streams == 0
    assert world.clock.timers == 0


class TestStreams:
    """Few are watched by streams."""

    async def test_one(self, world: WatchWorld) -> None:
        """One stream of one request tells each change once, and the end within 2 s with its outputs."""
        id = world.submit(180.0)
        await world.clock.advance(179.0)
        assert world.service.asked == [f"GET /v1/workflow/{id}/subscribe"]
        assert [update.status for update in world.updates] == ["running"]
        await world.clock.advance(4.0)
        assert [update.status for update in world.updates] == ["running", "completed"]
        assert len(world.updates[-1].outputs) == 1
        assert world.late[id] <= 2.0

    async def test_longer_than_a_stream(self, world: WatchWorld) -> None:
        """A stream that the service closed after four minutes is opened again."""
        id = world.submit(1000.0)
        await world.clock.advance(1003.0)
        assert len(world.service.asked) == 5
        assert world.late[id] <= 3.0

    async def test_cut(self, world: WatchWorld) -> None:
        """A stream that broke is opened again."""
        id = world.submit(60.0)
        await world.clock.advance(20.0)
        world.service.cut_streams()
        await world.clock.advance(45.0)
        assert world.service.asked == [f"GET /v1/workflow/{id}/subscribe"] * 2
        assert world.late[id] <= 3.0

    async def test_that_fail(self, world: WatchWorld) -> None:
        """After three streams that failed it is asked for by its id."""

        def fault(line: str) -> None:
            if "subscribe" in line:
                raise DOWN

        world.service.fault = fault
        id = world.submit(60.0)
        await world.clock.advance(65.0)
        assert world.service.count("subscribe") == 3
        assert world.late[id] <= 4.2

    async def test_that_end_at_once(self, world: WatchWorld) -> None:
        """Streams that end after one update each are no way to watch: they would cost the whole budget."""
        world.service.sse_updates = 1
        id = world.submit(60.0)
        await world.clock.advance(65.0)
        assert world.service.count("subscribe") == 3
        assert len(world.service.asked) < 40
        assert world.late[id] <= 4.2

    async def test_that_may_not_wait(self, world: WatchWorld) -> None:
        """A stream that `max_rate_limit_wait` forbids does not end the wait."""

        def fault(line: str) -> None:
            if "subscribe" in line:
                raise RateLimitWaitError(5.0, 1.0)

        world.service.fault = fault
        id = world.submit(60.0)
        await world.clock.advance(65.0)
        assert id in world.late

    async def test_invalid(self, world: WatchWorld) -> None:
        """The end `invalid`, at which the service does not close the stream, ends the wait and the stream."""
        id = world.service.add(10.0, "invalid")
        world.wait(id)
        await world.clock.advance(12.0)
        assert [update.status for update in world.updates] == ["running", "invalid"]
        assert world.late[id] <= 2.0

    async def test_most(self, world: WatchWorld) -> None:
        """Eight have streams; the others are looked for."""
        for _ in range(12):
            world.submit(60.0)
        await world.clock.advance(59.0)
        assert world.service.count("subscribe") == world.service.open_streams == 8
        await world.clock.advance(5.0)
        assert len(world.late) == 12

    async def test_nobody_but_the_stream(self, world: WatchWorld) -> None:
        """While all have streams, nothing looks for anything."""
        world.submit(60.0)
        world.submit(60.0)
        await world.clock.advance(30.0)
        assert running() == {f"comfycontrol stream {id}" for id in world.tasks}
        assert world.service.count("?page") == 0


class TestBoundsOfStreams:
    """Streams that bring nothing more do not hold a wait."""

    async def _wait(self, world: WatchWorld, chunk: bytes, *, first: bool, duration: float = 20.0) -> float:
        """Follow a workflow whose streams give this chunk every second for ever; how late its end was told."""

        async def talk(record: Record) -> AsyncGenerator[bytes, None]:
            if first:
                yield event(world.service.update(record))
            while True:
                yield chunk
                await world.clock.sleep(1.0)

        world.service.talk = talk
        id = world.submit(duration)
        await world.clock.advance(700.0)
        return world.late[id]

    @pytest.mark.parametrize("first", [True, False], ids=["after-an-update", "from-the-start"])
    async def test_quiet(self, world: WatchWorld, first: bool) -> None:
        """A stream of keep-alives is dropped after 30 s without an update, and the workflow is fetched."""
        assert await self._wait(world, b": keep-alive\n\n", first=first) <= 11.0
        assert world.service.count("subscribe") == 1
        assert len(world.service.asked) == 2

    async def test_foreign(self, world: WatchWorld) -> None:
        """Events that are no updates are no sign of life either."""
        assert await self._wait(world, b'data: {"type": "ping"}\n\n', first=True) <= 11.0

    async def test_stale(self, world: WatchWorld) -> None:
        """A stream that repeats itself is dropped after 5 minutes."""
        stale = event({"status": "running", "outputs": []})
        assert await self._wait(world, stale, first=True) <= 281.0
        assert world.service.count("subscribe") == 1

    async def test_polled_after(self, world: WatchWorld) -> None:
        """A workflow that lost its stream and goes on is polled from there on."""
        assert await self._wait(world, b": keep-alive\n\n", first=True, duration=100.0) <= 6.0
        assert world.service.count("subscribe") == 1

    @pytest.mark.parametrize("status", [301, 400, 403, 404, 405, 406, 410])
    async def test_refused(self, world: WatchWorld, status: int) -> None:
        """A refused stream is not asked for again: the workflow is polled."""

        def fault(line: str) -> None:
            if "subscribe" in line:
                raise APIError(status, "no streams here", "GET", line)

        world.service.fault = fault
        id = world.submit(60.0)
        await world.clock.advance(65.0)
        assert world.service.count("subscribe") == 1
        assert world.late[id] <= 4.2

    async def test_end_on_a_page(self) -> None:
        """An end that a page shows is told although the workflow's stream goes on, a moment later."""
        world = WatchWorld(max_streams=1)

        async def talk(record: Record) -> AsyncGenerator[bytes, None]:
            while True:
                yield event({"status": "running"})
                await world.clock.sleep(2.0)

        world.service.talk = talk
        id = world.submit(60.0)
        for _ in range(12):
            world.submit(1000.0)
        await world.clock.advance(75.0)
        assert world.late[id] <= 12.0
        await world.leave([key for key in world.tasks if key != id])
        assert world.clock.timers == 0

    async def test_end_on_a_page_of_the_caller(self, world: WatchWorld) -> None:
        """So is one that a page shows which the caller reads, whatever the workflow's stream says."""

        async def talk(record: Record) -> AsyncGenerator[bytes, None]:
            while True:
                yield event({"status": "running"})
                await world.clock.sleep(2.0)

        world.service.talk = talk
        id = world.submit(10.0)
        await world.clock.advance(20.0)
        assert world.late == {}
        resource = WorkflowsResource(world.ledger.recording(world.service.send), world.service.open)
        reading = asyncio.ensure_future(resource.list().page(1))
        await world.clock.advance(6.0)
        await reading
        assert id in world.late

    async def test_end_on_a_page_first(self) -> None:
        """The stream of a workflow that a page showed as ended may still bring its outputs."""
        world = WatchWorld(max_streams=1)
        id = world.submit(60.5)
        for _ in range(12):
            world.submit(1000.0)
        await world.clock.advance(70.0)
        assert len(world.updates[-1].outputs) == 1
        assert world.late[id] <= 2.0
        await world.leave([key for key in world.tasks if key != id])


class TestPages:
    """Many are watched by pages of the listing."""

    async def test_hundred(self) -> None:
        """A hundred are told of their ends within 2 s in the median, for one request each 3 s."""
        world = WatchWorld(max_streams=0)
        for number in range(100):
            world.submit(60.0 + number * 0.6)
        await world.clock.advance(125.0)
        assert len(world.late) == 100
        assert sorted(world.late.values())[50] <= 2.0
        assert max(world.late.values()) <= 7.5
        assert world.service.count("?page=1") == len(world.service.asked) <= 60
        assert running() == set()

    async def test_scarce(self) -> None:
        """While others wait for the limiter, looks are rarer, and no workflow is unseen for much longer than 10 s."""
        world = WatchWorld(max_streams=0)
        world.limiter.waiting[Priority.NORMAL] = 1
        for number in range(100):
            world.submit(60.0 + number * 0.6, outputs=False)
        await world.clock.advance(131.0)
        assert len(world.service.asked) <= 20
        assert max(world.late.values()) <= 11.2
        await world.leave()

    async def test_several_pages(self) -> None:
        """Four hundred, of which the older end first, cost few requests each."""
        world = WatchWorld(max_streams=0)
        for _ in range(40):
            for _ in range(10):
                world.submit(60.0)
            await world.clock.advance(1.0)
        await world.clock.advance(70.0)
        assert len(world.late) == 400
        assert sorted(world.late.values())[200] <= 3.0
        assert max(world.late.values()) <= 12.0
        assert len(world.service.asked) <= 0.4 * 400

    async def test_others_submit(self) -> None:
        """While another client pushes them down the listing, they are still found, page by page."""
        world = WatchWorld(max_streams=0)
        for _ in range(30):
            world.submit(60.0)
        for _ in range(640):
            world.service.add(1000.0)
            await world.clock.advance(0.1)
        assert len(world.late) == 30
        assert max(world.late.values()) <= 4.0
        assert world.service.count("?page=1") < len(world.service.asked) < 90

    async def test_jump(self) -> None:
        """When another client makes so many at once that three pages do not help, they are asked for by id."""
        world = WatchWorld(max_streams=0)
        for _ in range(5):
            world.submit(60.0)
        await world.clock.advance(10.0)
        for _ in range(900):
            world.service.add(1000.0)
        await world.clock.advance(54.0)
        assert len(world.late) == 5
        assert max(world.late.values()) <= 4.0

    async def test_deleted_neighbours(self) -> None:
        """When newer ones are deleted, they are found on an earlier page."""
        world = WatchWorld(max_streams=0)
        old = [world.submit(60.0) for _ in range(20)]
        await world.clock.advance(2.0)
        newer = [world.submit(1000.0) for _ in range(250)]
        await world.clock.advance(10.0)
        await world.leave(newer)
        for id in newer:
            del world.service.records[id]
        await world.clock.advance(54.0)
        assert set(world.late) == set(old)
        assert max(world.late.values()) <= 5.0

    async def test_listed_late(self) -> None:
        """New ones that are not listed yet are not thought to be elsewhere."""
        world = WatchWorld(max_streams=0)
        world.service.hidden = 4.0
        for _ in range(150):
            world.submit(40.0)
            await world.clock.advance(0.3)
        await world.clock.advance(50.0)
        assert len(world.late) == 150
        assert sum("?page" not in line for line in world.service.asked) < 10
        assert len(world.service.asked) <= 80

    async def test_unknown_places(self) -> None:
        """Workflows that were made elsewhere are found page by page, the one that is not listed by its id."""
        world = WatchWorld(max_streams=0)
        ids = [world.service.add(60.0, age=5.0) for _ in range(150)]
        for id in ids[::3]:
            world.wait(id)
        await world.clock.advance(1.0)
        assert world.service.asked == ["GET /v1/workflow?page=1"]
        await world.clock.advance(63.0)
        assert len(world.late) == 50
        assert max(world.late.values()) <= 4.0
        assert all("?page" in line for line in world.service.asked)

    async def test_invalid(self) -> None:
        """A workflow that a page shows as invalid has ended."""
        world = WatchWorld(max_streams=0)
        ids = [world.service.add(20.0, "invalid") for _ in range(12)]
        for id in ids:
            world.wait(id)
        await world.clock.advance(25.0)
        assert len(world.late) == 12
        assert world.updates[-1].status == "invalid"

    async def test_late_streams(self, world: WatchWorld) -> None:
        """When outputs are wanted, streams are opened for those that should end next: they bring them along."""
        for _ in range(60):
            world.submit(30.0, batch=True)
            await world.clock.advance(1.0)
        await world.clock.advance(35.0)
        assert len(world.late) == 60
        assert sum(len(update.outputs) for update in world.updates) >= 40
        assert len(world.service.asked) <= 130

    @pytest.mark.parametrize(("turn", "asked"), [(0.0, 18.0), (10.0, 8.0)], ids=["free", "10-s"])
    async def test_late_streams_in_line(self, world: WatchWorld, turn: float, asked: float) -> None:
        """A late stream gets into the limiter's line so early that its turn comes when its workflow should end."""
        for _ in range(5):
            world.submit(20.0, batch=True, outputs=False)
        await world.clock.advance(30.0)
        world.limiter.next_free_in = turn
        world.submit(20.0, batch=True)
        await world.clock.advance(asked - 1.5)
        assert world.service.count("subscribe") == 0
        await world.clock.advance(3.0)
        assert world.service.count("subscribe") == 1

    async def test_lane(self) -> None:
        """A stream that brings the outputs along goes in the client's own lane; one for the state alone in BULK."""
        world = WatchWorld()
        bulk, own = FakeService(world.clock), FakeService(world.clock)
        lanes = [Route(service.send, service.resource(), service.open) for service in (bulk, own)]
        watcher = Watcher(lanes[0], WatchPolicy(), lambda: world.limiter, world.ledger, world.clock)
        for outputs, service in ((True, own), (False, bulk)):
            id = service.add(5.0)
            known = merge(None, await service.resource().get(id))
            service.asked.clear()
            states = watcher.follow(known, lanes[1], outputs=outputs)
            task = asyncio.create_task(_read(states))
            await world.clock.advance(10.0)
            assert (await task)[-1].status == "completed"
            assert service.asked == [f"GET /v1/workflow/{id}/subscribe"]

    async def test_no_streams_for_states(self, world: WatchWorld) -> None:
        """In a batch that wants no outputs there is no stream at all."""
        for _ in range(5):
            world.submit(30.0, batch=True, outputs=False)
        await world.clock.advance(35.0)
        assert len(world.late) == 5
        assert world.service.count("subscribe") == 0


class TestErrors:
    """What ends a wait besides its workflow."""

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(APIError(302, "moved"), id="302"),
            pytest.param(BadRequestError(400, "no"), id="400"),
            pytest.param(PermissionDeniedError(403, "no"), id="403"),
            pytest.param(NotFoundError(404, "no"), id="404"),
            pytest.param(APIError(408, "slow"), id="408"),
            pytest.param(APIError(425, "early"), id="425"),
            pytest.param(ResponseFormatError("HTML where JSON is due"), id="html"),
            pytest.param(RateLimitWaitError(5.0, 1.0), id="limit"),
        ],
    )
    @pytest.mark.parametrize("lasting", [False, True], ids=["once", "for-good"])
    async def test_odd_answer_to_the_shared_poll(self, error: Exception, lasting: bool) -> None:
        """It says nothing of one workflow: it is a failed poll, and ends the waits only after the longest outage."""
        world = WatchWorld(max_streams=0)
        for _ in range(12):
            world.submit(100.0)
        await world.clock.advance(20.0)
        left = [error]

        def fault(line: str) -> None:
            if "?page" in line and left:
                raise left[0] if lasting else left.pop()

        world.service.fault = fault
        await world.clock.advance(85.0)
        assert world.errors == {}
        await world.clock.advance(70.0)
        assert len(world.late) == (0 if lasting else 12)
        assert {type(found) for found in world.errors.values()} == ({type(error)} if lasting else set())

    async def test_shown_to_a_person(self) -> None:
        """While a caller is shown every update, polls do not wait behind what others send."""
        world = WatchWorld(max_streams=0)
        direct: list[str] = []

        async def send(request: Any) -> Any:
            direct.append(request.path)
            return await world.service.send(request)

        open = world.service.open
        bulk = Route(world.service.send, world.service.resource(), open, Priority.BULK)
        world.route = Route(send, WorkflowsResource(send, open), open)
        world.watcher = Watcher(bulk, WatchPolicy(max_streams=0), lambda: world.limiter, world.ledger, world.clock)
        world.limiter.waiting[Priority.NORMAL] = 1
        world.submit(100.0)
        await world.clock.advance(40.0)
        assert direct == []
        await world.leave()
        world.submit(100.0, live=True)
        await world.clock.advance(40.0)
        assert 3 <= len(direct) <= 5
        await world.leave()

    @pytest.mark.parametrize("streams", [pytest.param(8, id="stream"), pytest.param(0, id="look")])
    async def test_vanished(self, streams: int) -> None:
        """A workflow that does not exist any more ends its wait with NotFoundError, and no other wait."""
        world = WatchWorld(max_streams=streams)
        ids = [world.submit(100.0) for _ in range(12)]
        await world.clock.advance(20.0)
        del world.service.records[ids[3]]
        world.service.cut_streams()
        await world.clock.advance(70.0)
        assert {key: type(error) for key, error in world.errors.items()} == {ids[3]: NotFoundError}
        await world.clock.advance(20.0)
        assert len(world.late) == 11

    async def test_missing_at_first(self) -> None:
        """A 404 for a workflow that was made here some seconds ago is a failed poll: it may be shown late."""
        world = WatchWorld(max_streams=0)
        id = world.submit(60.0)

        def fault(line: str) -> None:
            if id in line and world.clock.monotonic() < 1008.0:
                raise NotFoundError(404, "requested entity not found")

        world.service.fault = fault
        await world.clock.advance(66.0)
        assert world.errors == {}
        assert id in world.late

    @pytest.mark.parametrize("many", [pytest.param(1, id="by-id"), pytest.param(12, id="by-page")])
    async def test_outage(self, many: int) -> None:
        """Polls that keep failing end every wait with their error, after two minutes and with pauses that grow."""
        world = WatchWorld(max_streams=0)
        ids = [world.submit(1000.0) for _ in range(many)]
        await world.clock.advance(20.0)
        asked = len(world.service.asked)

        def fault(line: str) -> None:
            raise DOWN

        world.service.fault = fault
        await world.clock.advance(119.0)
        assert world.errors == {}
        await world.clock.advance(31.0)
        assert {type(error) for error in world.errors.values()} == {ServerError}
        assert set(world.errors) == set(ids)
        assert len({id(error) for error in world.errors.values()}) == many
        assert len(world.service.asked) - asked < 30
        assert running() == set()

    async def test_outage_that_passes(self) -> None:
        """Polls that fail for a minute and a half end nothing."""
        world = WatchWorld(max_streams=0)
        for _ in range(12):
            world.submit(200.0)
        await world.clock.advance(20.0)

        def fault(line: str) -> None:
            raise ResponseLostError("lost")

        world.service.fault = fault
        await world.clock.advance(90.0)
        world.service.fault = lambda line: None
        await world.clock.advance(100.0)
        assert world.errors == {}
        assert len(world.late) == 12

    async def test_one_that_cannot_be_asked_for(self) -> None:
        """One whose own request keeps failing ends with the error, although the pages go on well."""
        world = WatchWorld(max_streams=0)
        lost = world.submit(10_000.0)
        others = [world.submit(400.0) for _ in range(10)]
        await world.clock.advance(10.0)
        hidden = world.service.records.pop(lost)

        def fault(line: str) -> None:
            if hidden.id in line:
                raise DOWN

        world.service.fault = fault
        await world.clock.advance(260.0)
        assert {key: type(error) for key, error in world.errors.items()} == {lost: ServerError}
        await world.clock.advance(150.0)
        assert set(world.late) == set(others)

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(AuthenticationError(401, "revoked"), id="token"),
            pytest.param(ZeroDivisionError("a mistake of ours"), id="bug"),
        ],
    )
    async def test_for_all(self, error: Exception) -> None:
        """What no waiting repairs ends all waits at once, our own mistakes too: no caller waits for a dead task."""
        world = WatchWorld(max_streams=3)
        for _ in range(12):
            world.submit(60.0)

        def fault(line: str) -> None:
            raise error

        world.service.fault = fault
        await world.clock.advance(10.0)
        assert {type(it) for it in world.errors.values()} == {type(error)}
        assert len(world.errors) == 12
        assert running() == set()

    async def test_refused_id(self) -> None:
        """A refusal that concerns one workflow ends only its wait."""
        world = WatchWorld(max_streams=0)
        id, other = world.submit(20.0), world.submit(20.0)

        def fault(line: str) -> None:
            if id in line:
                raise BadRequestError(400, "no such id")

        world.service.fault = fault
        await world.clock.advance(25.0)
        assert isinstance(world.errors[id], BadRequestError)
        assert other in world.late

    async def test_planning_fails(self, world: WatchWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        """A limiter that fails ends the waits instead of the task alone."""

        def fail() -> None:
            raise ConnectionError("the limiter's server is gone")

        monkeypatch.setattr(world.limiter, "snapshot", fail)
        for _ in range(9):
            world.submit(60.0)
        await world.clock.advance(5.0)
        assert [type(error) for error in world.errors.values()] == [ConnectionError]

    async def test_closed(self, world: WatchWorld) -> None:
        """Closing ends every wait, by stream or otherwise."""
        for _ in range(12):
            world.submit(60.0)
        await world.clock.advance(5.0)
        await world.watcher.close()
        await world.clock.advance(0.0)
        assert {type(error) for error in world.errors.values()} == {ClientClosedError}
        assert len(world.errors) == 12


class TestLeaving:
    """Who comes and goes."""

    async def test_two_followers(self, world: WatchWorld) -> None:
        """Two who follow one workflow share its stream, and the one who stays loses nothing."""
        id = world.submit(60.0)
        world.wait(id, key="second")
        await world.clock.advance(10.0)
        assert world.service.count("subscribe") == 1
        await world.leave([id])
        await world.clock.advance(52.0)
        assert set(world.late) == {"second"}
        assert len(world.service.asked) == 1

    async def test_last_one_leaves(self, world: WatchWorld) -> None:
        """When the last one goes, streams and looks stop at once, whatever they were about."""
        for _ in range(12):
            world.submit(60.0)
        for moment in (0.0, 0.02, 0.06, 1.02, 2.5):
            await world.clock.advance(moment)
            await world.leave()
            assert running() == set()
            assert world.service.open_streams == 0
            for _ in range(12):
                world.submit(60.0)

    async def test_join_while_leaving(self, world: WatchWorld) -> None:
        """One who joins while the last one is leaving is watched."""
        id = world.submit(60.0)
        await world.clock.advance(5.0)
        world.tasks[id].cancel()
        await asyncio.sleep(0)
        world.wait(id, key="second")
        await world.clock.advance(60.0)
        assert set(world.late) == {"second"}
        assert max(world.late.values()) <= 2.0

    async def test_joins_and_leaves_all_the_time(self) -> None:
        """No caller is lost among many that come and go."""
        world = WatchWorld(max_streams=2)
        staying = [world.submit(100.0) for _ in range(20)]
        for number in range(90):
            passing = [world.submit(1000.0) for _ in range(number % 5)]
            await world.clock.advance(1.0)
            await world.leave(passing)
        await world.clock.advance(20.0)
        assert set(world.late) == set(staying)
        assert max(world.late.values()) <= 4.0
        assert running() == set()

    async def test_outputs_wanted_later(self) -> None:
        """When one who wants the outputs joins one who did not, they are wanted."""
        world = WatchWorld(max_streams=2)
        for _ in range(6):
            world.submit(10.0, batch=True)
            await world.clock.advance(3.0)
        id = world.submit(40.0, batch=True, outputs=False)
        await world.clock.advance(20.0)
        assert world.service.count(f"{id}/subscribe") == 0
        world.wait(id, key="second")
        await world.clock.advance(22.0)
        assert world.service.asked[-1] == f"GET /v1/workflow/{id}/subscribe"
        assert set(world.late) > {id, "second"}

    async def test_ended_before(self, world: WatchWorld) -> None:
        """Who joins after the end is told it."""
        id = world.service.add(0.0)
        world.wait(id)
        await world.clock.advance(1.0)
        assert world.updates[-1].status == "completed"

    async def test_late_joiner_is_looked_for_at_once(self) -> None:
        """A workflow that was made long before it is waited for is looked for at once."""
        world = WatchWorld(max_streams=0)
        ids = [world.service.add(20.0) for _ in range(20)]
        for id in ids:
            world.ledger.record(id)
        await world.clock.advance(60.0)
        for id in ids:
            world.wait(id)
        await world.clock.advance(1.0)
        assert len(world.late) == 20
        assert world.service.asked == ["GET /v1/workflow?page=1"]

    def test_two_loops(self) -> None:
        """A watcher whose loop was closed starts over on the next one, and may be closed there."""
        world = WatchWorld()
        loop = asyncio.new_event_loop()

        async def begin() -> None:
            id = world.submit(60.0)
            await world.clock.advance(5.0)
            await world.leave([id])

        async def close() -> None:
            await world.watcher.close()

        loop.run_until_complete(begin())
        loop.close()
        asyncio.run(close())
        asyncio.run(begin())


async def test_slow_reader(world: WatchWorld) -> None:
    """Who takes the updates slowly gets the latest, and the end when it comes back."""
    id = world.service.add(30.0)
    async with aclosing(world.watcher.follow(world.known(id), world.route)) as updates:
        first = asyncio.ensure_future(anext(updates))
        await world.clock.advance(60.0)
        assert (await first).status == "running"
        assert (await anext(updates)).status == "completed"
        assert await anext(updates, None) is None


async def _read(states: AsyncGenerator[State, None]) -> list[State]:
    async with aclosing(states):
        return [state async for state in states]


async def test_learning() -> None:
    """Durations are learnt from workflows that were seen from their creation on, and thinned out when many."""
    world = WatchWorld()
    for _ in range(250):
        world.submit(20.0, batch=True, outputs=False)
    world.wait(world.service.add(5.0, age=1000.0))
    await world.clock.advance(25.0)
    known = world.watcher._durations.known
    assert 100 <= len(known) <= 200
    assert all(20.0 <= duration <= 24.0 for duration in known)


@pytest.mark.parametrize("batch", [pytest.param(False, id="stream"), pytest.param(True, id="polls")])
async def test_cancelled_by_something_else(world: WatchWorld, batch: bool) -> None:
    """A CancelledError of something that a request waited for, such as a user's limiter, ends the wait."""

    def fault(line: str) -> None:
        raise asyncio.CancelledError

    world.service.fault = fault
    id = world.submit(30.0, batch=batch, outputs=not batch)
    await world.clock.advance(60.0)
    assert "something that it waited for was cancelled" in str(world.errors[id])
    assert isinstance(world.errors[id], ComfyControlError)
