"""Submitting exactly once, on a fake clock: what is done when the answer is lost."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest

from comfycontrol_async import RetryPolicy
from comfycontrol_async._http._multipart import Form
from comfycontrol_async.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ComfyControlError,
    ConnectionFailedError,
    NotFoundError,
    RateLimitWaitError,
    ResponseFormatError,
    ResponseLostError,
    ServerError,
    SubmitOutcomeUnknownError,
)
from comfycontrol_async.graph._graph import Graph
from comfycontrol_async.models import WorkflowSummary
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.runs._background import Background
from comfycontrol_async.runs._draft import prepare_submit
from comfycontrol_async.runs._ledger import Ledger
from comfycontrol_async.runs._route import Route
from comfycontrol_async.runs._submit import Submitter, unique_name
from comfycontrol_async.testing import FakeClock
from support.fake_service import World

T = TypeVar("T")

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"color": "$text(color)"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
LOST = ResponseLostError("lost")


class SubmitWorld(World):
    """A service, and a client's submitter; `dates` says whether answers tell the server's time."""

    def __init__(self, *, dates: bool = True, attempts: int = 5) -> None:
        super().__init__(latency=0.1)
        self.dates = dates

        def server_time(moment: float) -> datetime | None:
            return self.service.time(moment).replace(microsecond=0) if self.dates else None

        self.ledger = Ledger(self.clock)
        self.background = Background()
        send = self.ledger.recording(self.service.send)
        self.submitter = Submitter(
            route=Route(send, WorkflowsResource(send, self.service.open), self.service.open),
            ledger=self.ledger,
            background=self.background,
            retry=RetryPolicy(attempts=attempts),
            clock=self.clock,
            server_time=server_time,
        )

    def lose(self, times: int = 1, error: Exception = LOST, *, effect: bool = True) -> None:
        """Let the next creating requests end in an error, after they took effect or before."""
        left = [times]

        def fault(line: str) -> None:
            if line == "POST /v1/workflow" and left[0]:
                left[0] -= 1
                raise error

        setattr(self.service, "lose" if effect else "fault", fault)

    def fail_looks(self, error: Exception, times: int = 1000) -> None:
        """Let the next looks at the listing fail."""
        left = [times]
        others = self.service.fault

        def fault(line: str) -> None:
            others(line)
            if "?page" in line and left[0]:
                left[0] -= 1
                raise error

        self.service.fault = fault

    def submit(self, name: str = "row", **options: Any) -> Coroutine[Any, Any, WorkflowSummary]:
        """Submit a workflow."""
        return self.submitter.submit(Form([("name", name)]), name, **options)

    @property
    def names(self) -> list[str]:
        """The names of all workflows there are."""
        return [record.name for record in self.service.records.values()]


async def test_good() -> None:
    """A submit that is answered is one request."""
    world = SubmitWorld()
    assert (await world.finish(world.submit())).name == "row"
    assert world.service.asked == ["POST /v1/workflow"]


@pytest.mark.parametrize("dates", [pytest.param(True, id="date"), pytest.param(False, id="no-date")])
@pytest.mark.parametrize("hidden", [pytest.param(0.0, id="listed"), pytest.param(8.0, id="listed-late")])
@pytest.mark.parametrize(
    "error",
    [
        pytest.param(LOST, id="lost"),
        pytest.param(ServerError(500, "oops"), id="500"),
        pytest.param(ServerError(503, "busy"), id="503"),
        pytest.param(ResponseFormatError("HTML where JSON is due"), id="nonsense"),
    ],
)
async def test_took_effect(error: Exception, hidden: float, dates: bool) -> None:
    """A workflow that was made, though its answer was lost or an error, is found, even if it is listed late."""
    world = SubmitWorld(dates=dates)
    world.service.hidden = hidden
    world.lose(error=error)
    summary = await world.finish(world.submit())
    assert world.names == ["row"]
    assert summary.id in world.service.records
    assert world.service.count("POST") == 1


@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(2, id="twice")])
async def test_took_no_effect(times: int) -> None:
    """One that was not made, though the server had 30 s to show it, is sent again."""
    world = SubmitWorld()
    world.lose(times, effect=False)
    await world.finish(world.submit())
    assert world.names == ["row"]
    assert world.service.count("POST") == 1 + times
    assert world.service.count("?page=1") == 5 * times
    assert world.clock.monotonic() >= 1000.0 + 30.0 * times


async def test_never() -> None:
    """After all attempts, or when time is up, it says that the outcome is not known."""
    world = SubmitWorld(attempts=3)
    world.lose(100, effect=False)
    with pytest.raises(SubmitOutcomeUnknownError) as caught:
        await world.finish(world.submit())
    assert isinstance(caught.value.__cause__, ResponseLostError)
    assert caught.value.candidates == ()
    assert world.service.count("POST") == 3


async def test_nonsense_is_not_sent_again() -> None:
    """A success that cannot be read probably took effect: when the listing does not show it, nothing is sent again."""
    world = SubmitWorld()
    world.lose(error=ResponseFormatError("no id"), effect=False)
    with pytest.raises(SubmitOutcomeUnknownError):
        await world.finish(world.submit())
    assert world.service.count("POST") == 1


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ConnectionFailedError("refused"), id="never-left"),
        pytest.param(BadRequestError(400, "no"), id="400"),
        pytest.param(AuthenticationError(401, "no"), id="401"),
        pytest.param(RateLimitWaitError(5.0, 1.0), id="limit"),
        *(pytest.param(APIError(status, "no"), id=str(status)) for status in (301, 307, 308, 405, 411, 413, 415, 422)),
    ],
)
async def test_certain(error: ComfyControlError) -> None:
    """An error that says that nothing was made is raised as it is, and nothing is looked for."""
    world = SubmitWorld()
    world.lose(error=error, effect=False)
    with pytest.raises(type(error)):
        await world.finish(world.submit())
    assert world.service.asked == ["POST /v1/workflow"]


class TestCandidates:
    """Whose workflow it is."""

    async def test_several(self) -> None:
        """When several may be it, it stays unknown which, and all are named."""
        world = SubmitWorld()
        world.lose()
        submit = asyncio.ensure_future(world.submit())
        await world.clock.advance(0.5)
        other = world.service.add(name="row")
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await world.finish(asyncio.wait_for(submit, None))
        assert set(caught.value.candidates) == set(world.service.records) > {other}
        assert world.service.count("POST") == 1

    async def test_older(self) -> None:
        """A workflow of the same name that was made before the send is none of ours."""
        world = SubmitWorld()
        old = world.service.add(name="row", age=10.0)
        world.lose()
        assert (await world.finish(world.submit())).id != old
        world.lose(effect=False)
        world.service.lose = lambda line: None
        assert (await world.finish(world.submit())).id != old
        assert len(world.names) == 3

    async def test_other_names(self) -> None:
        """Newer workflows of other names are passed over, on further pages too."""
        world = SubmitWorld()
        world.lose()
        submit = asyncio.ensure_future(world.submit())
        await world.clock.advance(0.5)
        for _ in range(250):
            world.service.add(name="other")
        await world.finish(asyncio.wait_for(submit, None))
        assert world.service.count("?page=3") == 1
        assert world.names.count("row") == 1

    async def test_held(self) -> None:
        """A workflow that this client holds is not adopted a second time: same name, one after another."""
        world = SubmitWorld()
        first = await world.finish(world.submit())
        world.lose(effect=False)
        second = await world.finish(world.submit())
        world.lose()
        third = await world.finish(world.submit())
        assert len({first.id, second.id, third.id}) == 3
        assert len(world.names) == 3

    async def test_same_name_at_once(self) -> None:
        """Of two at once whose answers are both lost and one of which took effect, one adopts and one sends again."""
        world = SubmitWorld()
        lost = iter([True, False])

        def fault(line: str) -> None:
            if "POST" in line and next(lost, None) is False:
                raise LOST

        world.service.fault = fault
        world.lose()
        both = await world.finish(asyncio.wait_for(asyncio.gather(world.submit(), world.submit()), None))
        assert both[0].id != both[1].id
        assert len(world.names) == 2

    async def test_same_name_on_its_way(self) -> None:
        """The workflow of another submit of this name, which has no answer yet, is not adopted."""
        world = SubmitWorld()
        world.lose(effect=False)  # of the first one
        first = asyncio.ensure_future(world.submit())
        await world.clock.advance(0.5)
        world.service.latency = 6.0
        second = asyncio.ensure_future(world.submit())
        await world.clock.advance(6.5)
        world.service.latency = 0.1
        ids = await world.finish(asyncio.wait_for(asyncio.gather(first, second), None))
        assert ids[0].id != ids[1].id
        assert set(world.service.records) == {ids[0].id, ids[1].id}

    async def test_same_name_on_its_way_for_long(self) -> None:
        """When that one is still without an answer at the last look, it stays unknown."""
        world = SubmitWorld()
        world.lose(effect=False)
        first = asyncio.ensure_future(world.submit())
        await world.clock.advance(0.5)
        world.service.latency = 30.0
        second = asyncio.ensure_future(world.submit())
        await world.clock.advance(0.0)
        world.service.latency = 0.1
        world.service.add(name="row")
        with pytest.raises(SubmitOutcomeUnknownError):
            await world.finish(asyncio.wait_for(first, None))
        await world.finish(asyncio.wait_for(second, None))

    async def test_many_held(self) -> None:
        """No more than 20,000 ids are remembered."""
        ledger = Ledger(FakeClock())
        for number in range(20_010):
            ledger.record(str(number))
        assert [ledger.get(str(number)) is None for number in (9, 10, 20_009)] == [True, False, False]
        assert ledger.count == 20_010


class TestClocks:
    """Whose clock says what is new."""

    async def test_own_clock_is_wrong(self) -> None:
        """The server's Date counts, not this machine's clock, which may be hours off."""
        for hours in (-5, 5):
            world = SubmitWorld()
            world.service.ahead = timedelta(hours=hours)
            old = world.service.add(name="row", age=60.0)
            world.lose()
            assert (await world.finish(world.submit())).id != old
            assert world.service.count("POST") == 1

    async def test_times_behind_the_date(self) -> None:
        """Where the times of workflows lag behind the Date, as earlier workflows showed, it is found all the same."""
        world = SubmitWorld()
        world.service.skew = timedelta(seconds=40)
        await world.finish(world.submit())
        world.lose()
        await world.finish(world.submit("other"))
        assert world.names == ["row", "other"]

    async def test_no_date_at_all(self) -> None:
        """Without any Date this machine's clock counts, ten minutes of doubt included."""
        world = SubmitWorld(dates=False)
        world.service.skew = timedelta(minutes=9)
        world.lose()
        await world.finish(world.submit())
        assert world.names == ["row"]

    @pytest.mark.parametrize("dates", [pytest.param(True, id="date"), pytest.param(False, id="no-date")])
    async def test_hours_behind(self, dates: bool) -> None:
        """A workflow of our name and content that is hours older by its time alone may be ours: that is said."""
        world = SubmitWorld(dates=dates)
        world.service.skew, world.service.duration = timedelta(hours=7), 60.0 if dates else 0.0
        world.lose()
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await world.finish(world.submit())
        assert caught.value.candidates == tuple(world.service.records)
        assert world.names == ["row"]

    @pytest.mark.parametrize("unique", [True, False], ids=["unique", "plain"])
    async def test_no_time(self, unique: bool) -> None:
        """A workflow that is shown with the year 1, which means no time, is taken for a new one."""
        world = SubmitWorld()
        world.lose()
        submitting = asyncio.ensure_future(world.submit(unique=unique))
        await world.clock.advance(0.5)
        (record,) = world.service.records.values()
        record.listed = {"created_at": "0001-01-01T00:00:00Z"}
        assert (await world.finish(asyncio.wait_for(submitting, None))).id == record.id


