"""Keys, on a fake clock: two submits with one key give one workflow, whatever happens, and what that costs."""

import asyncio
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from comfycontrol_async import File, Graph, RetryPolicy
from comfycontrol_async.errors import (
    AuthenticationError,
    ClientClosedError,
    InvalidArgumentError,
    KeyConflictError,
    ResponseLostError,
    ServerError,
)
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._background import Background
from comfycontrol_async.runs._draft import prepare_submit
from comfycontrol_async.runs._key_index import KeyIndex
from comfycontrol_async.runs._keys import submit_once
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._marks import Marks, mark_of_key, read_marks, wire_name
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._submit import Submitter
from support.fake_service import FakeService, World
from support.threads import work_without_threads

T = TypeVar("T")

GRAPH = Graph(
    {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "$text(prompt)"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
)
LOST = ResponseLostError("lost")


class KeyedClient:
    """What one process knows: a client's ledger, index of keys and submitter."""

    def __init__(self, service: FakeService, *, dates: bool = True) -> None:
        self.clock = service.clock
        self.ledger = Ledger(service.clock)

        def server_time(moment: float) -> datetime | None:
            return service.time(moment).replace(microsecond=0) if dates else None

        send = self.ledger.recording(service.send)
        self.workflows = WorkflowsResource(send, service.open)
        self.index = KeyIndex(self.ledger, server_time, service.clock)
        self.background = Background()
        self.submitter = Submitter(
            route=Route(send, self.workflows, service.open),
            ledger=self.ledger,
            background=self.background,
            retry=RetryPolicy(),
            clock=service.clock,
            server_time=server_time,
        )

    async def submit(self, key: str, prompt: str = "a cat", *, max_age: float = 3600.0) -> WorkflowSummary:
        """Submit with a key."""
        draft = prepare_submit(GRAPH, None, {"prompt": prompt}, (), key)
        return await submit_once(self.index, self.submitter, draft, max_age)


class KeyWorld(World):
    """A service and any number of processes."""

    def __init__(self) -> None:
        super().__init__(step=0.25)

    def process(self) -> KeyedClient:
        """Start a process."""
        return KeyedClient(self.service)

    @property
    def made(self) -> int:
        """How many workflows there are."""
        return len(self.service.records)


@pytest.fixture
async def world() -> KeyWorld:
    """Make a world; forms are prepared at once, not in threads."""
    work_without_threads()
    return KeyWorld()


class TestMarks:
    """The name on the wire."""

    def test_stable(self) -> None:
        """Marks are kept at the service, so they are the same in every version."""
        assert mark_of_key("order-17") == "72a90ea3da8b5dd0"

    def test_name(self) -> None:
        """The base is cut to fit, never the marks, and they are read back from the end of the name."""
        marks = Marks("0123456789abcdef", "fedcba9876543210")
        assert wire_name("cat", marks) == "cat~0123456789abcdef-fedcba9876543210"
        assert len(wire_name("x" * 300, marks)) == 200
        for base in ("cat", "x" * 300, "a~b", wire_name("cat", marks)):
            assert read_marks(wire_name(base, marks)) == marks

    @pytest.mark.parametrize(
        "name", ["", "cat", "cat~", "cat~0123456789abcdef", "cat~0123456789ABCDEF-fedcba9876543210", "~1-2"]
    )
    def test_no_marks(self, name: str) -> None:
        """Other names have no marks."""
        assert read_marks(name) is None

    async def test_of_a_submit(self, tmp_path: Any) -> None:
        """A keyed submit has no random bits: the same again has the same name; another content another mark."""
        names = [prepare_submit(GRAPH, None, {"prompt": p}, (), "k").name for p in ("a", "a", "b")]
        assert names[0] == names[1]
        assert names[0].startswith("workflow~" + mark_of_key("k"))
        assert [read_marks(name) for name in names[:2]] != [read_marks(name) for name in names[1:]]
        graph = tmp_path / "cats.json"
        graph.write_text(GRAPH.to_json())
        assert prepare_submit(str(graph), None, {"prompt": "a"}, ("gpu",), "k").name == names[0].replace(
            "workflow", "cats"
        )

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            pytest.param("", "must not be empty", id="empty"),
            pytest.param(5, "must be text", id="number"),
            pytest.param("a\ud800", "half a surrogate pair", id="surrogate"),
            pytest.param("x" * 20_000, "at most", id="long"),
        ],
    )
    async def test_bad_key(self, key: Any, message: str) -> None:
        """What can be no key is refused."""
        with pytest.raises(InvalidArgumentError, match=message):
            prepare_submit(GRAPH, None, {"prompt": "a"}, (), key)

    async def test_stream(self) -> None:
        """A stream that can be read only once is refused: the same submit again would send something else."""

        class Pipe:
            def read(self, size: int = -1) -> bytes:
                return b""

            def seekable(self) -> bool:
                return False

        graph = Graph({"1": {"class_type": "SaveImage", "inputs": {"images": "$file(image)"}}})
        with pytest.raises(InvalidArgumentError, match="only once"):
            prepare_submit(graph, None, {"image": File(Pipe())}, (), "k")  # type: ignore[arg-type] # as little


