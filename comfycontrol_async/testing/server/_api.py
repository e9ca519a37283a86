"""The API port: what happens to a request between its arrival and its answer."""

import asyncio
import random
from types import MappingProxyType

from aiohttp import web

from comfycontrol_async.testing.server._call import Call
from comfycontrol_async.testing.server._edge import Edge
from comfycontrol_async.testing.server._faults import Fault, Faults
from comfycontrol_async.testing.server._records import Answer, ApiError, RequestRecord, Stream, error_answer
from comfycontrol_async.testing.server._refusals import refuse
from comfycontrol_async.testing.server._routes import Route, handler_of, route_of
from comfycontrol_async.testing.server._sending import cut, send, send_truncated
from comfycontrol_async.testing.server._state import State

_NO_QUERY: MappingProxyType[str, str] = MappingProxyType({})


class ApiPort:
    """Takes the requests to the API: network, edge, ordered faults, token, handler."""

    def __init__(self, state: State, edge: Edge, faults: Faults, token: str) -> None:
        options = state.options
        self.requests: list[RequestRecord] = []
        self.arrivals: list[float] = []
        self.refused = 0
        self.lost = 0
        self.expired = False
        self.streams: set[asyncio.Transport | None] = set()
        self._state = state
        self._time = state.time
        self._edge = edge
        self._faults = faults
        self._bearer = f"Bearer {token}"
        self._network = random.Random(options.seed)
        self._rays = random.Random()
        self._has_network = options.latency is not None or options.loss > 0
        self._loss = options.loss

    def arrive(self) -> bool:
        """Count an arrival now; return whether the edge lets it pass."""
        now = self._time.now()
        self.arrivals.append(now)
        return self._edge.admit(now)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, or close its connection."""
        if not self._has_network:
            return await self._serve(request, lose_answer=False, way_back=0.0)
        half = self._state.options.round_trip() / 2
        lost = self._network.random() < self._loss
        lost_on_the_way = lost and self._network.random() < 0.5
        if half and not await self._time.nap(half):
            return cut(request)
        if lost_on_the_way:
            self.lost += 1
            return cut(request)
        return await self._serve(request, lose_answer=lost, way_back=half)

    async def _serve(self, request: web.BaseRequest, *, lose_answer: bool, way_back: float) -> web.StreamResponse:
        passed = self.arrive()
        record = self._note(request)
        ray = f"{self._rays.getrandbits(64):016x}-LCL"
        headers = {"cf-ray": ray, "Date": self._time.date()}
        fault, late = None, way_back
        if passed:
            route = route_of(record.path)
            paths = (record.path, route.template)
            fault = self._faults.take_outcome(record.method, *paths)
            late += self._faults.take_delay(record.method, *paths)
            answer = await self._act(request, record, route, fault)
        else:
            answer = self._refuse(request, ray)
        dropped = lose_answer or (fault is not None and fault.drop)
        if lose_answer:
            self.lost += 1
        if (late and not await self._time.nap(late)) or dropped or answer is None:
            return cut(request)
        status = answer.status if isinstance(answer, Answer) else 200
        record.settle(status=status)
        self.refused += status == 429
        sender = send_truncated if fault is not None and fault.truncate else send
        if isinstance(answer, Answer):
            return await sender(request, answer, headers)
        transport = request.transport
        self.streams.add(transport)
        try:
            return await sender(request, answer, headers)
        finally:
            self.streams.discard(transport)

    async def _act(
        self, request: web.BaseRequest, record: RequestRecord, route: Route, fault: Fault | None
    ) -> Answer | Stream | None:
        """Return the answer of the handler, or of the fault ordered for this request; None when the client has gone."""
        answer: Answer | Stream | None = None
        if fault is None or fault.effect:
            try:
                self._check_token(request)
                answer = await handler_of(record.method, route)(Call(self._state, request, record, route.id))
            except ApiError as error:
                answer = error_answer(error.status, error.message)
            except ConnectionError:
                return None
        return fault.answer if fault is not None and fault.answer is not None else answer

    def _check_token(self, request: web.BaseRequest) -> None:
        if request.headers.get("Authorization") != self._bearer:
            raise ApiError(401, "Invalid token")
        if self.expired:
            raise ApiError(401, "Token has expired")

    def _refuse(self, request: web.BaseRequest, ray: str) -> Answer:
        options = self._state.options
        cooling = self._edge.cooling(self._time.now()) / options.speed
        retry_after = None if options.retry_after is None else options.retry_after / options.speed
        return refuse(options.refusal, request.headers.get("Host", options.host), ray, cooling, retry_after)

    def _note(self, request: web.BaseRequest) -> RequestRecord:
        record = RequestRecord(
            at=self.arrivals[-1],
            method=request.method,
            path=request.path,
            query=dict(request.query) if request.query_string else _NO_QUERY,
            headers=request.headers,
            body_size=request.content_length or 0,
        )
        self.requests.append(record)
        return record