class TestLooks:
    """Looks that fail."""

    async def test_some(self) -> None:
        """Looks that fail are repeated."""
        world = SubmitWorld()
        world.lose()
        world.fail_looks(ServerError(502, "bad gateway"), times=3)
        await world.finish(world.submit())
        assert world.names == ["row"]

    @pytest.mark.parametrize(
        "error",
        [
            pytest.param(ServerError(502, "bad gateway"), id="502"),
            pytest.param(RateLimitWaitError(5.0, 1.0), id="limit"),
            pytest.param(AuthenticationError(401, "revoked"), id="401"),
        ],
    )
    async def test_all(self, error: Exception) -> None:
        """When none succeeds, the outcome is not known, and the error says why."""
        world = SubmitWorld()
        world.lose()
        world.fail_looks(error)
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await world.finish(world.submit())
        assert isinstance(caught.value.__cause__, type(error))
        assert world.service.count("POST") == 1

    async def test_cancelled(self) -> None:
        """Who cancels a submit that looks stops it, and leaves no timer."""
        world = SubmitWorld()
        world.lose()
        task = asyncio.ensure_future(world.submit())
        await world.clock.advance(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert world.clock.timers == 0


async def test_find_all() -> None:
    """Several names are found in one walk, which goes on to the time that is given: there may be doubles."""
    world = SubmitWorld()
    ids = {name: world.service.add(name=name) for name in ("a", "b", "c")}
    for _ in range(150):
        world.service.add(name="x")
    since = world.service.time(world.clock.monotonic()) - timedelta(seconds=5)
    found = await world.finish(world.submitter.find_all({"a", "b", "c"}, since))
    assert {name: [it.id for it in summaries] for name, summaries in found.items()} == {n: [i] for n, i in ids.items()}
    assert world.service.asked == ["GET /v1/workflow?page=1", "GET /v1/workflow?page=2"]
    assert await world.finish(world.submitter.find_all({"d"}, since)) == {}


class TestNames:
    """What a workflow is called."""

    def test_unique(self) -> None:
        """A name of its own is the base, cut to what the API takes, and something that no other has."""
        assert unique_name("cat").startswith("cat-")
        assert len(unique_name("x" * 300)) == 200
        assert len({unique_name("cat") for _ in range(100)}) == 100

    async def test_of_a_submit(self) -> None:
        """A submit without a name gets a unique one, a name that is given stays as it is."""
        draft = prepare_submit(Graph(GRAPH), None, {"color": 1}, ())
        assert draft.name.startswith("workflow-")
        assert dict(draft.form.fields)["name"] == draft.name
        assert draft.unique
        draft = prepare_submit(GRAPH, "cat", {"color": 1}, ("gpu",))
        assert draft.name == dict(draft.form.fields)["name"] == "cat"
        assert not draft.unique


def form_of(name: str, *, tags: str = "", **params: str) -> Form:
    """Make a form as a submit does, with texts alone."""
    fields = [("name", name), *((f"${key}", value) for key, value in params.items())]
    return Form([*fields, ("tags", tags)] if tags else fields)


class TestStrangers:
    """Workflows of the same name that others made at the same moment."""

    async def _submit(self, world: SubmitWorld, *, tags: str = "", color: str = "red") -> str:
        """Lose a submit before it took effect, while another client makes one of that name."""
        world.lose(effect=False)
        work = world.submitter.submit(form_of("daily", tags="gpu", color="red"), "daily")
        submitting = asyncio.ensure_future(work)
        await world.clock.advance(0.5)
        stranger = world.service.records[world.service.add(name="daily")]
        stranger.tags, stranger.params = tags.split(","), [["$text(color)", color]]
        summary = await world.finish(asyncio.wait_for(submitting, None))
        return "adopted" if summary.id == stranger.id else "made"

    @pytest.mark.parametrize(
        ("tags", "color", "outcome", "asked"),
        [
            pytest.param("gpu", "red", "adopted", 1, id="alike"),
            pytest.param("cpu", "red", "made", 0, id="other-tags"),
            pytest.param("gpu", "blue", "made", 1, id="other-parameter"),
            pytest.param("gpu,cpu", "red", "made", 0, id="more-tags"),
        ],
    )
    async def test_told_apart(self, tags: str, color: str, outcome: str, asked: int) -> None:
        """Another program's is known by its tags, at no cost, or its parameters, for one GET; else it may be ours."""
        world = SubmitWorld()
        assert await self._submit(world, tags=tags, color=color) == outcome
        assert world.service.count("GET /v1/workflow/") == asked

    @pytest.mark.parametrize("stored", ["20", "20.0", "2e1"])
    async def test_numbers(self, stored: str) -> None:
        """The service may write the number in a text in another way."""
        world = SubmitWorld()
        world.lose()
        work = world.submitter.submit(form_of("daily", steps="20"), "daily")
        submitting = asyncio.ensure_future(work)
        await world.clock.advance(0.5)
        next(iter(world.service.records.values())).params = [["$text(steps, 5)", stored]]
        await world.finish(asyncio.wait_for(submitting, None))
        assert len(world.names) == 1

    async def test_deleted_meanwhile(self) -> None:
        """A candidate that is gone when it is looked at is none."""
        world = SubmitWorld()
        world.lose()
        submitting = asyncio.ensure_future(world.submitter.submit(form_of("daily", color="red"), "daily"))
        await world.clock.advance(0.5)
        (lost,) = world.service.records
        world.service.add(name="other")

        def fault(line: str) -> None:
            if lost in line:
                raise NotFoundError(404, "gone")

        world.service.fault = fault
        assert (await world.finish(asyncio.wait_for(submitting, None))).id != lost

    async def test_rerun(self) -> None:
        """A rerun that this client makes meanwhile, whose name is the same, is not taken for the lost submit."""
        world = SubmitWorld()
        first = await world.finish(world.submit("nightly"))
        world.lose(effect=False)
        lost = asyncio.ensure_future(world.submit("nightly"))
        await world.clock.advance(0.5)
        world.service.latency = 3.0  # the listing shows it before the rerun has its answer
        again = asyncio.ensure_future(world.submitter.route.workflows.rerun(first.id))
        await world.clock.advance(3.1)
        world.service.latency = 0.1
        ids = {first.id, (await world.finish(asyncio.wait_for(lost, None))).id, (await again).id}
        assert len(ids) == len(world.names) == 3


class TestUnique:
    """A name that no other submit uses."""

    @pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta(hours=-5)], ids=["ahead", "behind"])
    async def test_whatever_the_clocks_say(self, ahead: timedelta) -> None:
        """It is recognised on the first page although the times in the listing fit nothing."""
        world = SubmitWorld()
        world.service.skew = ahead
        world.lose()
        await world.finish(world.submit("row-1f", unique=True))
        assert world.names == ["row-1f"]

    async def test_late_double(self, caplog: pytest.LogCaptureFixture) -> None:
        """When the listing shows the first one only after the second sending, the double is cancelled and logged."""
        world = SubmitWorld()
        world.service.hidden, world.service.queued, world.service.duration = 40.0, 300.0, 1000.0
        world.lose()
        kept = await world.finish(world.submit("row-1f", unique=True))
        assert world.names == ["row-1f"] * 2
        await world.clock.advance(60.0)
        status = {id: world.service.status(record) for id, record in world.service.records.items()}
        assert status.pop(kept.id) == "queued"
        assert set(status.values()) == {"cancelled"}
        assert "was created twice" in caplog.text
        await world.background.close()
        assert world.clock.timers == 0

    async def test_late_double_that_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        """One that runs by then is left alone, and logged."""
        world = SubmitWorld()
        world.service.hidden = 40.0
        world.lose()
        await world.finish(world.submit("row-1f", unique=True))
        await world.clock.advance(60.0)
        assert world.service.count("cancel") == 0
        assert "is completed and stays" in caplog.text or "is running and stays" in caplog.text

    async def test_double_before_the_answer(self) -> None:
        """When both sendings are lost and both took effect, the older is adopted and the younger cancelled."""
        world = SubmitWorld()
        world.service.hidden, world.service.queued, world.service.duration = 35.0, 300.0, 1000.0
        world.lose(2)
        summary = await world.finish(world.submit("row-1f", unique=True))
        assert summary.id == next(iter(world.service.records))
        await world.clock.advance(40.0)
        assert [world.service.status(record) for record in world.service.records.values()] == ["queued", "cancelled"]

    async def test_unreadable_item(self) -> None:
        """An item that the listing shows with a fault counts by its raw name: it is fetched whole."""
        world = SubmitWorld()
        world.lose()
        submitting = asyncio.ensure_future(world.submit("row-1f", unique=True))
        await world.clock.advance(0.5)
        (record,) = world.service.records.values()
        record.unreadable = True
        assert (await world.finish(asyncio.wait_for(submitting, None))).id == record.id

    async def test_unreadable_altogether(self) -> None:
        """One that cannot be fetched either was made all the same: nothing is sent again, and the error has its id."""
        world = SubmitWorld()
        world.lose()
        submitting = asyncio.ensure_future(world.submit("row-1f", unique=True))
        await world.clock.advance(0.5)
        (record,) = world.service.records.values()
        record.unreadable, record.whole = True, False
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await world.finish(asyncio.wait_for(submitting, None))
        assert caught.value.candidates == (record.id,)
        assert world.names == ["row-1f"]

    @pytest.mark.parametrize(
        ("listed", "candidates"),
        [
            pytest.param({"name": None}, True, id="no-name"),
            pytest.param({"name": None, "id": None}, False, id="neither"),
            pytest.param({"id": "../user"}, True, id="odd-id"),
        ],
    )
    async def test_item_that_cannot_be_told(self, listed: dict[str, object], candidates: bool) -> None:
        """A new item without a name, or with an id that leads nowhere, may be it: nothing is sent again."""
        world = SubmitWorld()
        world.lose()
        submitting = asyncio.ensure_future(world.submit("row-1f", unique=True))
        await world.clock.advance(0.5)
        (record,) = world.service.records.values()
        record.listed = listed
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await world.finish(asyncio.wait_for(submitting, None))
        assert caught.value.candidates == ((listed.get("id", record.id),) if candidates else ())
        assert world.names == ["row-1f"]