class TestOnce:
    """One key, one workflow."""

    async def test_again_in_another_process(self, world: KeyWorld) -> None:
        """A task that is delivered again finds what the first made: at once, and after minutes."""
        first = await world.finish(world.process().submit("k"))
        again = await world.finish(world.process().submit("k"))
        await world.clock.advance(600.0)
        late = await world.finish(world.process().submit("k"))
        assert {first.id, again.id, late.id} == set(world.service.records)

    async def test_killed_between_post_and_answer(self, world: KeyWorld) -> None:
        """The workflow of a process that died before it had the answer is adopted by the next."""
        world.service.latency = 5.0
        dying = asyncio.ensure_future(world.process().submit("k"))
        while not world.made:
            await world.clock.advance(0.0)
            await world.clock.advance(0.25)
        dying.cancel()  # its index and ledger are gone with it
        world.service.latency = 0.05
        adopted = await world.finish(world.process().submit("k"))
        assert [adopted.id] == list(world.service.records)

    async def test_far_down(self, world: KeyWorld) -> None:
        """It is found behind 250 workflows of others."""
        first = await world.finish(world.process().submit("k"))
        for _ in range(250):
            world.service.add(name="other")
        assert (await world.finish(world.process().submit("k"))).id == first.id

    async def test_other_content(self, world: KeyWorld) -> None:
        """The same key for another content is an error that names the first, and nothing is made."""
        first = await world.finish(world.process().submit("k"))
        for process in (world.process(), world.process()):
            with pytest.raises(KeyConflictError) as caught:
                await world.finish(process.submit("k", "a dog"))
            assert (caught.value.key, caught.value.id, caught.value.workflow_id) == ("k", first.id, first.id)
        assert world.made == 1

    @pytest.mark.parametrize("whole", [True, False], ids=["whole-when-fetched", "broken"])
    async def test_unreadable(self, world: KeyWorld, whole: bool) -> None:
        """One whose item in the listing cannot be read was made all the same: nothing is made twice."""
        first = await world.finish(world.process().submit("k"))
        record = world.service.records[first.id]
        record.unreadable, record.whole = True, whole
        again = await world.finish(world.process().submit("k"))
        assert (again.id, world.made) == (first.id, 1)

    async def test_other_keys(self, world: KeyWorld) -> None:
        """Other keys make workflows of their own."""
        process = world.process()
        ids = {(await world.finish(process.submit(key))).id for key in ("a", "b", "c")}
        assert len(ids) == world.made == 3

    @pytest.mark.parametrize(
        ("outcome", "adopted"),
        [("completed", True), ("failed", True), ("invalid", True), ("cancelled", False)],
    )
    @pytest.mark.parametrize("same", [True, False], ids=["same-process", "another"])
    async def test_ended(self, world: KeyWorld, outcome: str, adopted: bool, same: bool) -> None:
        """What ended counts, however it ended; only what was cancelled does not."""
        process = world.process()
        first = await world.finish(process.submit("k"))
        world.service.records[first.id].outcome = outcome
        world.service.finish(first.id)
        second = await world.finish((process if same else world.process()).submit("k"))
        assert (second.id == first.id) is adopted

    async def test_rerun(self, world: KeyWorld) -> None:
        """A rerun made by this client has the same name, and does not count; the original does."""
        process = world.process()
        first = await world.finish(process.submit("k"))
        again = await world.finish(process.workflows.rerun(first.id))
        assert (await world.finish(process.submit("k"))).id == first.id
        world.service.records[first.id].outcome = "cancelled"
        world.service.finish(first.id)
        third = await world.finish(process.submit("k"))
        assert third.id not in (first.id, again.id)

    async def test_too_old(self, world: KeyWorld) -> None:
        """A key counts for as long as `key_max_age` says."""
        first = await world.finish(world.process().submit("k"))
        await world.clock.advance(100.0)
        assert (await world.finish(world.process().submit("k", max_age=110.0))).id == first.id
        process = world.process()
        second = await world.finish(process.submit("k", max_age=50.0))
        assert second.id != first.id
        assert (await world.finish(process.submit("k", max_age=50.0))).id == second.id

    async def test_no_look(self, world: KeyWorld) -> None:
        """With `key_max_age=0` it is one POST, and the next submit finds it all the same."""
        first = await world.finish(world.process().submit("k", max_age=0.0))
        assert world.service.asked == ["POST /v1/workflow"]
        assert (await world.finish(world.process().submit("k"))).id == first.id

    async def test_vanished(self, world: KeyWorld) -> None:
        """One that was deleted since it was seen does not count."""
        process = world.process()
        first = await world.finish(process.submit("k"))
        world.service.add(name="other")
        del world.service.records[first.id]
        assert (await world.finish(process.submit("k"))).id != first.id

    @pytest.mark.parametrize("effect", [True, False], ids=["took-effect", "no-effect"])
    async def test_lost_answer(self, world: KeyWorld, effect: bool) -> None:
        """A keyed create whose answer is lost is looked for by its name, and sent again if it was not made."""
        left = [LOST]

        def fault(line: str) -> None:
            if line == "POST /v1/workflow" and left:
                raise left.pop()

        setattr(world.service, "lose" if effect else "fault", fault)
        summary = await world.finish(world.process().submit("k"))
        assert list(world.service.records) == [summary.id]
        assert world.service.count("POST") == (1 if effect else 2)

    async def test_lost_answer_and_clocks_that_differ(self, world: KeyWorld) -> None:
        """A lost create is found whatever its time says: the look before it showed what was there."""
        world.service.skew = timedelta(hours=2)
        left = [LOST]

        def fault(line: str) -> None:
            if line == "POST /v1/workflow" and left:
                raise left.pop()

        world.service.lose = fault
        summary = await world.finish(world.process().submit("k"))
        assert list(world.service.records) == [summary.id]

    @pytest.mark.parametrize("hours", [-7, 7])
    async def test_no_date(self, world: KeyWorld, hours: int) -> None:
        """Where no answer tells the service's time, this machine's clock may be hours off: the key counts still."""
        world.service.ahead = timedelta(hours=hours)
        first = await world.finish(KeyedClient(world.service, dates=False).submit("k"))
        assert (await world.finish(KeyedClient(world.service, dates=False).submit("k"))).id == first.id
        assert world.made == 1

    @pytest.mark.parametrize("hours", [-7, 7])
    @pytest.mark.parametrize("together", [False, True])
    async def test_wrong_date(self, world: KeyWorld, hours: int, together: bool) -> None:
        """A Date that is hours off the times of workflows, and off this machine's clock, makes nothing twice."""
        world.service.ahead = world.service.skew = timedelta(hours=hours)
        world.service.queued = 60.0
        if together:
            found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        else:
            found = [await world.finish(world.process().submit("k")) for _ in range(2)]
        assert len({summary.id for summary in found}) == 1
        assert [world.service.status(it) for it in world.service.records.values()].count("queued") == 1

    async def test_no_time(self, world: KeyWorld) -> None:
        """A workflow of the key that is shown with the year 1, which means no time, counts."""
        first = await world.finish(world.process().submit("k"))
        world.service.records[first.id].listed = {"created_at": "0001-01-01T00:00:00Z"}
        assert (await world.finish(world.process().submit("k"))).id == first.id

    async def test_lost_answer_after_an_old_one(self, world: KeyWorld) -> None:
        """One of the same key that is too old to count is not taken for the lost one."""
        old = await world.finish(world.process().submit("k"))
        await world.clock.advance(300.0)
        left = [LOST]

        def fault(line: str) -> None:
            if line == "POST /v1/workflow" and left:
                raise left.pop()

        world.service.lose = fault
        assert (await world.finish(world.process().submit("k", max_age=60.0))).id != old.id
        assert world.made == 2


