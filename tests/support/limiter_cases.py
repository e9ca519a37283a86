"""Tables of cases for the rules that exist in Python and in Lua: fair share and pacing. Both are run against them."""

import math

import attrs

# A name that is lower wins a tie; in Redis names are texts, so one letter each.
ME = "m"


@attrs.frozen
class Rival:
    """Another process that waits: what it has had, how many it wants, and when it said that it looks."""

    name: str
    had: int
    demand: int
    due: float = math.inf


@attrs.frozen
class Turn:
    """Slots that can be taken at `moments`, and what `me` gets of them at second 0."""

    id: str
    moments: list[float]
    had: int
    demand: int
    rivals: list[Rival]
    taken: int
    wake: float


# grace 0.05 throughout; limit = the number of moments. A moment below 0 is a slot that is free since then.
TURNS = [
    Turn("alone, enough", [-1, -1, -1], 0, 2, [], 2, math.inf),
    Turn("alone, too few", [-1, -1, 4], 0, 3, [], 2, 4),
    Turn("alone, none free", [1, 2, 3], 0, 2, [], 0, 1),
    Turn("alone, in flight beyond", [-1], 0, 2, [], 1, math.inf),
    Turn("even: the tie goes by name", [0, 1, 2], 5, 9, [Rival("a", 5, 9)], 0, 0.05),
    Turn("even: the tie goes by name, mine", [0, 1, 2], 5, 9, [Rival("z", 5, 9)], 1, 1.05),
    Turn("behind: catches up", [0, 0, 1, 2], 5, 9, [Rival("a", 7, 3)], 2, 1.05),
    Turn("ahead: waits for its turn", [0, 0, 1, 2], 7, 3, [Rival("z", 5, 9)], 0, 0.05),
    Turn("modest rival goes first", [0, 0, 0, 3], 2, 4, [Rival("z", 0, 1)], 2, 0.05),
    Turn("dead rival: out after its turn", [-0.05, 0, 1], 7, 9, [Rival("z", 0, 9, -0.05)], 2, 1),
    Turn("late rival: still in", [0, 0, 1], 7, 9, [Rival("z", 0, 9, -0.02)], 0, 0.05),
    Turn("slot free for a grace: for all", [-0.06, 0, 1], 7, 9, [Rival("z", 0, 9)], 1, 0.05),
    Turn("next turn is watched", [1, 1.5, 2], 6, 9, [Rival("z", 5, 9)], 0, 1.05),
    Turn("own turn comes before the watch", [1, 1.02, 2], 6, 9, [Rival("z", 5, 9)], 0, 1.02),
    Turn("no turn in sight: watch the run before", [1, 2, 3], 50, 9, [Rival("z", 5, 9)], 0, 1.05),
    Turn("rival that wants nothing", [0, 1], 5, 2, [Rival("a", 0, 0)], 1, 1),
]


@attrs.frozen
class Refusal:
    """What a 429 at second 0 does: the mode, grants so far (limit 40), when the gate closed before opens."""

    id: str
    pacing: str
    granted: int
    spread_before: bool
    gate: float
    spread: bool


REFUSALS = [
    Refusal("burst stays", "burst", 1000, False, -math.inf, False),
    Refusal("smooth stays", "smooth", 0, True, -math.inf, True),
    Refusal("auto, unexplained", "auto", 41, False, -math.inf, True),
    Refusal("auto, explained", "auto", 40, False, -math.inf, False),
    Refusal("auto, unused", "auto", 0, False, -math.inf, False),
    Refusal("auto, another of the same cooldown", "auto", 1000, False, 5.0, False),
    Refusal("auto, spread already", "auto", 0, True, -math.inf, True),
]


@attrs.frozen
class Spread:
    """When slots that are free at `moments` may be taken at second 0, by gate and pace (1 s between two)."""

    id: str
    smooth: bool
    ready_at: float
    gate: float
    moments: list[float]
    allowed: list[float]


SPREADS = [
    Spread("bursts are not held back", False, 99.0, -math.inf, [-5, 0, 3], [-5, 0, 3]),
    Spread("bursts wait for the gate", False, -math.inf, 2.0, [-5, 0, 3], [2, 2, 3]),
    Spread("one each pace", True, 0.5, -math.inf, [-5, -5, 1, 9], [0.5, 1.5, 2.5, 9]),
    Spread("pace begins at the gate", True, 0.5, 2.0, [-5, -5, 1], [2, 3, 4]),
]
