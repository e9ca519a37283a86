"""LocalServer: the whole ComfyControl service on two ports of this machine."""

import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.testing.server._api import ApiPort
from comfycontrol_async.testing.server._edge import make_edge, most_in_window
from comfycontrol_async.testing.server._faults import Fault, Faults, failing_answer
from comfycontrol_async.testing.server._life import OUTCOMES, Failure
from comfycontrol_async.testing.server._options import ServerOptions, takes_options
from comfycontrol_async.testing.server._ports import HttpPort
from comfycontrol_async.testing.server._proxy import Proxy
from comfycontrol_async.testing.server._records import LeakedCredential, LiveView, RequestRecord
from comfycontrol_async.testing.server._signing import UrlSigner
from comfycontrol_async.testing.server._simulation import Simulation
from comfycontrol_async.testing.server._state import Executor, State, always_completed
from comfycontrol_async.testing.server._storage import StoragePort
from comfycontrol_async.testing.server._thread import LoopThread
from comfycontrol_async.testing.server._time import ServerTime
from comfycontrol_async.testing.server._workflows import WorkflowRecord, failure_of

_T = TypeVar("_T")
_P = ParamSpec("_P")


def _from_any_thread(
    method: "Callable[Concatenate[LocalServer, _P], _T]",
) -> "Callable[Concatenate[LocalServer, _P], _T]":
    """Run a method in the server's own thread, if it has one, whichever thread calls it."""

    @functools.wraps(method)
    def call(self: "LocalServer", /, *args: _P.args, **options: _P.kwargs) -> _T:
        run = functools.partial(method, self, *args, **options)
        return run() if self._thread is None else self._thread.call(run)

    return call


