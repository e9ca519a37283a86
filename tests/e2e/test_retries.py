"""The table of `_http/_retry.py` on the wire: what is sent again, and what never makes a second workflow.

Every row is an outcome, every column a kind of call; the server counts what arrived and what was made.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

from comfycontrol_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ComfyControl,
    ComfyControlError,
    ConnectionFailedError,
    LocalLimiter,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RateLimitWaitError,
    ResponseLostError,
    RetryPolicy,
    ServerError,
    SubmitOutcomeUnknownError,
    TransportError,
)
from comfycontrol_async.testing import LocalServer
from support.graphs import GRAPH
from support.services import UNKNOWN_ID, client_of, connected, sent, serving
from support.waiting import eventually


@attrs.frozen
class Place:
    """What the calls of the table work on: a running workflow and a runner."""

    comfy: ComfyControl
    workflow: str
    runner: str


@attrs.frozen
class Column:
    """A kind of call: the endpoint it is counted at, and how many workflows it makes."""

    name: str
    method: str
    path: str
    call: Callable[[Place], Awaitable[Any]]
    makes: int = 0

    def __str__(self) -> str:
        return self.name


REPEATABLE = [
    Column("get", "GET", "/v1/user", lambda place: place.comfy.user.get()),
    Column("put", "PUT", "/v1/runner/{id}", lambda place: place.comfy.runners.update(place.runner, name="new")),
    Column("cancel", "POST", "/v1/workflow/{id}/cancel", lambda place: place.comfy.workflows.cancel(place.workflow)),
    Column("interrupt", "POST", "/v1/runner/{id}/interrupt", lambda place: place.comfy.runners.interrupt(place.runner)),
]
MAKING = [
    Column("create", "POST", "/v1/workflow", lambda place: place.comfy.workflows.create(GRAPH, name="made"), makes=1),
    Column(
        "rerun", "POST", "/v1/workflow/{id}/rerun", lambda place: place.comfy.workflows.rerun(place.workflow), makes=1
    ),
]
COLUMNS = REPEATABLE + MAKING


# A workflow that runs for ever, and is cancelled only a while after the cancel, as the service documents it.
RUNNING: dict[str, Any] = {"delays": (0.0, 0.0, 0.0), "duration": 10_000.0, "cancel_delay": 1000.0}


class Table:
    """A server with a running workflow, and the calls of a column against it."""

    def __init__(self, server: LocalServer, place: Place) -> None:
        self.server = server
        self.place = place
        self.before = len(server.requests)
        self.workflows = len(server.workflows)

    @property
    def requests(self) -> int:
        """How many requests arrived since the beginning."""
        return len(self.server.requests) - self.before

    @property
    def made(self) -> int:
        """How many workflows were made since the beginning."""
        return len(self.server.workflows) - self.workflows


@pytest.fixture
async def table() -> Any:
    """Run a workflow."""
    async with connected(**RUNNING) as (server, comfy):
        made = await comfy.workflows.create(GRAPH, name="running")
        yield Table(server, Place(comfy, made.id, next(iter(server.runners))))


class TestNeverLeft:
    """Row one: certainly never left."""

    @pytest.mark.parametrize("column", COLUMNS, ids=str)
    async def test_refused_connection(self, table: Table, column: Column) -> None:
        """A request that finds the server down is sent when it is up again: once, with no slot left behind."""
        server = table.server
        await server.stop()
        patient = RetryPolicy(attempts=1000, base_delay=0.01, max_delay=0.01)
        limiter = LocalLimiter(50, 60.0)
        async with client_of(server, limiter=limiter, retry=patient) as comfy:
            call = asyncio.ensure_future(column.call(attrs.evolve(table.place, comfy=comfy)))
            await asyncio.sleep(0.05)
            assert not call.done()
            await server.start()
            await call
        assert table.requests == 1
        assert table.made == column.makes
        assert limiter.snapshot().used == 1

    @pytest.mark.parametrize("column", COLUMNS, ids=str)
    async def test_server_stays_down(self, table: Table, column: Column) -> None:
        """After all attempts the error says that nothing was sent, also for what makes a workflow."""
        await table.server.stop()
        comfy = table.place.comfy.with_options(retry=RetryPolicy(attempts=3, base_delay=0.0))
        before = comfy.limiter.snapshot().used
        with pytest.raises(ConnectionFailedError) as caught:
            await column.call(attrs.evolve(table.place, comfy=comfy))
        assert caught.value.__cause__ is not None
        assert comfy.limiter.snapshot().used == before
        assert table.requests == table.made == 0


class TestRefused:
    """Row two: 429."""

    @pytest.mark.parametrize("column", COLUMNS, ids=str)
    async def test_by_the_edge(self, column: Column) -> None:
        """A request that the edge refuses is sent again after the cooldown, whatever it is: it was not processed."""
        once = RetryPolicy(attempts=1)  # a 429 is none
        async with serving(limit=5, **RUNNING) as server, client_of(server, retry=once) as comfy:
            made = await comfy.workflows.create(GRAPH, name="running")
            table = Table(server, Place(comfy, made.id, next(iter(server.runners))))
            server.consume(5)
            await column.call(table.place)
            assert table.requests == 2
            assert server.refused == 1
            assert table.made == column.makes
            assert server.requests[-1].at - server.requests[-2].at >= server.cooldown * server.speed

    async def test_again_and_again(self, table: Table) -> None:
        """429s do not count as attempts, however many there are."""
        table.server.fail_next("POST", "/v1/workflow", status=429, times=3)
        await table.place.comfy.with_options(retry=RetryPolicy(attempts=1)).workflows.create(GRAPH, name="made")
        assert (table.requests, table.made) == (4, 1)

    async def test_not_for_ever(self, table: Table) -> None:
        """They are bounded by the total time."""
        table.server.fail_next("GET", "/v1/user", status=429, times=1000)
        comfy = table.place.comfy.with_options(retry=RetryPolicy(max_elapsed=0.3))
        with pytest.raises(RateLimitedError):
            await comfy.user.get()
        assert 2 <= table.requests <= 10

    async def test_the_wait_is_bounded(self, table: Table) -> None:
        """With `max_rate_limit_wait` a cooldown that is longer is told at once, and nothing more is sent."""
        table.server.fail_next("GET", "/v1/user", status=429, headers={"Retry-After": "30"})
        comfy = table.place.comfy.with_options(max_rate_limit_wait=1.0)
        with pytest.raises(RateLimitWaitError) as caught:
            await comfy.user.get()
        assert caught.value.needed == pytest.approx(30.0, abs=2.0)
        assert table.requests == 1

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param({"headers": {"Retry-After": "0.3"}, "body": "<html>1015</html>"}, id="header"),
            pytest.param({"body": '{"retry_after": 0.3, "ray_id": "8a"}'}, id="problem-document"),
        ],
    )
    async def test_retry_after_is_obeyed(self, table: Table, answer: dict[str, Any]) -> None:
        """Wherever a 429 says how long to wait, nothing is sent before."""
        table.server.fail_next("GET", "/v1/user", status=429, **answer)
        calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(table.place.comfy.user.get())]
        await eventually(lambda: table.requests == 1)
        await asyncio.sleep(0.02)
        calls += [asyncio.ensure_future(table.place.comfy.runners.get(table.place.runner)) for _ in range(5)]
        await asyncio.gather(*calls)
        refused, *later = (record.at for record in table.server.requests[table.before :])
        assert len(later) == 6
        assert min(later) - refused >= 0.3 * table.server.speed


# Row three: a 5xx, or sent and no answer. Each with whether the server carried the request out.
LOSSES = [
    pytest.param("fail", {"status": 503, "headers": {"Retry-After": "0"}}, 0, id="503"),
    pytest.param(
        "fail", {"status": 502, "body": "<html>bad gateway</html>", "content_type": "text/html"}, 0, id="html"
    ),
    pytest.param("fail", {"status": 503, "effect": True}, 1, id="503-after-acting"),
    pytest.param("drop", {}, 0, id="dropped-before"),
    pytest.param("drop", {"after": True}, 1, id="dropped-after"),
]


def lose(server: LocalServer, column: Column, how: str, options: dict[str, Any]) -> None:
    """Let the next such request be lost."""
    (server.fail_next if how == "fail" else server.drop_next)(column.method, column.path, **options)


class TestLost:
    """Row three: 5xx, or sent and no answer."""

    @pytest.mark.parametrize(("how", "options", "acted"), LOSSES)
    @pytest.mark.parametrize("column", REPEATABLE, ids=str)
    async def test_sent_again(
        self, table: Table, column: Column, how: str, options: dict[str, Any], acted: int
    ) -> None:
        """What can be repeated is sent again, once, and succeeds."""
        lose(table.server, column, how, options)
        await column.call(table.place)
        assert sent(table.server)[table.before :] == [f"{column.method} {table.server.requests[-1].path}"] * 2

    @pytest.mark.parametrize(("how", "options", "acted"), LOSSES)
    @pytest.mark.parametrize("column", MAKING, ids=str)
    async def test_never_blindly(
        self, table: Table, column: Column, how: str, options: dict[str, Any], acted: int
    ) -> None:
        """What makes a workflow is not sent again: its outcome is unknown, and the error says so."""
        lose(table.server, column, how, options)
        with pytest.raises(SubmitOutcomeUnknownError) as caught:
            await column.call(table.place)
        assert isinstance(caught.value.__cause__, ServerError if how == "fail" else ResponseLostError)
        assert table.requests == 1
        assert table.made == acted

    async def test_truncated_success(self, table: Table) -> None:
        """A success whose body breaks off: asked again by a GET, unknown to a create, good enough for a cancel."""
        server, place = table.server, table.place
        server.truncate_next("GET", "/v1/user")
        assert (await place.comfy.user.get()).name == "Local User"
        assert table.requests == 2
        server.truncate_next("POST", "/v1/workflow")
        with pytest.raises(SubmitOutcomeUnknownError):
            await place.comfy.workflows.create(GRAPH, name="made")
        assert (table.requests, table.made) == (3, 1)
        server.truncate_next("POST", "/v1/workflow/{id}/cancel")
        await place.comfy.workflows.cancel(place.workflow)
        assert table.requests == 4

    @pytest.mark.parametrize("body", ["<html>ok</html>", "", "[]", '{"id": 1}'], ids=["html", "empty", "list", "wrong"])
    async def test_unreadable_success(self, table: Table, body: str) -> None:
        """A success that names no workflow leaves the outcome of a create unknown as well."""
        table.server.fail_next("POST", "/v1/workflow", status=201, body=body, effect=True)
        with pytest.raises(SubmitOutcomeUnknownError):
            await table.place.comfy.workflows.create(GRAPH, name="made")
        assert (table.requests, table.made) == (1, 1)

    @pytest.mark.parametrize("column", REPEATABLE, ids=str)
    async def test_attempts_are_bounded(self, table: Table, column: Column) -> None:
        """After the last attempt the last error is raised."""
        table.server.fail_next(column.method, column.path, status=503, times=50)
        comfy = table.place.comfy.with_options(retry=RetryPolicy(attempts=3, base_delay=0.0))
        with pytest.raises(ServerError):
            await column.call(attrs.evolve(table.place, comfy=comfy))
        assert table.requests == 3

    async def test_time_is_bounded(self, table: Table) -> None:
        """A Retry-After beyond the total time is not waited for."""
        table.server.fail_next("GET", "/v1/user", status=503, headers={"Retry-After": "3600"}, times=2)
        with pytest.raises(ServerError) as caught:
            await table.place.comfy.user.get()
        assert caught.value.retry_after == 3600
        assert table.requests == 1

    async def test_retry_after_of_a_503(self, table: Table) -> None:
        """A 503 is repeated no earlier than it asks for."""
        table.server.fail_next("GET", "/v1/user", status=503, headers={"Retry-After": "0.2"})
        await table.place.comfy.user.get()
        first, second = table.server.requests[-2:]
        assert second.at - first.at >= 0.2 * table.server.speed

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda comfy: comfy.runners.create("r", "http://r.test"), id="runner"),
            pytest.param(lambda comfy: comfy.templates.create("t", "d", GRAPH), id="template"),
            pytest.param(lambda comfy: comfy.request("POST", "/v1/runner", json={}), id="escape-hatch"),
        ],
    )
    async def test_other_creations(self, table: Table, make: Callable[[ComfyControl], Awaitable[Any]]) -> None:
        """Nor is anything else that a POST makes sent a second time."""
        table.server.fail_next("POST", "*", status=503)
        with pytest.raises(ServerError):
            await make(table.place.comfy)
        table.server.drop_next("POST", "*", after=True)
        with pytest.raises(ResponseLostError):
            await make(table.place.comfy)
        assert table.requests == 2

    async def test_stopping_server(self, table: Table) -> None:
        """A server that goes down while many requests are under way loses none of those that can be repeated."""
        server, comfy = table.server, table.place.comfy
        patient = comfy.with_options(retry=RetryPolicy(attempts=1000, base_delay=0.01, max_delay=0.02))
        server.delay_next("GET", "/v1/user", 1000.0, times=20)
        calls = [asyncio.ensure_future(patient.user.get()) for _ in range(20)]
        await eventually(lambda: table.requests == 20)
        await server.stop()
        await server.start()
        assert len(await asyncio.gather(*calls)) == 20
        assert table.requests == 40


class TestFinal:
    """Row four: 400, 401, 403, 404."""

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            pytest.param(400, BadRequestError, id="400"),
            pytest.param(401, AuthenticationError, id="401"),
            pytest.param(403, PermissionDeniedError, id="403"),
            pytest.param(404, NotFoundError, id="404"),
        ],
    )
    @pytest.mark.parametrize("column", COLUMNS, ids=str)
    async def test_raised_at_once(self, table: Table, column: Column, status: int, kind: type[APIError]) -> None:
        """The same again would end the same."""
        table.server.fail_next(column.method, column.path, status=status)
        with pytest.raises(kind):
            await column.call(table.place)
        assert (table.requests, table.made) == (1, 0)

    async def test_as_the_service_says_them(self, table: Table) -> None:
        """The service's own refusals come through with their words."""
        comfy = table.place.comfy
        with pytest.raises(NotFoundError, match="requested entity not found"):
            await comfy.workflows.get(UNKNOWN_ID)
        await comfy.workflows.create(GRAPH, name="gone")
        table.server.finish(table.place.workflow)
        with pytest.raises(BadRequestError, match="cannot be cancelled while it is completed"):
            await comfy.workflows.cancel(table.place.workflow)
        async with client_of(table.server, token="cfc_wrong") as stranger:
            with pytest.raises(AuthenticationError, match="Invalid token"):
                await stranger.user.get()
        table.server.expire_token()
        with pytest.raises(AuthenticationError, match="Token has expired"):
            await comfy.user.get()