@pytest.mark.parametrize("lag", [0.0, 16.0, 20.0, 29.0])
@pytest.mark.parametrize("unique", [True, False], ids=["unique", "plain"])
@pytest.mark.parametrize("policy", [RetryPolicy(base_delay=0.0), RetryPolicy(attempts=1), RetryPolicy(max_elapsed=0.0)])
async def test_retry_policy_says_nothing_of_looks(lag: float, unique: bool, policy: RetryPolicy) -> None:
    """Whatever the retry policy says, a listing has 30 s to show a workflow that was made."""
    world = SubmitWorld()
    world.submitter.retry = policy
    world.service.hidden = lag
    world.lose()
    await world.finish(world.submit("row", unique=unique))
    assert world.names == ["row"]


@pytest.mark.parametrize("status", [302, 303, 304, 408, 409, 425, 460, 499])
async def test_edge_that_says_nothing_certain(status: int) -> None:
    """An answer that does not say that nothing was done is looked up: what stands behind an edge may have acted."""
    world = SubmitWorld()
    world.lose(error=APIError(status, "gave up"))
    await world.finish(world.submit())
    assert world.names == ["row"]
    assert world.service.count("POST") == 1


async def test_old_unreadable_item() -> None:
    """An old workflow of the same name whose item cannot be read is no candidate, and costs nothing."""
    world = SubmitWorld()
    old = world.service.records[world.service.add(name="daily", age=600.0)]
    old.unreadable, old.whole = True, False
    world.lose()
    assert (await world.finish(world.submit("daily"))).id != old.id
    assert world.names == ["daily", "daily"]
    assert world.service.count(old.id) == 0
