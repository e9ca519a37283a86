"""What the rate limiter costs beside its peers, and how many it lets through: all in one run.

    python benchmarks/limiter.py [--quick] [--only NAME ...] [--json FILE]

The uncontended acquires of all contenders take turns in every round and the least of each counts; a contender that
does not finish within its patience is shown as ">". Most of the other measurements wait for periods to pass, so three
processes share them while the crowds go through here; all costs are CPU time, which that leaves alone. Peers come with
the dependency group `bench`. It takes about 20 minutes.
"""

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import _costs
from _peers import FLOOR, NO_LIMIT, OURS, PACKAGES, PEERS, Peer, installed
from _report import machine, save, seconds, table, versions

LIMIT, PERIOD = 40, 10.0


def run(coroutine: Coroutine[Any, Any, Any], loop: str = "asyncio") -> Any:
    """Run on an event loop of its own."""
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(coroutine)
    return asyncio.run(coroutine)


def measure_uncontended(peers: list[Peer], rounds: int, repeats: int) -> dict[str, float]:
    least: dict[str, float] = {}
    for _ in range(repeats):
        for peer in (FLOOR, *peers):
            taken = run(_costs.uncontended(peer, rounds))
            least[peer.name] = min(least.get(peer.name, taken), taken)
    return least


def measure_drains(peers: list[Peer], sizes: list[int], repeats: int) -> dict[str, dict[int, _costs.Drain]]:
    best: dict[str, dict[int, _costs.Drain]] = {peer.name: {} for peer in (NO_LIMIT, *peers)}
    for count in sizes:
        for repeat in range(repeats if count < 100_000 else 1):
            for peer in (NO_LIMIT, *peers):
                before = best[peer.name].get(count)
                if repeat and before is not None and before.cpu is None:
                    continue  # it will not finish the next time either
                note(f"drain {count} {peer.name}")
                got = run(_costs.drain(peer, count, count // 4, 1.0, patience=30.0))
                if before is None or before.cpu is None or (got.cpu is not None and got.cpu < before.cpu):
                    best[peer.name][count] = got
    return best


def measure_rest(quick: bool, name: str) -> dict[str, Any]:
    note(name)
    peer = next(peer for peer in (OURS, *PEERS) if peer.name == name)
    rest: dict[str, Any] = {"memory": run(_costs.waiter_memory(peer, 10_000))}
    rest["timers"] = run(_costs.timers(peer, 1000, 400, 1.0))
    rest["stuck"] = run(_costs.drain(peer, 1000, 200, 1.0, patience=15.0, cancel=True)).stuck
    if not quick:
        rest["parked"], rest["parked timers"] = run(_costs.parked(peer, 10_000, LIMIT, PERIOD))
        for loop in ("asyncio", "uvloop"):
            rest[f"most {loop}"] = {
                pattern: run(_costs.most_admitted(peer, pattern, LIMIT, 1.0), loop) for pattern in _costs.PATTERNS
            }
    return rest


def note(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def report(costs: dict[str, float], drains: dict[str, dict[int, _costs.Drain]], rest: dict[str, Any]) -> str:
    floor = costs[FLOOR.name]
    sizes = sorted(drains[NO_LIMIT.name])
    parts = [
        "# The rate limiter beside its peers",
        f"Machine: {machine()}.",
        "Packages: " + ", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items()) + ".",
        "## One acquire while there is room",
        "Ours includes `arrived()`, without which its slot would not come free.",
        table(
            ("limiter", "one acquire", "x floor"),
            [(name, seconds(cost), f"{cost / floor:.2f}") for name, cost in costs.items()],
        ),
        "## A crowd, a quarter of it admitted per second",
        "CPU per grant, with the ratio to no limiter at all; wall clock per grant; how many of the largest overtook.",
        table(
            ("limiter", *(f"CPU, {size:,}" for size in sizes), *(f"wall, {size:,}" for size in sizes), "overtakings"),
            [drain_row(name, drains[name], drains[NO_LIMIT.name], sizes) for name in drains],
        ),
        "## A crowd that waits",
        "Bytes per waiter, first of a task that waits for a bare future; timers per admission (1,000 waiters at 400 "
        "per period); waiters stuck after half of 1,000 were cancelled; 10,000 parked at 40 per 10 s: share of a core "
        "and timers.",
        table(
            ("limiter", "bytes", "timers", "stuck", "parked CPU", "parked timers"),
            [wait_row(*it) for it in rest.items()],
        ),
        "## Most admissions in any period, limit 40",
        "asyncio / uvloop.",
        table(
            ("limiter", *_costs.PATTERNS),
            [
                (name, *(f"{it['most asyncio'][key]} / {it['most uvloop'][key]}" for key in _costs.PATTERNS))
                for name, it in rest.items()
                if "most asyncio" in it
            ],
        ),
    ]
    return "\n\n".join(parts)


def drain_row(
    name: str, got: dict[int, _costs.Drain], bare: dict[int, _costs.Drain], sizes: list[int]
) -> tuple[str, ...]:
    def cpu(size: int) -> str:
        spent, base = got[size].cpu, bare[size].cpu
        return "> 30 s in all" if spent is None or base is None else f"{seconds(spent)} ({spent / base:.2f} x)"

    walls = (seconds(got[size].wall) for size in sizes)
    return (name, *map(cpu, sizes), *walls, str(got[sizes[-1]].inversions))


def wait_row(name: str, it: dict[str, Any]) -> tuple[str, ...]:
    if "timers" not in it:
        return (name, f"{it['memory']:.0f}", "", "", "", "")
    share = f"{100 * it['parked']:.3f} %" if "parked" in it else "-"
    return (
        name,
        f"{it['memory']:.0f}",
        f"{it['timers']:.4f}",
        str(it["stuck"]),
        share,
        str(it.get("parked timers", "-")),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, small crowds, no exactness")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="peers to measure beside ours")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    peers = [OURS, *installed([peer for peer in PEERS if options.only is None or peer.name in options.only])]
    costs = measure_uncontended(peers, 5_000 if options.quick else 20_000, 5 if options.quick else 10)
    sizes = [1_000] if options.quick else [1_000, 10_000, 100_000]
    names = [peer.name for peer in peers]
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.map(partial(measure_rest, options.quick), names)
        drains = measure_drains(peers, sizes, 1 if options.quick else 2)
        rest = {"a bare future": {"memory": run(_costs.memory(None, 10_000))}, **dict(zip(names, found, strict=True))}
    facts = {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "uncontended": costs,
        "drain": {
            name: {str(size): [got.wall, got.cpu, got.inversions, got.stuck] for size, got in got_by_size.items()}
            for name, got_by_size in drains.items()
        },
        "rest": rest,
    }
    save("limiter-quick" if options.quick else "limiter", report(costs, drains, rest), facts, options.json)


if __name__ == "__main__":
    main()
