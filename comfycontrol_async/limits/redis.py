"""RedisLimiter: one budget for every machine behind an address, in a Redis or Valkey server."""

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, Awaitable
from importlib.resources import files
from typing import Any, Protocol, cast, get_args

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._loop import close_with_loop
from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError
from comfycontrol_async.limits._lanes import Priority, Stage
from comfycontrol_async.limits._permit import Permit
from comfycontrol_async.limits._protocol import RateLimitSnapshot
from comfycontrol_async.limits._remote import Policy, RemoteLimiter, ServerGoneError
from comfycontrol_async.limits._rule import PacingMode, Rule, is_number

try:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        BusyLoadingError,
        NoPermissionError,
        NoScriptError,
        ReadOnlyError,
        RedisError,
        ResponseError,
        TryAgainError,
    )
except ImportError as _error:
    raise ConfigurationError(
        "RedisLimiter needs the extra 'redis': pip install 'comfycontrol-async[redis]'"
    ) from _error

# How errors begin that go by without our doing: no memory, a failover under way.
_PASSING = ("OOM ", "MASTERDOWN", "CLUSTERDOWN", "LOADING", "BUSY ", "MISCONF", "NOREPLICAS", "UNBLOCKED")


class RedisClient(Protocol):
    """What is asked of redis-py's client, a cluster's too."""

    def evalsha(self, sha: str, numkeys: int, /, *keys_and_args: str) -> Awaitable[Any]:
        """Run a script that the server knows."""
        ...

    def eval(self, script: str, numkeys: int, /, *keys_and_args: str) -> Awaitable[Any]:
        """Run a script."""
        ...


