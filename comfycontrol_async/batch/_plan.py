"""Plan: what a number of workflows will need of the limit."""

import math

import attrs

from comfycontrol_async._settings import check_count
from comfycontrol_async.errors import InvalidArgumentError
from comfycontrol_async.limits import RateLimitSnapshot

# Polls per workflow of a batch, as an estimate: one listing page serves 100 (see `runs/_watch_plan.py`).
_WATCH_SHARE = 0.05
# Workflows in one plan: more than all machines of the world make, and few enough for a float.
_MOST = 10**15


@attrs.frozen(kw_only=True)
class BatchPlan:
    """What a number of workflows will need: API requests, and the seconds in which the limit lets these through."""

    requests: int
    seconds: float


def plan_batch(n: int, *, outputs: bool, limits: RateLimitSnapshot) -> BatchPlan:
    """Estimate what `n` workflows will need; the workflows' own duration comes on top.

    Raises:
        InvalidArgumentError: `n` is no whole number from 0 to 10**15.
    """
    check_count("n", n, InvalidArgumentError, most=_MOST)
    requests = n * (2 if outputs else 1) + math.ceil(n * _WATCH_SHARE)
    waiting = sum(limits.waiting.values())
    queued = max(0, requests + waiting - limits.available)
    # What is free goes at once; the rest follows at the limit's pace.
    seconds = limits.cooldown + queued * limits.period / limits.limit
    return BatchPlan(requests=requests, seconds=seconds)
