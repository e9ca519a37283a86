"""What `acquire.lua` is asked, and what it answers: plain values, durations in seconds."""

import math
from collections.abc import Mapping, Sequence

import attrs

from comfycontrol_async.limits._joint import LEASE
from comfycontrol_async.limits._pacing import QUIET
from comfycontrol_async.limits._rule import Rule
from comfycontrol_async.limits._turns import CATCH_UP
from comfycontrol_async.limits._window import HOLD_CAP, LOST_TAIL

# Seconds for which a process that sleeps is believed to wait, longer than it said that it would sleep.
_OVERSLEEP = 0.5
# Seconds for which the state is kept after it has ceased to matter.
KEEP = 60.0
# Seconds by which no moment lies further in the future than this + a period.
_FURTHEST = LEASE + LOST_TAIL + HOLD_CAP


@attrs.frozen(kw_only=True)
class Question:
    """One question of the process `name`.

    `want` slots, the first of which is called `first`; `told` is for how long slots that it has are still taken.
    `known`: it asked so lately that its state must be there. `doubt`: 1 when the server could not be asked since, 2
    when requests went out without it. `cooldown`: for how long nothing may be sent, after a 429 that was not told yet.
    `round_trip`: for how long a slot is held as a rule.
    """

    name: str
    rule: Rule
    want: int
    first: int
    told: Mapping[int, float]
    known: bool
    doubt: int
    cooldown: float
    round_trip: float

    def arguments(self) -> list[str]:
        """Return the arguments of the script."""
        rule = self.rule
        keep = rule.span + LEASE + KEEP
        seconds = (rule.period, rule.span, LEASE, rule.span + _FURTHEST, rule.grace, rule.pace, QUIET, _OVERSLEEP, keep)
        arguments = [self.name, str(rule.limit), *map(_microseconds, seconds), rule.pacing, str(self.want)]
        arguments += [str(int(self.known)), str(self.doubt), _microseconds(self.cooldown)]
        arguments += [str(self.first), str(CATCH_UP), _microseconds(self.round_trip)]
        for number, left in self.told.items():
            arguments += [str(number), _microseconds(left)]
        return arguments


@attrs.frozen(kw_only=True)
class Answer:
    """`taken` slots of those that were wanted; ask again in `wake`.

    `charged` says that the window was taken as spent, as nobody knows what went out; `began` that requests are spread
    from now on; `busy` when each taken slot comes free, `rivals` how many others want.
    """

    taken: int
    wake: float
    cooldown: float
    smooth: bool
    pace: float
    charged: bool
    began: bool
    rivals: Sequence[int]
    busy: Sequence[float]


@attrs.frozen
class OtherRule:
    """The state is for another rule than ours."""

    limit: int
    period: float


def parse_answer(numbers: Sequence[int]) -> Answer | OtherRule:
    """Read what the script returned."""
    if numbers[0] < 0:
        return OtherRule(numbers[1], numbers[2] / 1e6)
    taken, wake, cooldown, smooth, pace, charged, began, rivals = numbers[:8]
    return Answer(
        taken=taken,
        wake=wake / 1e6,
        cooldown=cooldown / 1e6,
        smooth=bool(smooth),
        pace=pace / 1e6,
        charged=bool(charged),
        began=bool(began),
        rivals=numbers[8 : 8 + rivals],
        busy=[moment / 1e6 for moment in numbers[8 + rivals :]],
    )


def _microseconds(seconds: float) -> str:
    return str(math.ceil(seconds * 1e6))
