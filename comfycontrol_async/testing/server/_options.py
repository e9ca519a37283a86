"""The options of a LocalServer: each stands here once, with its default, its check and what it means."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

import attrs

from comfycontrol_async.graph import NodeDefinitions
from comfycontrol_async.testing.server._edge import REFUSALS, make_edge
from comfycontrol_async.testing.server._life import Failure

_USERINFO = re.compile("//[^/]*@")
_UNLIMITED = 100_000  # in 10 s: more than this server can answer
_LONGEST = 1e9  # seconds, 30 years: moments stay dates that a computer can hold
_FASTEST = 1e6
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
TIERS = ("free", "pro", "plus", "enterprise")


def _at_least(least: float) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < least:
            raise ValueError(f"{attribute.name} must be a number of at least {least:g}, not {value!r}")
        if value > _LONGEST:
            raise ValueError(f"{attribute.name} must be at most {_LONGEST:g}")

    return check


def _positive(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _at_least(0)(_, attribute, value)
    if value == 0:
        raise ValueError(f"{attribute.name} must be more than 0")


def _speed(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _positive(_, attribute, value)
    if value > _FASTEST:
        raise ValueError(f"{attribute.name} must be at most {_FASTEST:g}, not {value!r}")


def _whole(least: int) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{attribute.name} must be a whole number of at least {least}, not {value!r}")

    return check


def _port(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _whole(0)(_, attribute, value)
    if value > 65535:
        raise ValueError(f"{attribute.name} must be at most 65535, not {value!r}")


def _token(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    # What clients refuse to send; never quoted: it is a secret.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or set(value) & set(" \"'"):
        raise ValueError(f"{attribute.name} must be printable ASCII text without blanks and quotes")


def _host(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{attribute.name} must be an address to listen on, such as '127.0.0.1', not {value!r}")


def _headers(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{attribute.name} must map names to texts, not be a {type(value).__name__}")
    for name, text in value.items():
        # The text may be a secret, so that only the name is quoted.
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{attribute.name}: {name!r} is no name of a header")
        if not isinstance(text, str) or any(letter in text for letter in "\r\n\0"):
            raise ValueError(f"{attribute.name}: the value of {name!r} must be text on one line")


def _limit(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if value is not None:
        _whole(1)(_, attribute, value)


def _one_of(names: tuple[str, ...]) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value not in names:
            raise ValueError(f"{attribute.name} must be one of {', '.join(names)}, not {value!r}")

    return check


def _number_or_function(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not callable(value):
        _at_least(0)(_, attribute, value)


def _three_delays(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise ValueError(f"{attribute.name} must be three numbers, not {value!r}")
    for delay in value:
        _at_least(0)(_, attribute, delay)


def _share(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _at_least(0)(_, attribute, value)
    if value > 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, not {value!r}")


def _function(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not callable(value):
        raise ValueError(f"{attribute.name} must be a function of the creation index, not {value!r}")


def _known_edge(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    make_edge(value, 1, 1.0, 1.0)


def _web_address(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        shown = _USERINFO.sub("//", value) if isinstance(value, str) else value  # it may hold a password
        raise ValueError(f"{attribute.name} must be an address such as http://127.0.0.1:8188, not {shown!r}")


def _node_definitions(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not isinstance(value, NodeDefinitions):
        raise ValueError(f"{attribute.name} must be NodeDefinitions, such as NodeDefinitions.load(path), not {value!r}")


_optional = attrs.validators.optional
_Owner = TypeVar("_Owner")
_P = ParamSpec("_P")


@attrs.frozen(kw_only=True)
class ServerOptions:
    """What `LocalServer` takes by name. Times are server seconds unless real ones are named.

    Raises:
        ValueError: an option has a value that it cannot have; the text names both.
    """

    limit: int | None = attrs.field(default=40, validator=_limit)
    """Requests that pass in any `period`; None for no limit."""

    period: float = attrs.field(default=10.0, validator=_positive)
    """Length of the window."""

    cooldown: float = attrs.field(default=10.0, validator=_at_least(0))
    """How long everything is refused after one request too many."""

    edge: str = attrs.field(default="exact", validator=_known_edge)
    """How arrivals are counted: "exact" (any window), "counter" (two weighted buckets) or "fixed" (a grid)."""

    edge_phase: float = attrs.field(default=0.0, validator=_at_least(0))
    """Where the grid of "counter" and "fixed" begins."""

    speed: float = attrs.field(default=1.0, validator=_speed)
    """Server seconds in one real second."""

    refusal: str = attrs.field(default="html", validator=_one_of(REFUSALS))
    """The body of a 429: "html", "problem" or "json"."""

    retry_after: float | None = attrs.field(default=None, validator=_optional(_at_least(0)))
    """Adds a Retry-After header to 429s, sent in real seconds."""

    latency: Callable[[], float] | float | None = attrs.field(default=None, validator=_optional(_number_or_function))
    """The round trip of a request, or a function that draws one; half of it passes before the arrival."""

    loss: float = attrs.field(default=0.0, validator=_share)
    """The share of requests whose connection is closed unanswered, half of them before they arrive."""

    seed: int | None = None
    """Makes loss repeatable."""

    token: str | None = attrs.field(default=None, validator=_optional(_token), repr=False)
    """The token to accept; a random one by default."""

    tier: str = attrs.field(default="pro", validator=_one_of(TIERS))
    """The user's tier; "free" has no managed runners."""

    runner_limit: int = attrs.field(default=10, validator=_whole(0))
    """Self-hosted runners that the tier allows."""

    template_limit: int = attrs.field(default=50, validator=_whole(0))
    """Templates that the tier allows."""

    delays: tuple[float, float, float] = attrs.field(default=(0.2, 0.3, 0.5), validator=_three_delays)
    """Time a workflow spends accepted, uploaded and queued."""

    duration: Callable[[int], float] | float = attrs.field(default=2.0, validator=_number_or_function)
    """Time it runs, or a function of its 0-based creation index."""

    outcome: Callable[[int], str | Failure] | None = attrs.field(default=None, validator=_optional(_function))
    """A function of that index: "completed", "failed" or a `Failure`, "cancelled", "invalid"; None completes all."""

    node_definitions: NodeDefinitions | None = attrs.field(
        default=None, validator=_optional(_node_definitions), repr=False
    )
    """What a ComfyUI says of its nodes: then graphs are refused as that one does, with its error types.

    Without them, and without `comfyui`, graphs are refused where no definitions are needed to know.
    """

    comfyui: str | None = attrs.field(default=None, validator=_optional(_web_address), repr=False)
    """The address of a real ComfyUI that runs the workflows, such as "http://127.0.0.1:8188", instead of a schedule.

    Then `delays`, `duration`, `outcome` and `cancel_delay` have no effect, and `start` raises `ComfyUIError` when none
    answers there. More are added as runners: `POST /v1/runner` with name, endpoint, headers and tags.
    """

    comfyui_headers: Mapping[str, str] | None = attrs.field(default=None, validator=_optional(_headers), repr=False)
    """Sent to it with every request, such as an Authorization."""

    comfyui_timeout: float = attrs.field(default=1800.0, validator=_positive)
    """Real seconds without any progress after which the worker of a ComfyUI counts as dead, and its workflows fail."""

    cancel_delay: float = attrs.field(default=0.0, validator=_at_least(0))
    """How long a cancelled workflow goes on."""

    list_lag: float = attrs.field(default=0.0, validator=_at_least(0))
    """How much later than created a workflow appears in lists."""

    sse_updates: int = attrs.field(default=120, validator=_whole(1))
    """Updates after which the server closes a stream."""

    sse_interval: float = attrs.field(default=2.0, validator=_positive)
    """Time between the updates of a stream."""

    output_size: int | None = attrs.field(default=None, validator=_optional(_whole(0)))
    """Bytes to which outputs are padded."""

    url_lifetime: float = attrs.field(default=300.0, validator=_at_least(0))
    """How long signed URLs work."""

    upload_limit: int = attrs.field(default=50 * 1024 * 1024, validator=_whole(1))
    """Bytes that one multipart request may have."""

    keepalive: float = attrs.field(default=75.0, validator=_positive)
    """Real seconds after which idle connections are closed."""

    host: str = attrs.field(default="127.0.0.1", validator=_host)
    """The address to listen on."""

    port: int = attrs.field(default=0, validator=_port)
    """The port of the API; 0 takes a free one."""

    storage_port: int = attrs.field(default=0, validator=_port)
    """The port of the storage; 0 takes a free one."""

    @property
    def passing(self) -> int:
        """The limit as a number: without one, more than the server can answer."""
        return _UNLIMITED if self.limit is None else self.limit

    def round_trip(self) -> float:
        """Return the latency of one request in server seconds."""
        if self.latency is None:
            return 0.0
        return max(0.0, self.latency() if callable(self.latency) else self.latency)

    def run_time(self, index: int) -> float:
        """Return how long the workflow with this creation index runs, in server seconds.

        Raises:
            ValueError: the function of `duration` returned no number.
        """
        if not callable(self.duration):
            return self.duration
        seconds = self.duration(index)
        if not isinstance(seconds, int | float) or not seconds >= 0:
            raise ValueError(f"duration must return a number of at least 0, not {seconds!r}")
        return seconds


def takes_options(
    options: Callable[_P, ServerOptions],
) -> Callable[[Callable[[_Owner, ServerOptions], None]], Callable[Concatenate[_Owner, _P], None]]:
    """Make a constructor of one argument, the options, take them one by one: for callers, type checkers and `help`."""

    def wrap(make: Callable[[_Owner, ServerOptions], None]) -> Callable[Concatenate[_Owner, _P], None]:
        def take(self: _Owner, /, *args: _P.args, **given: _P.kwargs) -> None:
            make(self, options(*args, **given))

        functools.update_wrapper(take, make)
        owner = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        signature = inspect.signature(options)
        parameters = [owner, *signature.parameters.values()]
        take.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
        return take

    return wrap
