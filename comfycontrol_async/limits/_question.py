"""What `acquire.lua` is asked, and what it answers: JSON, the same names on both sides, durations in microseconds."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from comfycontrol_async.errors import ConfigurationError
from comfycontrol_async.limits._pacing import LATE, QUIET
from comfycontrol_async.limits._rule import FURTHEST, LEASE, LONGEST_COOLDOWN, Rule
from comfycontrol_async.limits._store import Slot
from comfycontrol_async.limits._turns import CATCH_UP

# Seconds for which the state is kept after it has ceased to matter.
KEEP = 60.0
# Seconds for which a slot waits at the least for the process whose turn it is: its question takes a while to arrive.
_LEAST_GRACE = 0.025
# Durations of an answer that are longer are none of ours: a cooldown and an hour of spreading are the longest.
_LONGEST = 2 * (QUIET + LONGEST_COOLDOWN)

# Whether the state can be trusted: it can; the server could not be asked since; requests went out without it.
Doubt = Literal["none", "unreachable", "sent"]


@attrs.frozen(kw_only=True)
class Question:
    """One question of the process `name`.

    `want` slots, the first of which gets the number `first`; `told` is for how many seconds slots of ours are still
    taken, and whether that is their last word. `known`: we asked so lately that our state must be there. `cooldown`:
    for how many seconds nothing may be sent, after a 429 that was not told yet. `round_trip`: for how many seconds a
    slot is held as a rule.
    """

    name: str
    rule: Rule
    want: int
    first: int
    told: Mapping[Slot, tuple[float, bool]]
    known: bool
    doubt: Doubt
    cooldown: float
    round_trip: float

    def to_json(self) -> str:
        """Return the argument of the script."""
        rule = self.rule
        return json.dumps(
            {
                "name": self.name,
                "rule": {
                    "limit": rule.limit,
                    "period": _microseconds(rule.period),
                    "span": _microseconds(rule.span),
                    "pace": _microseconds(rule.pace),
                    "grace": _microseconds(max(rule.grace, _LEAST_GRACE)),
                    "pacing": rule.pacing,
                    "quiet": _microseconds(QUIET),
                    "late": LATE,
                    "catch_up": CATCH_UP,
                },
                "lease": _microseconds(LEASE),
                "furthest": _microseconds(FURTHEST),
                "longest_gate": _microseconds(LONGEST_COOLDOWN + rule.period),
                "keep": _microseconds(rule.span + LEASE + KEEP),
                "want": self.want,
                "first": self.first,
                "told": [[slot, _microseconds(left), final] for slot, (left, final) in self.told.items()],
                "known": self.known,
                "doubt": self.doubt,
                "cooldown": _microseconds(self.cooldown),
                "round_trip": _microseconds(self.round_trip),
            }
        )


@attrs.frozen(kw_only=True)
class Answer:
    """`taken` slots of those that were wanted; ask again in `wake`. Durations are seconds.

    `gate` and `pace` are the rest of the cooldown, and of the wait for the next request while they are `spread`.
    `charged`: the window was taken as spent, as what went out is not known. `began`: requests are spread from now on.
    `rivals` other processes wait; `others` is until when each slot of theirs is charged, and `spent` when each comes
    free that no process has, since the window was taken as spent.
    """

    taken: int
    wake: float
    gate: float
    spread: bool
    pace: float
    charged: bool
    began: bool
    rivals: int
    others: Sequence[float]
    spent: Sequence[float]


def parse_answer(text: Any, question: Question, key: str) -> Answer:
    """Read what the script returned, whatever came in its place.

    Raises:
        ConfigurationError: the key is for another rule.
        ValueError, TypeError, KeyError: the script did not return that.
    """
    fields = json.loads(text)
    if "other" in fields:
        limit, period = fields["other"]
        rule = question.rule
        raise ConfigurationError(
            f"the key {key!r} is for {int(limit)} requests per {_seconds(period, math.inf):g} s, not "
            f"{rule.limit} per {rule.period:g} s; all processes must use the same limit"
        )
    answer = Answer(
        taken=int(fields["taken"]),
        wake=_seconds(fields["wake"]),
        gate=_seconds(fields["gate"]),
        spread=fields["spread"] is True,
        pace=_seconds(fields["pace"]),
        charged=fields["charged"] is True,
        began=fields["began"] is True,
        rivals=int(fields["rivals"]),
        # An empty table of Lua is an object in JSON.
        others=[_seconds(left) for left in fields["others"]],
        spent=[_seconds(left) for left in fields["spent"]],
    )
    if not 0 <= answer.taken <= question.want:
        raise ValueError(f"{answer.taken} slots for {question.want} that were wanted")
    return answer


def _microseconds(seconds: float) -> int:
    return math.ceil(seconds * 1e6)


def _seconds(microseconds: Any, most: float = _LONGEST) -> float:
    seconds = microseconds / 1e6
    if not 0 <= seconds <= most:
        raise ValueError(f"{seconds!r} s is no duration of a limiter")
    return float(seconds)
