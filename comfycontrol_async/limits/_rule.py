"""Rule: validated limit, period and derived durations; constants of the guarantee, such as the hold cap of 3 s."""

import math
from typing import Literal, get_args

import attrs

from comfycontrol_async._settings import check_seconds, is_number
from comfycontrol_async.errors import InvalidArgumentError

PacingMode = Literal["auto", "burst", "smooth"]
MODES: tuple[str, ...] = get_args(PacingMode)

# Seconds added to every period: clocks tick in steps, and the server may round its own stamps.
GUARD = 0.002
# Seconds for which a request that was sent and lost may still be on its way to the server.
LOST_TAIL = 1.0
# Seconds after its headers were written for which a request that has arrived holds its slot without an answer.
HOLD_CAP = 3.0
# Seconds between two looks at a request that holds its slot for longer.
CAP_CHECK = 0.5

# Seconds between taking a permit and writing its request within which the store hears nothing about the latter.
SEND_SOON = 0.25
# Seconds for which a shared slot is charged beforehand, so that a process that dies gives it back by itself.
LEASE = HOLD_CAP + SEND_SOON
# Leases are renewed this often: a request that leaves right before is on its way for less than the rest of one.
LEASE_CHECK = LEASE / 2
# Seconds by which no slot is charged further into the future than this + a span.
FURTHEST = LEASE + LOST_TAIL + HOLD_CAP

# Seconds for which one 429 closes the gate at the most, whatever the server asks for.
LONGEST_COOLDOWN = 600.0


@attrs.frozen
class Rule:
    """At most `limit` requests in any `period` seconds, spread as `pacing` says.

    Raises:
        InvalidArgumentError: `limit` < 1, a `period` that is not positive and finite, an unknown `pacing`.
    """

    limit: int
    period: float
    pacing: PacingMode = "auto"
    # Seconds for which a slot is taken after its answer.
    span: float = attrs.field(init=False)
    # Seconds between two requests while they are spread (`_pacing`).
    pace: float = attrs.field(init=False)
    # Seconds for which a slot waits for the process whose turn it is (`_turns`).
    grace: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        limit, period = self.limit, self.period
        if not is_number(limit) or limit != limit // 1 or not 1 <= limit < math.inf:
            raise InvalidArgumentError(f"limit must be a whole number of requests, at least 1, not {limit!r}")
        check_seconds("period", period, InvalidArgumentError, positive=True, finite=True)
        if self.pacing not in MODES:
            raise InvalidArgumentError(f"pacing must be 'auto', 'burst' or 'smooth', not {self.pacing!r}")
        for name, value in (
            ("limit", int(limit)),
            ("period", float(period)),
            ("span", period + GUARD),
            ("pace", period / max(1, limit - 2) if limit > 1 else 2.5 * period),
            ("grace", min(0.05, max(0.01, period / 100))),
        ):
            object.__setattr__(self, name, value)
