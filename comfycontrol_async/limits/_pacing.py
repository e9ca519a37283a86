"""Pacing: how grants are spread when the server disagrees with our own count.

- `burst`: as the API documents it: whatever the window allows goes at once.
- `smooth`: one each `period / (limit - 2)`, which every known kind of edge lets through, see below.
- `auto`: bursts, until a 429 comes that our own count cannot explain; then smooth, until an hour has passed without
  another one. As long as no more than `limit` requests went out in all, a 429 says nothing about how they were spread:
  another program behind the address used up the budget.

The method that Cloudflare published counts in two fixed buckets: with `previous` and `current` arrivals in the bucket
before and in the one that began e seconds ago, an arrival passes while

    previous * (1 - e / period) + current + 1 <= limit

Only the edge knows where its buckets begin. With arrivals d = period / (limit - 2) apart a bucket holds at most
limit - 1 of them, which is `previous`; `current` + 1 is at most e / d + 1. The left side is then at most
(limit - 1) * (1 - e / period) + (limit - 2) * e / period + 1 = limit - e / period. (In perfect rhythm a bucket holds
limit - 2; the one more is for arrivals that come out of it.)

In numbers, limit 40 and period 10: one each 0.263 s, 38 per period, 95 % of the limit, which is the price of not
knowing the edge. A rule that looks for the earliest moment that passes wherever the buckets begin lets a burst of 39
through after a pause and the same 38 per period afterwards (`benchmarks/goodput.py` compares them): it needs the
moments of two periods instead of one number, which processes would have to share.
"""

from collections.abc import Iterable
from typing import NamedTuple

from comfycontrol_async.limits._rule import Rule

# Seconds without a 429 after which `auto` returns to bursts. An edge that counts in buckets refuses the first burst
# again, which costs one cooldown: once an hour that is 0.3 % of the throughput.
QUIET = 3600.0

# How late a grant may be, in paces, without delaying those after it: a timer is always a little late.
LATE = 1 / 8

NEVER = float("-inf")


class Pacing(NamedTuple):
    """Until when requests are spread, from when on the next one may go then, and how many were granted in all."""

    spread_until: float = NEVER
    ready_at: float = NEVER
    granted: int = 0


def is_spread(rule: Rule, pacing: Pacing, now: float) -> bool:
    """Return whether requests are spread now."""
    return rule.pacing == "smooth" or (rule.pacing == "auto" and now < pacing.spread_until)


def after_refusal(rule: Rule, pacing: Pacing, gate: float, until: float, now: float) -> Pacing:
    """Return the pacing after a 429 that closes the gate until `until`; it was closed until `gate` before."""
    spread_until = pacing.spread_until
    first = gate <= now  # later refusals of one cooldown say nothing new
    if first and rule.pacing == "auto" and (pacing.granted > rule.limit or now < spread_until):
        spread_until = now + QUIET
    return Pacing(spread_until, max(pacing.ready_at, until), pacing.granted)


def after_grants(rule: Rule, pacing: Pacing, count: int, now: float) -> Pacing:
    """Return the pacing after `count` grants."""
    ready_at = pacing.ready_at
    if count and is_spread(rule, pacing, now):
        ready_at = max(ready_at, now - LATE * rule.pace) + count * rule.pace
    return Pacing(pacing.spread_until, ready_at, pacing.granted + count)


def spread_out(rule: Rule, pacing: Pacing, moments: Iterable[float], gate: float, now: float) -> list[float]:
    """Return when each slot may be taken that is free at these ascending moments: not before gate and pace."""
    if not is_spread(rule, pacing, now):
        return [max(moment, gate) for moment in moments]
    ready_at, pace = max(pacing.ready_at, gate), rule.pace
    return [max(moment, ready_at + place * pace) for place, moment in enumerate(moments)]
