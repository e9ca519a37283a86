"""The workflow endpoints on a fake clock, below the resource: what `WorkflowsResource` is made of."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from comfycontrol_async._http._request import Request
from comfycontrol_async._http._stream import Stream
from comfycontrol_async.errors import BadRequestError, NotFoundError, ResponseLostError
from comfycontrol_async.limits import Limiter, Permit, Priority, RateLimitSnapshot, Stage
from comfycontrol_async.resources import WorkflowsResource
from comfycontrol_async.testing import FakeClock

T = TypeVar("T")
Json = dict[str, Any]


@attrs.define(kw_only=True)
class Record:
    """A workflow: created, and ended or to be ended, at moments of the clock.

    `unreadable` says whether the listing shows it with a field that is null, `whole` whether it can be fetched;
    `listed` is what the listing shows in the place of the right values.
    """

    id: str
    name: str
    created: float
    ends: float
    outcome: str
    tags: list[str] = attrs.field(factory=list)
    params: list[list[str]] = attrs.field(factory=list)
    unreadable: bool = False
    whole: bool = True
    listed: Json = attrs.field(factory=dict)


class FakeService:
    """Workflows that end by the clock, and a note of every request.

    Those that are created here end after `duration` seconds. They are queued for `queued` of them and then run; before
    that, for `early` seconds, they cannot be cancelled.
    `latency` passes before a request is acted on and again before its answer; `hidden` is how long a new workflow is
    missing in listings; `ahead` is how far the service's clock goes before this machine's, and `skew` how far the times
    of workflows lie behind it. `before` is awaited first of all. `fault` may raise, given the request's line; `lose`
    may, after it was acted on.
    """

    def __init__(self, clock: FakeClock, *, latency: float = 0.0, hidden: float = 0.0) -> None:
        self.clock = clock
        self.records: dict[str, Record] = {}
        self.asked: list[str] = []
        self.open_streams = 0
        self.sse_updates = 120
        self.latency = latency
        self.hidden = hidden
        self.early = 0.0
        self.queued = 0.0
        self.duration = 30.0
        self.skew = timedelta()
        self.ahead = timedelta()
        self.fault: Callable[[str], None] = lambda line: None
        self.lose: Callable[[str], None] = lambda line: None
        self.before: Callable[[str], Awaitable[None]] = _at_once
        self.talk: Callable[[Record], AsyncGenerator[bytes, None]] = self.talk_well
        self.cuts = 0
        self.ids_grow = True

    def resource(self) -> WorkflowsResource:
        """Return a resource whose requests end here."""
        return WorkflowsResource(self.send, self.open)

    def add(self, duration: float = 30.0, outcome: str = "completed", *, name: str = "row", age: float = 0.0) -> str:
        """Create a workflow as another client would, and return its id."""
        number = len(self.records) if self.ids_grow else 999_999_999 - len(self.records)
        id = f"00000000-0000-4000-a000-{number:012}"
        created = self.clock.monotonic() - age
        self.records[id] = Record(id=id, name=name, created=created, ends=created + duration, outcome=outcome)
        return id

    def finish(self, id: str) -> None:
        """End a workflow now."""
        self.records[id].ends = self.clock.monotonic()

    def cut_streams(self) -> None:
        """Break all open streams off at their next update."""
        self.cuts += 1

    def count(self, part: str) -> int:
        """Count the requests whose line has this part."""
        return sum(part in line for line in self.asked)

    async def send(self, request: Request[T]) -> T:
        """Answer a request, as `Pipeline.send` does."""
        line = self._note(request)
        await self.before(line)
        await self.clock.sleep(self.latency)
        self.fault(line)
        answer = self._answer(request)
        self.lose(line)
        await self.clock.sleep(self.latency)
        return request.structure(None if request.path.endswith("/cancel") else answer)

    async def open(self, request: Request[Any]) -> Stream:
        """Open a stream, as `Pipeline.open` does."""
        line = self._note(request)
        await self.before(line)
        await self.clock.sleep(self.latency)
        self.fault(line)
        return _FakeStream(self, self._record(request))

    def _note(self, request: Request[Any]) -> str:
        page = f"?page={request.query['page']}" if request.query else ""
        line = f"{request.method} {request.path}{page}"
        self.asked.append(line)
        return line

    def _record(self, request: Request[Any]) -> Record:
        id = request.path.split("/")[3]
        if id not in self.records:
            raise NotFoundError(404, "requested entity not found", request.method, request.path)
        return self.records[id]

    def _answer(self, request: Request[Any]) -> Json:
        if request.method == "POST":
            return self._act(request)
        if request.path != "/v1/workflow":
            return self._whole(self._record(request))
        assert request.query is not None
        shown_until = self.clock.monotonic() - self.hidden
        newest = [record for record in reversed(self.records.values()) if record.created <= shown_until]
        first = (int(request.query["page"]) - 1) * 100
        return {"workflows": [self._listed(it) for it in newest[first : first + 100]], "total": len(newest)}

    def _act(self, request: Request[Any]) -> Json:
        if request.path.endswith("/cancel"):
            return self._cancel(self._record(request))
        assert request.form is not None
        if request.path.endswith("/rerun"):
            return self._summary(self.records[self.add(name=self._record(request).name)])
        fields = {name: value for name, value in request.form.fields if isinstance(value, str)}
        record = self.records[self.add(self.duration, name=fields["name"])]
        record.tags = fields["tags"].split(",") if "tags" in fields else []
        record.params = [[f"$text({name[1:]})", value] for name, value in fields.items() if name.startswith("$")]
        return self._summary(record)

    def _cancel(self, record: Record) -> Json:
        now = self.clock.monotonic()
        if now >= record.ends or now < record.created + self.early:
            raise BadRequestError(400, "the workflow cannot be cancelled")
        record.ends, record.outcome = now, "cancelled"
        return {}

    def _listed(self, record: Record) -> Json:
        summary = self._summary(record) | record.listed
        return {**summary, "updated_at": None} if record.unreadable else summary

    def _whole(self, record: Record) -> Json:
        if not record.whole:
            return {**self._summary(record), "updated_at": None}
        return {**self._summary(record), "workflow_params": record.params}

    def status(self, record: Record) -> str:
        """Return the status now."""
        now = self.clock.monotonic()
        if now >= record.ends:
            return record.outcome
        if now < record.created + self.early:
            return "accepted"
        return "queued" if now < record.created + self.early + self.queued else "running"

    def _summary(self, record: Record) -> Json:
        ended = self.clock.monotonic() >= record.ends
        return {
            "id": record.id,
            "name": record.name,
            "status": self.status(record),
            "tags": record.tags,
            "created_at": self.text(record.created),
            "updated_at": self.text(record.created),
            "started_at": self.text(record.created),
            "completed_at": self.text(record.ends) if ended and record.outcome != "invalid" else None,
        }

    def text(self, moment: float) -> str:
        """Return a moment as the service writes it."""
        return (self.time(moment) - self.skew).strftime("%Y-%m-%dT%H:%M:%SZ")

    def time(self, moment: float) -> datetime:
        """Return the time of a moment, as the service's Date header has it."""
        return self.clock.utcnow() + self.ahead + timedelta(seconds=moment - self.clock.monotonic())

    async def talk_well(self, record: Record) -> AsyncGenerator[bytes, None]:
        """Give an update every 2 s as the service does: it closes at an end, except `invalid`, or after so many."""
        cuts = self.cuts
        for _ in range(self.sse_updates):
            if self.cuts > cuts:
                raise ResponseLostError("cut")
            update = self.update(record)
            yield event(update)
            if update["status"] in ("completed", "failed", "cancelled"):
                return
            await self.clock.sleep(2.0)

    def update(self, record: Record) -> Json:
        """Return an event of the stream."""
        summary = self._summary(record)
        outputs = [{"id": "output-1", "workflow_id": record.id, "src": "https://storage.test/1.png?signature=x"}]
        return {
            "status": summary["status"],
            "queue_number": None,
            "outputs": outputs if summary["status"] == "completed" else [],
            "started_at": summary["started_at"],
            "completed_at": summary["completed_at"],
        }


