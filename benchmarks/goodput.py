"""How much of the limit a saturated client uses, and how many 429s it gets, at three kinds of edge.

    python benchmarks/goodput.py [--requests 10000] [--exact 100000] [--json FILE]    in simulated time, minutes
    python benchmarks/goodput.py --http [--requests 400] [--json FILE]                over real HTTP, 5 to 10 minutes

The simulation runs the real limiter beside three shapes of limiter in the same simulated network, and every client
pauses for 10 s after a 429. It also draws `arrivals.svg`. With `--http` every limiter (the peers come with the
dependency group `bench`) wants a batch of answers at once from a server of its own at the real 40 per 10 s.
"""

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import attrs
from _over_http import Answered, all_at_once
from _peers import PACKAGES
from _picture import Panel, draw
from _report import RESULTS, machine, save, table, versions
from _simulation import (
    BEYOND,
    COOLDOWN,
    HARD_LINES,
    LIMIT,
    PERIOD,
    PROFILES,
    SHAPES,
    STALL_EVERY,
    Outcome,
    simulate,
)

OURS = "comfycontrol_async"
EDGES = {"exact": "any window", "counter": "two weighted buckets", "fixed": "a fixed grid"}


def note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def cell(outcome: Outcome) -> str:
    return f"{100 * outcome.share(outcome.answered):.1f} %, {outcome.refused:,}"


def simulated(count: int, exact: int) -> tuple[str, dict[str, Any]]:
    found: dict[str, dict[str, dict[str, Outcome]]] = {}
    for edge in EDGES:
        for profile in PROFILES:
            for shape in SHAPES:
                note(f"{edge}, {profile.name}, {shape}")
                got = simulate(shape, edge, profile, count)
                found.setdefault(edge, {}).setdefault(profile.name, {})[shape] = got
    long = {}
    for edge in EDGES:
        for profile in PROFILES:
            note(f"{edge}, {profile.name}, {exact:,} requests")
            long[f"{edge}, {profile.name}"] = simulate(OURS, edge, profile, exact)
    hard = {}
    for profile in (*HARD_LINES, BEYOND):
        note(f"{profile.name}, {count:,} requests")
        hard[profile.name] = simulate(OURS, "exact", profile, count)
    parts = [
        "# Goodput of a saturated client, simulated",
        f"Machine: {machine()}. {LIMIT} per {PERIOD:g} s, cooldown {COOLDOWN:g} s, {count:,} requests for each cell.",
        f"Answers as a share of {LIMIT / PERIOD:g} per second after the first {LIMIT}, and 429s received.",
    ]
    for edge, meaning in EDGES.items():
        rows = [(name, *(cell(got) for got in by_shape.values())) for name, by_shape in found[edge].items()]
        parts += [f"## Edge that counts in {meaning}", table(("network", *SHAPES), rows)]
    parts += [
        "## Ours in detail",
        "A lost request is no answer, so with 1 % lost no more than 99 % can be reached: of those sent, `used` counts "
        "the lost ones too.",
        table(
            ("edge, network", "answers", "used", "429s", "cooldowns", "over the limit"),
            [
                detail(f"{edge}, {name}", by_shape[OURS])
                for edge, by_profile in found.items()
                for name, by_shape in by_profile.items()
            ],
        ),
        f"## {exact:,} requests",
        table(
            ("edge, network", "answers", "used", "429s", "cooldowns", "over the limit"),
            [detail(name, got) for name, got in long.items()],
        ),
        "## A line that stalls, and answers that come late",
        f"An exact edge, heavy tail with set-up, {count:,} requests. Every {STALL_EVERY:g} s nothing passes, or "
        "answers come 2 to 12.5 s after writing, and the requests arrive at any moment between. The last delays some "
        "by more than 3 s + the period, which is beyond what is assumed where TCP cannot be asked.",
        table(
            ("network", "answers", "429s", "over the limit", "most in 10 s"),
            [
                (name, f"{100 * got.share(got.answered):.2f} %", str(got.refused), str(got.over), str(got.most))
                for name, got in hard.items()
            ],
        ),
    ]
    facts = {
        "machine": machine(),
        "requests": count,
        "edges": {
            edge: {name: {shape: plain(got) for shape, got in shapes.items()} for name, shapes in profiles.items()}
            for edge, profiles in found.items()
        },
        f"{exact} requests": {name: plain(got) for name, got in long.items()},
        "stalls and late answers": {name: plain(got) for name, got in hard.items()},
    }
    return "\n\n".join(parts), facts


def detail(name: str, got: Outcome) -> tuple[str, ...]:
    used = got.share(got.answered + got.lost)
    shares = (f"{100 * got.share(got.answered):.2f} %", f"{100 * used:.2f} %")
    return (name, *shares, str(got.refused), str(got.cooldowns), str(got.over))


def plain(got: Outcome) -> dict[str, float]:
    return {
        "answered": got.answered,
        "lost": got.lost,
        "refused": got.refused,
        "cooldowns": got.cooldowns,
        "over": got.over,
        "elapsed": got.elapsed,
        "goodput": got.share(got.answered),
    }


def picture() -> str:
    end = 120.0
    panels = []
    for shape, text in ((OURS, "comfycontrol_async"), ("send-stamp window", "a window over send times")):
        got = simulate(shape, "exact", PROFILES[1], 600)
        first = min(got.arrivals)
        title = f"{text}: {sum(at - first < end for at in got.arrivals) - refused_before(got, first + end)} answers"
        panels.append(Panel(title, [at - first for at in got.arrivals], [at - first for at in got.cooled]))
    heading = "arrivals in the last 10 s at the server, latency 20 to 200 ms"
    panels = [attrs.evolve(panel, title=f"{panel.title} in 120 s; {heading}") for panel in panels]
    return draw(panels, limit=LIMIT, period=PERIOD, cooldown=COOLDOWN, end=end)


def refused_before(got: Outcome, end: float) -> int:
    return sum(any(start <= at < start + COOLDOWN for start in got.cooled) for at in got.arrivals if at < end)


def http_report(results: list[Answered], count: int) -> str:
    def row(it: Answered) -> tuple[str, ...]:
        took = "not in time" if it.elapsed is None else f"{it.elapsed:.1f} s"
        return (it.peer, took, str(it.refused), str(it.most), str(it.lost))

    ideal = max(0.0, count / LIMIT - 1) * PERIOD
    parts = [
        f"# {count} answers wanted at once over real HTTP, {LIMIT} per {PERIOD:g} s",
        f"Machine: {machine()}.",
        "Packages: " + ", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items()) + ".",
        f"Ideal: {ideal:g} s. A lost request is not sent again; a refused one is, after the cooldown.",
    ]
    for network in dict.fromkeys(it.network for it in results):
        rows = [row(it) for it in results if it.network == network]
        parts += [f"## {network}", table(("limiter", "took", "429s", "most arrivals in 10 s", "lost"), rows)]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--exact", type=int, default=100_000)
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    logging.getLogger("comfycontrol_async").setLevel(logging.ERROR)
    if options.http:
        count = options.requests or 400
        results = asyncio.run(all_at_once(count, patience=600.0))
        facts = {"machine": machine(), "requests": count, "results": [attrs.asdict(it) for it in results]}
        save("goodput-http", http_report(results, count), facts, options.json)
        return
    text, facts = simulated(options.requests or 10_000, options.exact)
    save("goodput", text, facts, options.json)
    (RESULTS / "arrivals.svg").write_text(picture())
    note("written: arrivals.svg")


if __name__ == "__main__":
    main()