class LocalServer:
    """A ComfyControl service for tests: `async with LocalServer() as server`, or without `async`.

    `async with` serves on the running event loop. `with` serves in a thread of its own: for synchronous tests, for
    clients on any event loop, and for code that blocks its loop. Then everything here may be called from any thread,
    but `start` and `stop`, which are what `async with` calls.

    It serves all endpoints over real HTTP, counts arrivals as the service's edge does, moves workflows through their
    states and makes PNG outputs. One server second lasts 1/`speed` real seconds; every time below is in server
    seconds unless it says otherwise.

    The options are those of `ServerOptions`, by name.
    """

    @takes_options(ServerOptions)
    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._token = options.token or f"cfc_{secrets.token_hex(20)}"
        self._time = ServerTime(options.speed)
        self._signer = UrlSigner(self._time, options.url_lifetime)
        self._state = State(options, self._time, self._signer)
        self._executor: Executor = Proxy(self._state) if options.comfyui else Simulation(self._state)
        self._faults = Faults()
        counter = make_edge(options.edge, options.passing, options.period, options.cooldown, options.edge_phase)
        self._api = ApiPort(self._state, self._executor, counter, self._faults, self._token)
        self._storage = StoragePort(self._state)
        self._ports = (HttpPort(self._api.handle, options.keepalive), HttpPort(self._storage.handle, options.keepalive))
        self._bound = (options.port, options.storage_port)
        self._thread: LoopThread | None = None
        self._running = False
        self.script(options.outcome)

    async def start(self) -> None:
        """Listen on both ports; after `stop`, on the same ones with everything remembered.

        Raises:
            RuntimeError: it runs already.
            OSError: a port that was asked for is taken.
            ComfyUIError: the real ComfyUI that was asked for cannot be used.
        """
        if self._running:
            raise RuntimeError(f"{self!r} runs already")
        self._time.begin()
        self._state.seed()
        # First, as it may refuse: then no port was ever open.
        await self._executor.start()
        api, storage = self._ports
        host = self._options.host
        try:
            bound = await api.start(host, self._bound[0])
            self._bound = (bound, await storage.start(host, self._bound[1]))
        except BaseException:
            await api.stop()
            await self._executor.stop()
            raise
        self._signer.base = self.storage_url
        self._running = True

    async def stop(self) -> None:
        """End all streams and close all connections; harmless when stopped."""
        self._running = False
        self._time.end_sleeps()
        for port in self._ports:
            await port.stop()
        await self._executor.stop()
        # Transports close in the next turn of the loop; without it the loop may end before them.
        await SYSTEM_CLOCK.sleep(0)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        if self._running:
            raise RuntimeError(f"{self!r} runs already")
        thread = LoopThread()
        thread.start()
        try:
            thread.run(self.start())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.run(self.stop())
        finally:
            thread.stop()

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
        """Requests that pass in any `period`; 100,000 without a limit."""
        return self._options.passing

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
        """Every request that arrived at the API until now, in order; refused, dropped and failed ones too."""
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
        return most_in_window(list(self._api.arrivals), self._options.period)

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
        """The user, as the API shows it."""
        return LiveView(self._state.user)

    @property
    def runners(self) -> Mapping[str, Mapping[str, Any]]:
        """The self-hosted runners by id, as the API shows them."""
        return LiveView(self._state.runners)

    @property
    def managed_runners(self) -> Mapping[str, Mapping[str, Any]]:
        """The managed runners by id, as the API shows them."""
        return LiveView(self._state.managed_runners)

    @property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """The templates by id, as the API shows them."""
        return LiveView(self._state.templates)

    @property
    def workflows(self) -> Mapping[str, WorkflowRecord]:
        """The workflows by id, oldest first."""
        return LiveView(self._state.workflows.by_id)

    @_from_any_thread
    def consume(self, n: int = 1) -> None:
        """Use up `n` requests of the limit now, as another client behind the same address would."""
        for _ in range(n):
            self._api.arrive()

    @_from_any_thread
    def expire_token(self) -> None:
        """Answer 401 to the token from now on."""
        self._api.expired = True

    @_from_any_thread
    def script(self, outcome: Callable[[int], str | Failure] | None) -> None:
        """Decide how workflows created from now on end, by creation index (from 0); None lets all complete.

        Raises:
            ValueError: it is no function.
        """
        attrs.evolve(self._options, outcome=outcome)  # checks it
        self._state.outcome = outcome or always_completed

    @_from_any_thread
    def finish(self, id: str, status: str | Failure = "completed") -> None:
        """End a workflow now; a `Failure` says how it failed.

        Raises:
            KeyError: there is no such workflow.
            ValueError: it has ended already, or `status` is none that ends one.
        """
        failure = status if isinstance(status, Failure) else None
        status = "failed" if isinstance(status, Failure) else status
        if status not in OUTCOMES:
            raise ValueError(f"status must be one of {', '.join(OUTCOMES)} or a Failure, not {status!r}")
        record = self._state.workflows.by_id[id]
        if record.status in OUTCOMES:
            raise ValueError(f"workflow {id} has ended already: {record.status}")
        if status == "failed":
            record.failure = failure or failure_of(record.graph)
        record.life = record.life.end(self.now, status)

    @_from_any_thread
    def forget(self, id: str) -> None:
        """Make a workflow unknown, as if it had been deleted: from now on it answers 404.

        Raises:
            KeyError: there is no such workflow.
        """
        del self._state.workflows.by_id[id]

    @_from_any_thread
    def expire_urls(self) -> None:
        """Make every signed URL given so far answer 403."""
        self._signer.expire_all()

    @_from_any_thread
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

    @_from_any_thread
    def drop_next(self, method: str, path: str, *, after: bool = False, times: int = 1) -> None:
        """Close the connection of the next matching requests unanswered, before or after carrying them out."""
        self._faults.add(Fault(method, path, times, drop=True, effect=after))

    @_from_any_thread
    def delay_next(self, method: str, path: str, seconds: float, times: int = 1) -> None:
        """Answer the next matching requests late, by server seconds; they are carried out at once."""
        self._faults.add(Fault(method, path, times, delay=seconds))

    @_from_any_thread
    def truncate_next(self, method: str, path: str, times: int = 1) -> None:
        """Break off the answers to the next matching requests: less body than promised, then a closed connection."""
        self._faults.add(Fault(method, path, times, truncate=True))

    @_from_any_thread
    def cut_download_next(self, *, after: int, times: int = 1) -> None:
        """Break off the next `times` downloads when `after` bytes of the body were sent."""
        self._storage.cut_next(after, times)

    @_from_any_thread
    def fail_download_next(self, *, status: int, times: int = 1) -> None:
        """Answer the next `times` downloads with `status`, such as 403 for an expired URL."""
        self._storage.fail_next(status, times)

    @_from_any_thread
    def close_idle(self) -> int:
        """Close the idle kept-alive connections of both ports, and return how many there were."""
        return sum(port.close_idle() for port in self._ports)

    @_from_any_thread
    def cut_streams(self) -> int:
        """Close the connections of all open streams of updates, and return how many there were."""
        streams = list(self._api.streams)
        for transport in streams:
            if transport is not None:
                transport.close()
        return len(streams)