class TestRaces:
    """Several callers at the same instant."""

    async def test_one_process(self, world: KeyWorld) -> None:
        """Callers of one process wait for each other: one workflow, one POST."""
        process = world.process()
        found = await world.finish(_all(process.submit("k") for _ in range(5)))
        assert len({summary.id for summary in found}) == world.made == 1
        assert world.service.count("POST") == 1

    async def test_two_processes(self, world: KeyWorld) -> None:
        """Two that both create keep the older one: the younger is cancelled while it waits."""
        world.service.queued = 60.0
        found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        assert len({summary.id for summary in found}) == 1
        states = [world.service.status(record) for record in world.service.records.values()]
        assert states == ["queued", "cancelled"]
        assert found[0].id == next(iter(world.service.records))

    async def test_not_queued_yet(self, world: KeyWorld) -> None:
        """A younger one that the API cannot cancel yet is cancelled as soon as it is queued."""
        world.service.early, world.service.queued = 7.0, 60.0
        found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        assert len({summary.id for summary in found}) == 1
        assert [world.service.status(it) for it in world.service.records.values()] == ["queued", "cancelled"]

    async def test_soon_running(self, world: KeyWorld) -> None:
        """A create is confirmed at once: the younger one is seen while it waits, though that is only for a second."""
        world.service.queued = 1.0
        found = await world.finish(_all(world.process().submit("k") for _ in range(4)))
        assert len({summary.id for summary in found}) == 1
        assert [world.service.status(it) for it in world.service.records.values()].count("cancelled") == 3

    @pytest.mark.parametrize("growing", [True, False], ids=["ids-grow", "ids-shrink"])
    async def test_same_second(self, world: KeyWorld, growing: bool) -> None:
        """Within one second the listing's order tells which is older: the first may have been confirmed long ago."""
        world.service.queued = 60.0
        world.service.ids_grow = growing
        world.service.before = _later_posts(world, [0.0, 0.6])
        found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        first, second = world.service.records.values()
        assert [summary.id for summary in found] == [first.id, first.id]
        assert second.created - first.created == pytest.approx(0.6, abs=0.2)
        assert [world.service.status(it) for it in (first, second)] == ["queued", "cancelled"]

    async def test_younger_of_the_dead(self, world: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        """A younger one whose caller died before it could look is cancelled by the older one's, and that is logged."""
        world.service.queued = 60.0
        world.service.latency = 1.0
        process = world.process()
        dying = asyncio.ensure_future(world.process().submit("k"))
        world.service.before = _later_posts(world, [1.25, 0.0])
        submit = asyncio.ensure_future(process.submit("k"))
        while world.made < 2:
            await world.clock.advance(0.0)
            await world.clock.advance(0.25)
        dying.cancel()
        kept = await world.finish(submit)
        assert kept.id == next(iter(world.service.records))
        await world.finish(world.clock.sleep(10.0))
        assert [world.service.status(it) for it in world.service.records.values()] == ["queued", "cancelled"]
        assert "was created twice: cancelling" in caplog.text

    async def test_both_cancelled(self, world: KeyWorld) -> None:
        """When the older one was cancelled, too, there is none of this key: it is created again."""
        world.service.queued = 60.0
        older = world.process()
        records = world.service.records

        def fault(line: str) -> None:
            if line.endswith("/cancel"):
                first = next(iter(records.values()))
                first.ends, first.outcome = world.clock.monotonic(), "cancelled"

        world.service.fault = fault
        found = await world.finish(_all([older.submit("k"), world.process().submit("k")]))
        assert world.made == 3
        assert found[1].id == [*records][2]

    async def test_acted_late(self, world: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        """A lost create that takes effect after it was sent again is cancelled, and logged."""
        world.service.queued, world.service.duration = 200.0, 300.0
        left = [LOST]

        def fault(line: str) -> None:
            if line == "POST /v1/workflow" and left:
                raise left.pop()

        world.service.fault = fault
        made = await world.finish(world.process().submit("k"))
        world.service.add(300.0, name=made.name)
        await world.finish(world.clock.sleep(40.0))
        assert [world.service.status(it) for it in world.service.records.values()] == ["queued", "cancelled"]
        assert "was created twice: cancelling" in caplog.text

    async def test_both_run(self, world: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        """When the younger one has begun before it is seen, its caller keeps it, and that is logged."""
        found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        assert len({summary.id for summary in found}) == world.made == 2
        assert "two workflows of one key run" in caplog.text

    async def test_other_content(self, world: KeyWorld) -> None:
        """Of two contents under one key the older wins; the younger is cancelled, and its caller is told."""
        world.service.queued = 60.0
        first, second = world.process(), world.process()
        found = await world.finish(
            asyncio.ensure_future(
                asyncio.gather(first.submit("k"), second.submit("k", "a dog"), return_exceptions=True)
            )
        )
        winner, loser = sorted(found, key=lambda result: isinstance(result, Exception))
        assert isinstance(loser, KeyConflictError)
        assert isinstance(winner, WorkflowSummary)
        assert loser.id == winner.id
        assert [world.service.status(it) for it in world.service.records.values()] == ["queued", "cancelled"]

    @pytest.mark.parametrize("lag", [1.5, 8.0, 25.0])
    async def test_listed_late(self, world: KeyWorld, lag: float) -> None:
        """Two at once are told apart although the listing shows new ones late: it is looked at until it shows them."""
        world.service.hidden, world.service.queued, world.service.duration = lag, 60.0, 100.0
        found = await world.finish(_all(world.process().submit("k") for _ in range(2)))
        assert len({summary.id for summary in found}) == 1

    async def test_never_listed(self, world: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        """A listing that does not show it for 30 s is not waited for longer."""
        world.service.hidden = 1000.0
        await world.finish(world.process().submit("k"))
        assert "the listing has not shown" in caplog.text
        assert world.made == 1


class TestFaults:
    """Looks that fail."""

    @pytest.mark.parametrize(
        "error", [ServerError(502, "bad gateway"), AuthenticationError(401, "revoked")], ids=["502", "401"]
    )
    async def test_before(self, world: KeyWorld, error: Exception) -> None:
        """When the listing cannot be read nothing is sent, and each caller gets an error of its own."""

        def fault(line: str) -> None:
            raise error

        world.service.fault = fault
        process = world.process()
        work = asyncio.gather(*(process.submit(key) for key in "abc"), return_exceptions=True)
        found = await world.finish(asyncio.ensure_future(work))
        assert [type(result) for result in found] == [type(error)] * 3
        assert len({id(result) for result in found}) == 3
        assert world.service.count("POST") == 0
        world.service.fault = lambda line: None
        await world.finish(process.submit("a"))
        assert world.made == 1

    async def test_after(self, world: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        """When the confirming look fails, the workflow that was made is returned, and that is logged."""

        def fault(line: str) -> None:
            if world.made and "?page" in line:
                raise ServerError(502, "bad gateway")

        world.service.fault = fault
        summary = await world.finish(world.process().submit("k"))
        assert [summary.id] == list(world.service.records)
        assert "could not be confirmed" in caplog.text

    async def test_closed(self, world: KeyWorld) -> None:
        """Closing ends those who wait for a look."""
        process = world.process()
        world.service.latency = 100.0
        waiting = asyncio.ensure_future(process.submit("k"))
        await world.clock.advance(0.0)
        await process.index.close()
        with pytest.raises(ClientClosedError):
            await world.finish(waiting)

    async def test_cancelled(self, world: KeyWorld) -> None:
        """A submit that is cancelled while it looks leaves nothing behind, and the others go on."""
        process = world.process()
        first, second = (asyncio.ensure_future(process.submit(key)) for key in "ab")
        await world.clock.advance(0.0)
        first.cancel()
        await world.finish(second)
        assert world.made == 1
        await world.clock.advance(10.0)
        assert world.clock.timers == 0


class TestCost:
    """How many requests a key costs."""

    async def test_figures(self, world: KeyWorld) -> None:
        """5,000 workflows in the last hour: the first look, then a hundred at once, then two a second."""
        for number in range(5000):
            world.service.add(name="other", age=3600.0 * (5000 - number) / 5000)
        process = world.process()
        await world.finish(process.submit("first", max_age=3600.0))
        first = world.service.count("GET")
        assert first <= 51 + 1  # one more confirms its create

        before = len(world.service.asked)
        await world.finish(_all(process.submit(f"at-once-{number}") for number in range(100)))
        assert len(world.service.asked) - before - 100 <= 6

        before, tasks = len(world.service.asked), []
        for number in range(240):
            tasks.append(asyncio.ensure_future(process.submit(f"stream-{number}")))
            await world.clock.advance(0.0)
            await world.clock.advance(0.5)
        await world.finish(_all(tasks))
        more = (len(world.service.asked) - before - 240) / 240
        assert more <= 0.6
        assert world.service.count("POST") == 341

    async def test_slow_limiter(self, world: KeyWorld) -> None:
        """Creates that trickle out over half a minute are confirmed a few times, not each 2 s."""
        process = world.process()
        await world.finish(process.submit("first"))
        turn = asyncio.Semaphore(1)

        async def slow(line: str) -> None:
            async with turn:
                await world.clock.sleep(0.25)

        world.service.before = slow
        before = world.service.count("GET")
        await world.finish(_all(process.submit(f"key-{number}") for number in range(100)))
        assert world.service.count("GET") - before <= 6

    async def test_look_that_waits_for_its_turn(self, world: KeyWorld) -> None:
        """What is created while a look waits for its turn at the limiter is confirmed by it too."""
        process = world.process()
        await world.finish(process.submit("first"))
        await world.clock.advance(10.0)
        turn, delays = asyncio.Event(), [0.0, 0.0, 8.0]

        async def before(line: str) -> None:
            if line.startswith("GET"):
                await turn.wait()
            else:
                await world.clock.sleep(delays.pop(0))

        turn.set()
        world.service.before = before
        tasks = [asyncio.ensure_future(process.submit(f"key-{number}")) for number in range(3)]
        await world.clock.advance(1.0)
        turn.clear()
        looked = world.service.count("GET")
        await world.clock.advance(6.0)
        assert world.service.count("GET") == looked + 1  # it gathered for 5 s, and waits for its turn
        await world.clock.advance(3.0)
        turn.set()
        await world.finish(_all(tasks), 1.0)
        assert world.service.count("GET") == looked + 1

    async def test_seen_in_a_poll(self, world: KeyWorld) -> None:
        """A create that any page shows is confirmed by that, also when its own look failed to come."""
        process = world.process()
        await world.finish(process.submit("first"))
        for _ in range(2):  # the looks that may follow each other at once
            await world.finish(process.submit(f"key-{_}"))
        task = asyncio.ensure_future(process.submit("k"))
        await world.clock.advance(0.0)
        while world.service.count("POST") < 4:
            await world.clock.advance(0.1)
        await world.clock.advance(0.1)
        assert not task.done()
        await world.finish(process.workflows.list().page(1), 1.0)
        await world.clock.advance(0.0)
        assert task.done()

    async def test_found_in_a_poll(self, world: KeyWorld) -> None:
        """Marks that any page showed are known: what is final there needs no request at all."""
        summary = await world.finish(world.process().submit("k"))
        world.service.finish(summary.id)
        process = world.process()
        await world.finish(process.workflows.list().page(1))
        before = len(world.service.asked)
        assert (await world.finish(process.submit("k"))).id == summary.id
        assert len(world.service.asked) == before


def _later_posts(world: KeyWorld, delays: list[float]) -> Any:
    """Let the next creates take so much longer to arrive."""

    async def before(line: str) -> None:
        if line == "POST /v1/workflow" and delays:
            await world.clock.sleep(delays.pop(0))

    return before


async def _all(work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))


def test_another_loop() -> None:
    """A submit that waited when its event loop was closed does not harm the next one, whose pages show its workflow."""
    world = KeyWorld()
    process = world.process()

    async def begin() -> None:
        work_without_threads()
        waiting = asyncio.create_task(process.submit("k"))
        world.service.hidden = 1000.0
        while world.service.count("POST") < 1:
            await world.clock.advance(0.1)
        await world.clock.advance(5.0)
        assert not waiting.done()

    async def go_on() -> str:
        work_without_threads()
        world.service.hidden = 0.0
        return (await world.finish(process.submit("k"))).id

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    assert asyncio.run(go_on()) in world.service.records
    assert world.made == 1
