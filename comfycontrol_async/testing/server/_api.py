"""The API port: the table of endpoints, and what happens to a request between its arrival and its answer."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import MappingProxyType

import attrs
from aiohttp import web

from comfycontrol_async.testing.server import _handlers_account as account
from comfycontrol_async.testing.server import _handlers_workflows as workflows
from comfycontrol_async.testing.server._edge import Edge, refuse
from comfycontrol_async.testing.server._faults import Fault, Faults
from comfycontrol_async.testing.server._ports import cut, send, send_truncated
from comfycontrol_async.testing.server._records import Answer, ApiError, RequestRecord, Stream, error_answer
from comfycontrol_async.testing.server._state import Executor, State
from comfycontrol_async.testing.server._validation import Call, check_id

Handler = Callable[[Call], Awaitable[Answer | Stream]]

_ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/v1/runner"): account.list_runners,
    ("POST", "/v1/runner"): account.create_runner,
    ("GET", "/v1/runner/{id}"): account.get_runner,
    ("PUT", "/v1/runner/{id}"): account.update_runner,
    ("POST", "/v1/runner/{id}/interrupt"): account.interrupt_runner,
    ("GET", "/v1/runner/{id}/history"): account.runner_history,
    ("GET", "/v1/managed-runner"): account.list_managed_runners,
    ("GET", "/v1/managed-runner/{id}"): account.get_managed_runner,
    ("GET", "/v1/managed-runner/{id}/history"): account.managed_runner_history,
    ("GET", "/v1/managed-runner/{id}/stats"): account.managed_runner_stats,
    ("GET", "/v1/workflow"): workflows.list_workflows,
    ("POST", "/v1/workflow"): workflows.create_workflow,
    ("GET", "/v1/workflow/{id}"): workflows.get_workflow,
    ("POST", "/v1/workflow/{id}/cancel"): workflows.cancel_workflow,
    ("POST", "/v1/workflow/{id}/rerun"): workflows.rerun_workflow,
    ("GET", "/v1/workflow/{id}/outputs"): workflows.workflow_outputs,
    ("GET", "/v1/workflow/{id}/subscribe"): workflows.subscribe_workflow,
    ("GET", "/v1/template"): account.list_templates,
    ("POST", "/v1/template"): account.create_template,
    ("GET", "/v1/template/{id}"): account.get_template,
    ("PUT", "/v1/template/{id}"): account.update_template,
    ("GET", "/v1/user"): account.get_user,
}
_PATHS = {path for _, path in _ROUTES}
_NO_QUERY: MappingProxyType[str, str] = MappingProxyType({})


@attrs.frozen
class Route:
    """Where a request goes: the endpoint's path with `{id}`, and the id in it."""

    template: str
    id: str


def route_of(path: str) -> Route:
    """Return the endpoint that `path` names, known or not."""
    parts = path.split("/", 4)
    if len(parts) < 4:
        return Route(path, "")
    return Route("/".join((*parts[:3], "{id}", *parts[4:])), parts[3])


def handler_of(method: str, route: Route) -> Handler:
    """Return the handler of an endpoint, or end the request with the right error."""
    handler = _ROUTES.get((method, route.template))
    if handler is None:
        known = route.template in _PATHS
        raise ApiError(405 if known else 404, "method not allowed" if known else "requested entity not found")
    if route.id:
        check_id(route.id)
    return handler


class ApiPort:
    """Takes the requests to the API: network, edge, ordered faults, token, handler."""

    def __init__(self, state: State, executor: Executor, edge: Edge, faults: Faults, token: str) -> None:
        options = state.options
        self.requests: list[RequestRecord] = []
        self.arrivals: list[float] = []
        self.refused = 0
        self.lost = 0
        self.expired = False
        self.streams: set[asyncio.Transport | None] = set()
        self._state = state
        self._executor = executor
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
        if half and not await self._time.sleep(half):
            return cut(request)
        if lost_on_the_way:
            self.lost += 1
            return cut(request)
        return await self._serve(request, lose_answer=lost, way_back=half)

    async def _serve(self, request: web.BaseRequest, *, lose_answer: bool, way_back: float) -> web.StreamResponse:
        passed = self.arrive()
        record = self._record(request)
        try:
            return await self._answer(request, record, passed, lose_answer=lose_answer, way_back=way_back)
        finally:
            if record.status is None:
                record.settle(dropped=True)

    async def _answer(
        self, request: web.BaseRequest, record: RequestRecord, passed: bool, *, lose_answer: bool, way_back: float
    ) -> web.StreamResponse:
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
        if (late and not await self._time.sleep(late)) or dropped or answer is None:
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
                answer = await handler_of(record.method, route)(
                    Call(self._state, self._executor, request, record, route.id)
                )
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

    def _record(self, request: web.BaseRequest) -> RequestRecord:
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
