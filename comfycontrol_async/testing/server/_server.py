"""LocalServer: the whole ComfyControl service on two ports of this machine."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Self

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.testing.server._api import ApiPort
from comfycontrol_async.testing.server._edge import make_edge, most_in_window
from comfycontrol_async.testing.server._faults import Fault, Faults, failing_answer
from comfycontrol_async.testing.server._life import OUTCOMES
from comfycontrol_async.testing.server._options import Options
from comfycontrol_async.testing.server._ports import HttpPort
from comfycontrol_async.testing.server._records import LeakedCredential, RequestRecord
from comfycontrol_async.testing.server._signing import UrlSigner
from comfycontrol_async.testing.server._state import State, always_completed
from comfycontrol_async.testing.server._storage import StoragePort
from comfycontrol_async.testing.server._time import ServerTime
from comfycontrol_async.testing.server._workflows import WorkflowRecord


class LocalServer:
    """A ComfyControl service for tests: `async with LocalServer() as server`.

    It serves all endpoints over real HTTP, counts arrivals as the service's edge does, moves workflows through their
    states and makes PNG outputs. One server second lasts 1/`speed` real seconds; every time below is in server
    seconds unless it says otherwise.

    Args:
        limit: Requests that pass in any `period`.
        period: Length of the window.
        cooldown: How long everything is refused after one request too many.
        edge: How arrivals are counted: "exact" (any window), "counter" (two weighted buckets) or "fixed" (a grid).
        edge_phase: Where the grid of "counter" and "fixed" begins.
        speed: Server seconds in one real second.
        refusal: The body of a 429: "html", "problem" or "json".
        retry_after: Adds a Retry-After header to 429s, sent in real seconds.
        latency: The round trip of a request, or a function that draws one; half passes before the arrival.
        loss: The share of requests whose connection is closed unanswered, half of them before they arrive.
        seed: Makes loss repeatable.
        token: The token to accept; a random one by default.
        tier: The user's tier; "free" has no managed runners.
        runner_limit: Self-hosted runners that the tier allows.
        template_limit: Templates that the tier allows.
        delays: Time a workflow spends accepted, uploaded and queued.
        duration: Time it runs, or a function of its 0-based creation index.
        outcome: A function of that index that gives "completed", "failed", "cancelled" or "invalid".
        cancel_delay: How long a cancelled workflow goes on.
        list_lag: How much later than created a workflow appears in lists.
        sse_updates: Updates after which the server closes a stream.
        sse_interval: Time between the updates of a stream.
        output_size: Bytes to which outputs are padded.
        url_lifetime: How long signed URLs work.
        upload_limit: Bytes that one multipart request may have.
        keepalive: Real seconds after which idle connections are closed.
        host: The address to listen on.
        port: The port of the API; 0 takes a free one.
        storage_port: The port of the storage; 0 takes a free one.
    """

    def __init__(
        self,
        *,
        limit: int = 40,
        period: float = 10.0,
        cooldown: float = 10.0,
        edge: str = "exact",
        edge_phase: float = 0.0,
        speed: float = 1.0,
        refusal: str = "html",
        retry_after: float | None = None,
        latency: Callable[[], float] | float | None = None,
        loss: float = 0.0,
        seed: int | None = None,
        token: str | None = None,
        tier: str = "pro",
        runner_limit: int = 10,
        template_limit: int = 50,
        delays: tuple[float, float, float] = (0.2, 0.3, 0.5),
        duration: Callable[[int], float] | float = 2.0,
        outcome: Callable[[int], str] | None = None,
        cancel_delay: float = 0.0,
        list_lag: float = 0.0,
        sse_updates: int = 120,
        sse_interval: float = 2.0,
        output_size: int | None = None,
        url_lifetime: float = 300.0,
        upload_limit: int = 50 * 1024 * 1024,
        keepalive: float = 75.0,
        host: str = "127.0.0.1",
        port: int = 0,
        storage_port: int = 0,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "outcome")}
        options = self._options = Options(**given)
        self._token = token or f"cfc_{secrets.token_hex(20)}"
        self._time = ServerTime(options.speed)
        self._signer = UrlSigner(self._time, options.url_lifetime)
        self._state = State(options, self._time, self._signer)
        self._faults = Faults()
        counter = make_edge(options.edge, options.limit, options.period, options.cooldown, options.edge_phase)
        self._api = ApiPort(self._state, counter, self._faults, self._token)
        self._storage = StoragePort(self._state)
        self._ports = (HttpPort(self._api.handle, keepalive), HttpPort(self._storage.handle, keepalive))
        self._bound = (port, storage_port)
        self.script(outcome)

    async def start(self) -> None:
        """Listen on both ports; after `stop`, on the same ones with everything remembered."""
        self._time.begin()
        self._state.seed()
        api, storage = self._ports
        host = self._options.host
        bound = await api.start(host, self._bound[0])
        try:
            self._bound = (bound, await storage.start(host, self._bound[1]))
        except OSError:
            await api.stop()
            raise
        self._signer.base = self.storage_url

    async def stop(self) -> None:
        """End all streams and close all connections; harmless when stopped."""
        self._time.end_sleeps()
        for port in self._ports:
            await port.stop()
        # Transports close in the next turn of the loop; without it the loop may end before them.
        await SYSTEM_CLOCK.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<LocalServer {self.url} limit={self.limit} period={self._options.period:g} speed={self.speed:g}>"

    @property
    def url(self) -> str:
        """The base URL of the API."""
        return f"http://{self._options.host}:{self._bound[0]}"

    @property
    def storage_url(self) -> str:
        """The base URL of signed URLs."""
        return f"http://{self._options.host}:{self._bound[1]}"

    @property
    def token(self) -> str:
        """The API token that is accepted."""
        return self._token

    @property
    def limit(self) -> int:
        """Requests that pass in any `period`."""
        return self._options.limit

    @property
    def period(self) -> float:
        """The period of the limit in real seconds."""
        return self._options.period / self._options.speed

    @property
    def cooldown(self) -> float:
        """The cooldown in real seconds."""
        return self._options.cooldown / self._options.speed

    @property
    def speed(self) -> float:
        """Server seconds in one real second."""
        return self._options.speed

    @property
    def now(self) -> float:
        """Server seconds since the start."""
        return self._time.now()

    @property
    def requests(self) -> Sequence[RequestRecord]:
        """Every request that arrived at the API, in order; refused, dropped and failed ones too."""
        return self._api.requests

    @property
    def storage_requests(self) -> Sequence[RequestRecord]:
        """Every request that arrived at the storage, in order."""
        return self._storage.requests

    @property
    def leaked_credentials(self) -> Sequence[LeakedCredential]:
        """Every credential that was sent to the storage."""
        return self._storage.leaks

    @property
    def max_in_window(self) -> int:
        """The most arrivals, consumed and refused ones too, in any window [t, t + period)."""
        return most_in_window(self._api.arrivals, self._options.period)

    @property
    def refused(self) -> int:
        """How many 429s were answered."""
        return self._api.refused

    @property
    def lost(self) -> int:
        """How many requests `loss` left without an answer."""
        return self._api.lost

    @property
    def open_streams(self) -> int:
        """How many streams of updates are open."""
        return len(self._api.streams)

    @property
    def user(self) -> Mapping[str, Any]:
        """The user, as the API shows him."""
        return MappingProxyType(self._state.user)

    @property
    def runners(self) -> Mapping[str, Mapping[str, Any]]:
        """The self-hosted runners by id, as the API shows them."""
        return MappingProxyType(self._state.runners)

    @property
    def managed_runners(self) -> Mapping[str, Mapping[str, Any]]:
        """The managed runners by id, as the API shows them."""
        return MappingProxyType(self._state.managed_runners)

    @property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """The templates by id, as the API shows them."""
        return MappingProxyType(self._state.templates)

    @property
    def workflows(self) -> Mapping[str, WorkflowRecord]:
        """The workflows by id, oldest first."""
        return MappingProxyType(self._state.workflows.by_id)

    def consume(self, n: int = 1) -> None:
        """Use up `n` of the budget now, as another client behind the same address would."""
        for _ in range(n):
            self._api.arrive()

    def expire_token(self) -> None:
        """Answer 401 to the token from now on."""
        self._api.expired = True

    def script(self, outcome: Callable[[int], str] | None) -> None:
        """Decide how workflows created from now on end, by creation index; None lets all complete."""
        if outcome is not None and not callable(outcome):
            raise ValueError(f"outcome must be a function of the creation index, not {outcome!r}")
        self._state.outcome = outcome or always_completed

    def finish(self, id: str, status: str = "completed") -> None:
        """End a workflow now."""
        if status not in OUTCOMES:
            raise ValueError(f"status must be one of {', '.join(OUTCOMES)}, not {status!r}")
        record = self._state.workflows.by_id[id]
        if record.status in OUTCOMES:
            raise ValueError(f"workflow {id} has ended already: {record.status}")
        record.life = record.life.end(self.now, status)

    def forget(self, id: str) -> None:
        """Make a workflow unknown, as if it had been deleted."""
        del self._state.workflows.by_id[id]

    def expire_urls(self) -> None:
        """Make every signed URL given so far answer 403."""
        self._signer.expire_all()

    def fail_next(
        self,
        method: str,
        path: str,
        *,
        status: int,
        times: int = 1,
        effect: bool = False,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str | None = None,
    ) -> None:
        """Answer the next matching requests with `status`.

        Args:
            method: An HTTP method, or "*".
            path: A path, an endpoint such as "/v1/workflow/{id}/outputs", or "*".
            status: The status to answer.
            times: How many requests.
            effect: Carry the request out before.
            body: The body, instead of the API's error envelope.
            headers: Headers to add.
            content_type: The content type of the body.
        """
        answer = failing_answer(status, body, headers, content_type)
        self._faults.add(Fault(method, path, times, answer=answer, effect=effect))

    def drop_next(self, method: str, path: str, *, after: bool = False, times: int = 1) -> None:
        """Close the connection of the next matching requests unanswered, before or after carrying them out."""
        self._faults.add(Fault(method, path, times, drop=True, effect=after))

    def delay_next(self, method: str, path: str, seconds: float, times: int = 1) -> None:
        """Answer the next matching requests late, by server seconds; they are carried out at once."""
        self._faults.add(Fault(method, path, times, delay=seconds))

    def truncate_next(self, method: str, path: str, times: int = 1) -> None:
        """Break off the answers to the next matching requests: less body than promised, then a closed connection."""
        self._faults.add(Fault(method, path, times, truncate=True))

    def cut_download_next(self, *, after: int, times: int = 1) -> None:
        """Break off the next downloads after so many bytes."""
        self._storage.cut_next(after, times)

    def fail_download_next(self, *, status: int, times: int = 1) -> None:
        """Answer the next downloads with `status`."""
        self._storage.fail_next(status, times)

    def close_idle(self) -> int:
        """Close the idle kept-alive connections of both ports, and return how many there were."""
        return sum(port.close_idle() for port in self._ports)

    def cut_streams(self) -> int:
        """Close the connections of all open streams of updates, and return how many there were."""
        streams = list(self._api.streams)
        for transport in streams:
            if transport is not None:
                transport.close()
        return len(streams)
