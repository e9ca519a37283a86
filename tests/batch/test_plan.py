"""What a number of workflows will need."""

from typing import Any

import pytest

from comfycontrol_async import ComfyControl, InvalidArgumentError, LocalLimiter
from comfycontrol_async.batch import BatchPlan
from comfycontrol_async.batch._plan import plan_batch
from comfycontrol_async.limits import Priority, RateLimitSnapshot


def limits(*, available: int = 40, waiting: int = 0, cooldown: float = 0.0) -> RateLimitSnapshot:
    """Make the state of a limiter of 40 in 10 s."""
    return RateLimitSnapshot(
        limit=40,
        period=10.0,
        used=40 - available,
        available=available,
        waiting={**dict.fromkeys(Priority, 0), Priority.BULK: waiting},
        cooldown=cooldown,
        pacing="burst",
        next_free_in=0.0,
    )


class TestPlan:
    """What a number of workflows will need."""

    @pytest.mark.parametrize(
        ("n", "outputs", "state", "plan"),
        [
            pytest.param(0, True, limits(), BatchPlan(requests=0, seconds=0.0), id="nothing"),
            pytest.param(10, True, limits(), BatchPlan(requests=21, seconds=0.0), id="free-at-once"),
            pytest.param(1000, False, limits(), BatchPlan(requests=1050, seconds=252.5), id="no-outputs"),
            pytest.param(1000, True, limits(), BatchPlan(requests=2050, seconds=502.5), id="outputs"),
            pytest.param(10, True, limits(available=1), BatchPlan(requests=21, seconds=5.0), id="used-up"),
            pytest.param(10, True, limits(waiting=39), BatchPlan(requests=21, seconds=5.0), id="others-wait"),
            pytest.param(1, False, limits(cooldown=8.0), BatchPlan(requests=2, seconds=8.0), id="cooldown"),
        ],
    )
    def test_plan(self, n: int, outputs: bool, state: RateLimitSnapshot, plan: BatchPlan) -> None:
        """Requests for submits, outputs and looks, and the time in which the limit lets them through."""
        assert plan_batch(n, outputs=outputs, limits=state) == plan

    @pytest.mark.parametrize("n", [-1, 1.5, "10", True, None, 10**400])
    def test_bad(self, n: Any) -> None:
        """A number that is none is refused."""
        with pytest.raises(InvalidArgumentError, match="n must be"):
            plan_batch(n, outputs=True, limits=limits())

    def test_of_a_client(self) -> None:
        """A client plans under its own limiter, without a loop and without a request."""
        comfy = ComfyControl("cfc_x", limiter=LocalLimiter(10, 1.0))
        assert comfy.plan(100) == BatchPlan(requests=205, seconds=19.5)
        assert comfy.plan(100, outputs=False).requests == 105