def event(update: Json) -> bytes:
    """Write an event of a stream."""
    return b"data: " + json.dumps(update).encode() + b"\n\n"


async def _at_once(line: str) -> None:
    """Wait for nothing."""


class _FakeStream(Stream):
    """Updates of one workflow every 2 s."""

    def __init__(self, service: FakeService, record: Record) -> None:
        super().__init__(200, {}, "GET", f"/v1/workflow/{record.id}/subscribe", None)  # type: ignore[arg-type] # none
        object.__setattr__(self, "_service", service)
        object.__setattr__(self, "_record", record)
        service.open_streams += 1

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give what the service's `talk` gives."""
        service: FakeService = self._service  # type: ignore[attr-defined] # the class is slotted and frozen
        record: Record = self._record  # type: ignore[attr-defined] # see above
        async with aclosing(service.talk(record)) as chunks:
            async for chunk in chunks:
                yield chunk

    def close(self) -> None:
        """Close it."""
        self._service.open_streams -= 1  # type: ignore[attr-defined] # see above


class FakeLimiter:
    """A limiter without a limit, which says that so many wait in each lane, and a newcomer for so many seconds."""

    def __init__(self) -> None:
        self.waiting = dict.fromkeys(Priority, 0)
        self.next_free_in = 0.0

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: Stage = Stage.OTHER
    ) -> Permit:
        """Fail: requests end in the fake service, so no test may ask."""
        raise AssertionError("a request went to the limiter")

    def cool_down(self, seconds: float) -> None:
        """No request is refused."""

    def snapshot(self) -> RateLimitSnapshot:
        """Return what is said to wait."""
        return RateLimitSnapshot(
            limit=40,
            period=10.0,
            used=0,
            available=40,
            waiting=dict(self.waiting),
            cooldown=0.0,
            pacing="burst",
            next_free_in=self.next_free_in,
        )


_: type[Limiter] = FakeLimiter


class World:
    """A fake clock and a service on it, for what tests add: clients, submitters, watchers.

    Args:
        latency: seconds of a request.
        step: seconds that pass at a time in `finish`.
    """

    def __init__(self, *, latency: float = 0.05, step: float = 1.0) -> None:
        self.clock = FakeClock()
        self.service = FakeService(self.clock, latency=latency)
        self.step = step

    async def finish(self, work: Coroutine[Any, Any, T] | asyncio.Future[T], seconds: float = 200.0) -> T:
        """Let time pass until the work is done, and return its result."""
        task = asyncio.ensure_future(work)
        for _ in range(int(seconds / self.step)):
            await self.clock.advance(self.step)
            if task.done():
                return task.result()
        raise AssertionError("it does not end")
