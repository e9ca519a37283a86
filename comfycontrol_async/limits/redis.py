"""RedisLimiter: one budget for every machine behind an address, in a Redis or Valkey server."""

import asyncio
import hashlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol, Self, get_args

from comfycontrol_async._clock import SYSTEM_CLOCK, Clock
from comfycontrol_async._loop import close_with_loop
from comfycontrol_async._settings import is_number
from comfycontrol_async.errors import ConfigurationError, InvalidArgumentError
from comfycontrol_async.limits._question import Answer, Question, parse_answer
from comfycontrol_async.limits._redis_store import Policy, RedisStore, ServerGoneError
from comfycontrol_async.limits._rule import PacingMode, Rule
from comfycontrol_async.limits._scheduler import Scheduler

try:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import (
        AuthenticationError,
        AuthenticationWrongNumberOfArgsError,
        AuthorizationError,
        NoPermissionError,
        NoScriptError,
        ResponseError,
    )
except ImportError as _error:
    raise ConfigurationError(
        "RedisLimiter needs the extra 'redis': pip install 'comfycontrol-async[redis]'"
    ) from _error

log: logging.Logger = logging.getLogger("comfycontrol_async.limits")

_NO_RIGHTS = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError, NoPermissionError)
# What says that the script can never run: a command that the user may not use or that the server does not have, a key
# that is used for something else. redis-py has no classes for them.
_NEVER_RUNS = ("acl failure", "no permissions", "can't run this command", "noperm", "wrongtype", "unknown command")


class RedisClient(Protocol):
    """What is asked of redis-py's client, a cluster's too."""

    def evalsha(self, sha: str, numkeys: int, /, *keys_and_args: str) -> Awaitable[Any]:
        """Run a script that the server knows."""
        ...

    def eval(self, script: str, numkeys: int, /, *keys_and_args: str) -> Awaitable[Any]:
        """Run a script."""
        ...


class RedisLimiter(Scheduler):
    """At most `limit` requests in any `period` seconds at the server, for all that use the same `key`.

    Args:
        url_or_client: `redis://`, `rediss://` (TLS) or `unix://` URL with the credentials, or a client of
            `redis.asyncio`, which is used as it is and never closed here. Redis 6.2 or Valkey 7.2, or newer.
        key: one for each address that requests come from.
        limit, period: the server's rule; 40 per 10 s (API documentation: authentication, rate limit). All processes
            must say the same.
        on_unavailable: what to do while Redis is gone, whatever the reason: "local" goes on with a share of the
            budget, `limit` / `assumed_processes`; "wait" waits for it; "raise" raises `ConnectionFailedError`. Either
            way it is used again when it is back, and what may have been sent meanwhile is charged.
        assumed_processes: how many processes share the budget at the most, for "local". When they are more than
            `limit` there is no share to go on with, and "local" means "wait".
        timeout: seconds within which Redis must answer.
        pacing: how grants are spread, as LocalLimiter, for all processes together.
        clock: where time comes from.

    Order, priorities, `max_wait`, event loops and cancellation are within the process; the processes that wait take
    turns (`limits._turns`). One atomic script (`acquire.lua`) takes as many slots as are wanted, and is told of those
    that were used before. Moments are those of Redis' clock: it must not be put forward while requests are sent; put
    back, it costs one period. A process that dies gives its slots back within 3.25 s + `period`; a user without the
    rights for the script, and a key that is used for another rule, are a `ConfigurationError`.

    `snapshot` returns what Redis said last. The connection is closed by `aclose`, or together with the event loop.

    Raises:
        InvalidArgumentError: an argument that is invalid.
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
        if isinstance(url_or_client, redis.Redis | redis.RedisCluster) or not (
            isinstance(url_or_client, str) or hasattr(url_or_client, "evalsha")
        ):
            raise InvalidArgumentError(
                f"url_or_client must be a URL or a client of redis.asyncio, not a {type(url_or_client).__name__}"
            )
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
        server = _Server(url_or_client, key, timeout)
        super().__init__(rule, clock, RedisStore(rule, clock, server, on_unavailable, share))


class _Server:
    """The connection to the server, and its script (`_redis_store.Server`)."""

    def __init__(self, url_or_client: str | RedisClient, key: str, timeout: float) -> None:
        self.timeout = timeout
        self._key = key
        self._url = url_or_client if isinstance(url_or_client, str) else None
        self._client: RedisClient | None = None if isinstance(url_or_client, str) else url_or_client
        self._closer: AsyncGenerator[None, None] | None = None
        self._on_close: Callable[[], None] | None = None
        # The braces keep the three in one slot of a cluster.
        self._keys = tuple(f"{{comfycontrol:{key}}}:1:{part}" for part in ("state", "slots", "members"))
        self._script = self._sha = ""

    def open(self, on_close: Callable[[], None]) -> None:
        """Get ready for the running loop; `on_close` is called before the connection is closed, by the loop's end too.

        Raises:
            ConfigurationError: the URL is none.
        """
        if not self._script:
            folder = files("comfycontrol_async.limits")
            self._script = "\n".join(folder.joinpath(name).read_text("utf-8") for name in ("rules.lua", "acquire.lua"))
            self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        if self._url is not None:
            try:
                # One try: what comes after is decided by the store, and within the time that the caller gave.
                client = redis.asyncio.Redis.from_url(
                    self._url,
                    retry=Retry(NoBackoff(), 0),
                    socket_timeout=self.timeout,
                    socket_connect_timeout=self.timeout,
                )
            except Exception as error:  # a ValueError, or what an option in the URL's query leads to
                raise ConfigurationError("the URL of the Redis server is not one that redis-py knows") from error
            self._client = client
        self._on_close = on_close
        self._closer = close_with_loop(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._on_close is not None:
            self._on_close()
        if isinstance(self._client, redis.asyncio.Redis) and self._url is not None:
            await self._client.aclose()

    async def close(self) -> None:
        """Close the connection, if it is ours."""
        if self._closer is not None:
            closer, self._closer = self._closer, None
            try:
                async with asyncio.timeout(self.timeout):
                    await closer.aclose()
            except Exception:  # of a server that is gone: there is nothing left to close
                log.debug("the connection to Redis could not be closed", exc_info=True)

    def forget(self) -> None:
        """Let go of a connection that is the parent's."""
        self._closer = self._on_close = None
        if self._url is not None:
            self._client = None

    async def ask(self, question: Question) -> Answer:
        """Run the script.

        Raises:
            ConfigurationError: the user has no rights, or the script can never run on this key.
            ServerGoneError: no answer in time, or none that can be used.
        """
        try:
            async with asyncio.timeout(self.timeout):
                return parse_answer(await self._run(question.to_json()), question, self._key)
        except ConfigurationError:
            raise
        except _NO_RIGHTS as error:
            raise ConfigurationError(f"the Redis server refuses us: {error}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Of a task of the client's, not ours.
            raise ServerGoneError("the client was cancelled") from error
        except Exception as error:
            if isinstance(error, ResponseError) and any(sign in str(error).lower() for sign in _NEVER_RUNS):
                message = f"the Redis server cannot run the script of the rate limit: {error}"
                raise ConfigurationError(message) from error
            raise ServerGoneError(str(error) or f"no answer in time: {type(error).__name__}") from error

    async def _run(self, question: str) -> Any:
        client = self._client
        assert client is not None  # opened when the loop was bound
        try:
            return await client.evalsha(self._sha, len(self._keys), *self._keys, question)
        except NoScriptError:
            return await client.eval(self._script, len(self._keys), *self._keys, question)
