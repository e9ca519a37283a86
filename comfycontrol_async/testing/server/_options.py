"""The options of a LocalServer, checked."""

import math
from collections.abc import Callable
from typing import Any

import attrs

from comfycontrol_async.testing.server._edge import REFUSALS, make_edge

TIERS = ("free", "pro", "plus", "enterprise")


def _at_least(least: float) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < least:
            raise ValueError(f"{attribute.name} must be a number of at least {least:g}, not {value!r}")

    return check


def _positive(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _at_least(0)(_, attribute, value)
    if value == 0:
        raise ValueError(f"{attribute.name} must be more than 0")


def _whole(least: int) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{attribute.name} must be a whole number of at least {least}, not {value!r}")

    return check


def _one_of(names: tuple[str, ...]) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value not in names:
            raise ValueError(f"{attribute.name} must be one of {', '.join(names)}, not {value!r}")

    return check


def _number_or_function(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if not callable(value):
        _at_least(0)(_, attribute, value)


def _three_delays(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    if len(value) != 3:
        raise ValueError(f"{attribute.name} must be three numbers, not {value!r}")
    for delay in value:
        _at_least(0)(_, attribute, delay)


def _share(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    _at_least(0)(_, attribute, value)
    if value > 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, not {value!r}")


_optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class Options:
    """What LocalServer takes; see there. Times are server seconds except where real ones are named."""

    limit: int = attrs.field(validator=_whole(1))
    period: float = attrs.field(validator=_positive)
    cooldown: float = attrs.field(validator=_at_least(0))
    edge: str = attrs.field()
    edge_phase: float = attrs.field(validator=_at_least(0))
    speed: float = attrs.field(validator=_positive)
    refusal: str = attrs.field(validator=_one_of(REFUSALS))
    retry_after: float | None = attrs.field(validator=_optional(_at_least(0)))
    latency: Callable[[], float] | float | None = attrs.field(validator=_optional(_number_or_function))
    loss: float = attrs.field(validator=_share)
    seed: int | None = attrs.field()
    token: str | None = attrs.field()
    tier: str = attrs.field(validator=_one_of(TIERS))
    runner_limit: int = attrs.field(validator=_whole(0))
    template_limit: int = attrs.field(validator=_whole(0))
    delays: tuple[float, float, float] = attrs.field(converter=tuple, validator=_three_delays)
    duration: Callable[[int], float] | float = attrs.field(validator=_number_or_function)
    cancel_delay: float = attrs.field(validator=_at_least(0))
    list_lag: float = attrs.field(validator=_at_least(0))
    sse_updates: int = attrs.field(validator=_whole(1))
    sse_interval: float = attrs.field(validator=_positive)
    output_size: int | None = attrs.field(validator=_optional(_whole(0)))
    url_lifetime: float = attrs.field(validator=_at_least(0))
    upload_limit: int = attrs.field(validator=_whole(1))
    keepalive: float = attrs.field(validator=_positive)
    host: str = attrs.field()
    port: int = attrs.field(validator=_whole(0))
    storage_port: int = attrs.field(validator=_whole(0))

    @edge.validator
    def _check_edge(self, _: Any, value: str) -> None:
        make_edge(value, 1, 1.0, 1.0)

    def round_trip(self) -> float:
        """Return the latency of one request in server seconds."""
        if self.latency is None:
            return 0.0
        return max(0.0, self.latency() if callable(self.latency) else self.latency)

    def run_time(self, index: int) -> float:
        """Return how long the workflow with this creation index runs, in server seconds."""
        return self.duration(index) if callable(self.duration) else self.duration
