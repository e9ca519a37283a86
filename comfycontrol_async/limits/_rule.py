"""Rule: the limit, checked, and what follows from it."""

import math

import attrs

from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.limits._pacing import MODES, PacingMode
from comfycontrol_async.limits._window import GUARD


def is_number(value: object) -> bool:
    """Tell whether a value is a number, which True is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@attrs.frozen
class Rule:
    """At most `limit` requests in any `period` seconds, spread as `pacing` says.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
    """

    limit: int
    period: float
    pacing: PacingMode
    # Seconds for which a slot is taken after its answer.
    span: float = attrs.field(init=False)
    # While requests are spread: seconds between two, so that two fewer than the limit go in a period. However an edge
    # lays its buckets, it counts no more than `limit` then (theory: `_pacing`).
    pace: float = attrs.field(init=False)
    # How long a slot waits for the process whose turn it is (`_turns`).
    grace: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        limit, period = self.limit, self.period
        if not is_number(limit) or limit != limit // 1 or not 1 <= limit < math.inf:
            raise InvalidArgumentError(f"limit must be a whole number of requests, at least 1, not {limit!r}")
        if not (is_number(period) and 0 < period < math.inf):
            raise InvalidArgumentError(f"period must be a positive, finite number of seconds, not {period!r}")
        if self.pacing not in MODES:
            raise InvalidArgumentError(f"pacing must be 'auto', 'burst' or 'smooth', not {self.pacing!r}")
        for name, value in (
            ("limit", int(limit)),
            ("period", float(period)),
            ("span", period + GUARD),
            ("pace", period / max(1, limit - 2)),
            ("grace", min(0.05, max(0.01, period / 100))),
        ):
            object.__setattr__(self, name, value)