class RedisLimiter:
    """At most `limit` requests in any `period` seconds at the server, for all that use the same `key`.

    Args:
        url_or_client: `redis://`, `rediss://` (TLS) or `unix://` URL with the credentials, or a client of
            `redis.asyncio`, which is used as it is and never closed here. Redis 6.2 or Valkey 7.2, or newer.
        key: one for each address that requests come from.
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit). All processes
            must say the same.
        on_unavailable: what to do while Redis is gone: "local" goes on with a share of the budget, `limit` /
            `assumed_processes`; "wait" waits for it; "raise" raises `ConnectionFailedError`. Either way it is used
            again when it is back, and what may have been sent meanwhile is charged.
        assumed_processes: how many processes share the budget at the most, for "local". When they are more than
            `limit` there is no share to go on with, and "local" means "wait".
        timeout: seconds within which Redis must answer.
        pacing: how grants are spread, see FileLimiter.
        clock: where time comes from.

    Order, priorities, `max_wait`, event loops and cancellation are LocalLimiter's, within the process; the processes
    that wait take turns (`limits._turns`). One atomic script (`acquire.lua`) takes as many slots as are wanted, and is
    told of those that were used before. Moments are those of Redis' clock: it must not be put forward. A process that
    dies gives its slots back within 3.25 s + `period`.

    `snapshot` tells what Redis said last. The connection is closed by `aclose`, or together with the event loop.

    Raises:
        InvalidArgumentError: an argument that makes no sense.
    """

    def __init__(
        self,
        url_or_client: str | RedisClient,
        *,
        key: str = "comfycontrol",
        limit: int = 40,
        period: float = 10.0,
        on_unavailable: Policy = "local",
        assumed_processes: int = 4,
        timeout: float = 1.0,
        pacing: PacingMode = "auto",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        rule = Rule(limit, period, pacing)
        if not isinstance(key, str) or not key or "{" in key or "}" in key:
            raise InvalidArgumentError(f"key must be a text without braces, not {key!r}")
        if on_unavailable not in get_args(Policy):
            raise InvalidArgumentError(f"on_unavailable must be 'local', 'wait' or 'raise', not {on_unavailable!r}")
        if not is_number(assumed_processes) or not 1 <= assumed_processes < math.inf:
            raise InvalidArgumentError(f"assumed_processes must be a number from 1, not {assumed_processes!r}")
        if not (is_number(timeout) and 0 < timeout < math.inf):
            raise InvalidArgumentError(f"timeout must be a positive, finite number of seconds, not {timeout!r}")
        share = int(rule.limit // assumed_processes)
        if on_unavailable == "local" and not share:
            on_unavailable = "wait"
        self._limiter = RemoteLimiter(rule, clock, _Server(url_or_client, key, timeout), on_unavailable, share)

    async def acquire(
        self, priority: Priority = Priority.NORMAL, *, max_wait: float | None = None, stage: Stage = Stage.OTHER
    ) -> Permit:
        """Wait for a slot, first come first served in the lane of `priority`.

        Raises:
            RateLimitWaitError: it would take longer than `max_wait` seconds; at once when that can be told.
            ConfigurationError: Redis refuses us, or the key is for another limit.
            ConnectionFailedError: Redis is gone, and `on_unavailable` is "raise".
            InvalidArgumentError: an unknown priority, or a `max_wait` that is negative or no number.
            ClientLoopError: the limiter belongs to another event loop that is still alive.
        """
        return cast(Permit, await self._limiter.acquire(priority, max_wait=max_wait, stage=stage))

    def cool_down(self, seconds: float) -> None:
        """Grant nothing for `seconds` from now in any process, after a 429; a cooldown is only ever extended.

        Raises:
            InvalidArgumentError: `seconds` is negative or not finite.
        """
        self._limiter.cool_down(seconds)

    def snapshot(self) -> RateLimitSnapshot:
        """Return what is known at this moment: of slots and cooldown what Redis said last, of waiters our own."""
        return self._limiter.snapshot()

    async def aclose(self) -> None:
        """Tell Redis what became of the last requests, and close the connection if it is ours."""
        await self._limiter.aclose()

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Tell whether it may be used from `loop`: it is bound to that one, or to none that is alive."""
        return self._limiter.serves(loop)

    def __repr__(self) -> str:
        return repr(self._limiter).replace("Remote", "Redis", 1)


class _Server:
    """The connection to the server, and its script."""

    def __init__(self, url_or_client: str | RedisClient, key: str, timeout: float) -> None:
        self.key = key
        self.timeout = timeout
        self._url = url_or_client if isinstance(url_or_client, str) else None
        self._client: RedisClient | None = None if isinstance(url_or_client, str) else url_or_client
        self._closer: AsyncGenerator[None, None] | None = None
        # The braces keep the three in one slot of a cluster.
        self._keys = tuple(f"{{comfycontrol:{key}}}:1:{part}" for part in ("state", "slots", "members"))
        self._script = self._sha = ""

    def open(self) -> None:
        """Get ready for the running loop.

        Raises:
            ConfigurationError: the URL is none.
        """
        if not self._script:
            self._script = files("comfycontrol_async.limits").joinpath("acquire.lua").read_text("utf-8")
            self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        if self._url is not None:
            try:
                # One try: what comes after is decided here, and within the time that the caller gave.
                client = redis.asyncio.Redis.from_url(
                    self._url,
                    retry=Retry(NoBackoff(), 0),
                    socket_timeout=self.timeout,
                    socket_connect_timeout=self.timeout,
                )
            except ValueError as error:
                raise ConfigurationError("the URL of the Redis server is not one that redis-py knows") from error
            self._client = client
            self._closer = close_with_loop(client)

    async def close(self) -> None:
        """Close the connection, if it is ours."""
        if self._closer is not None:
            closer, self._closer = self._closer, None
            await closer.aclose()

    def forget(self) -> None:
        """Let go of a connection that is the parent's."""
        if self._url is not None:
            self._client = self._closer = None

    async def ask(self, question: list[str]) -> list[int]:
        """Run the script.

        Raises:
            ConfigurationError: the server will not do what is asked of it.
            ServerGoneError: no answer in time.
        """
        try:
            async with asyncio.timeout(self.timeout):
                return await self._run(question)
        except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
            raise ConfigurationError(f"the Redis server refuses us: {error}") from error
        except (BusyLoadingError, ReadOnlyError, TryAgainError) as error:
            raise ServerGoneError(str(error)) from error
        except ResponseError as error:
            if str(error).startswith(_PASSING):
                raise ServerGoneError(str(error)) from error
            raise ConfigurationError(f"the Redis server cannot run the script of the rate limit: {error}") from error
        except (RedisError, OSError, TimeoutError) as error:
            raise ServerGoneError(str(error) or "no answer in time") from error

    async def _run(self, question: list[str]) -> list[int]:
        client = self._client
        assert client is not None  # opened when the loop was bound
        try:
            answer = await client.evalsha(self._sha, len(self._keys), *self._keys, *question)
        except NoScriptError:
            answer = await client.eval(self._script, len(self._keys), *self._keys, *question)
        return [int(number) for number in answer]