async def test_storm() -> None:
    """With one request in four lost, before it acted or after, everything is answered and nothing is made twice."""
    async with serving(loss=0.25, seed=7, speed=1.0) as server:
        retry = RetryPolicy(attempts=30, base_delay=0.001, max_delay=0.002)
        async with client_of(server, retry=retry) as comfy:
            users = await asyncio.gather(*(comfy.user.get() for _ in range(40)))
            made = await asyncio.gather(
                *(comfy.workflows.create(GRAPH, name=f"w{number}") for number in range(30)), return_exceptions=True
            )
        assert len(users) == 40
        unknown = [it for it in made if isinstance(it, SubmitOutcomeUnknownError)]
        known = [it for it in made if not isinstance(it, BaseException)]
        assert len(unknown) + len(known) == 30
        names = [record.name for record in server.workflows.values()]
        assert len(names) == len(set(names))
        assert {it.name for it in known} <= set(names)
        assert all(isinstance(it.__cause__, (TransportError, ComfyControlError)) for it in unknown)


async def test_outside_client() -> None:
    """An outside client uses up the budget: 200 requests in flight all succeed after the cooldown, none is lost.

    Only what was on its way when the first 429 came can be refused too, and when the edge opens again nothing rushes.
    """
    arrivals = 0

    def intrude() -> float:
        nonlocal arrivals
        arrivals += 1
        if arrivals == 20:
            server.consume(40)
        return 0.0

    async with connected(limit=40, latency=intrude) as (server, comfy):
        assert len(await asyncio.gather(*(comfy.user.get() for _ in range(200)))) == 200
        refused = [record.at for record in server.requests if record.status == 429]
        served = [record.at for record in server.requests if record.status == 200]
        assert len(served) == 200
        assert 1 <= len(refused) == server.refused <= 21
        assert len(server.requests) == 200 + len(refused)
        assert max(refused) < refused[0] + 10.0 <= served[19]
        assert len([at for at in served if at < refused[0]]) == 19


async def test_outside_client_in_the_middle() -> None:
    """The same while requests of every kind are under way: each takes effect exactly once."""
    async with connected(limit=40, delays=(0.0, 0.0, 0.0), duration=0.0) as (server, comfy):
        calls: list[Awaitable[Any]] = [comfy.user.get() for _ in range(20)]
        calls += [comfy.workflows.create(GRAPH, name=f"w{number}") for number in range(40)]
        results = asyncio.gather(*calls)
        await eventually(lambda: len(server.requests) > 10)
        server.consume(40)
        assert len(await results) == 60
        assert sorted(record.name for record in server.workflows.values()) == sorted(
            f"w{number}" for number in range(40)
        )
        assert len(server.requests) == 60 + server.refused
        assert server.refused <= 40
