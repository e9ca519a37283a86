"""The life of one workflow as a schedule: what it is at any moment, with no task behind it.

    accepted -> uploaded -> queued -> running -> completed | failed | cancelled
        |-> invalid

All moments are server seconds; a moment that never comes is infinite.
"""

import math

import attrs

OUTCOMES = ("completed", "failed", "cancelled", "invalid")
STATUSES = ("accepted", "uploaded", "queued", "running", *OUTCOMES)
_START_OF_QUEUE = 3


@attrs.frozen
class Failure:
    """Why a workflow failed, as ComfyUI says it; each text may be None where it is not known."""

    node_id: str | None = None
    node_type: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None


@attrs.frozen(kw_only=True)
class Life:
    """When a workflow enters each state, and how it ends."""

    accepted: float
    uploaded: float
    queued: float
    running: float
    ended: float
    outcome: str

    def status(self, now: float) -> str:
        """Return the state at `now`."""
        if now >= self.ended:
            return self.outcome
        for name, since in (("running", self.running), ("queued", self.queued), ("uploaded", self.uploaded)):
            if now >= since:
                return name
        return "accepted"

    def started_at(self, now: float) -> float | None:
        """Return the moment it began to run, if it has begun."""
        if self.running <= min(now, self.ended):
            return self.running
        if now >= self.ended and self.outcome in ("completed", "failed"):
            return self.ended
        return None

    def completed_at(self, now: float) -> float | None:
        """Return the moment it ended, if it has ended; a workflow found invalid has none."""
        return self.ended if now >= self.ended and self.outcome != "invalid" else None

    def updated_at(self, now: float) -> float:
        """Return the moment of the last change of state."""
        if now >= self.ended:
            return self.ended
        return max(since for since in (self.accepted, self.uploaded, self.queued, self.running) if since <= now)

    def queue_number(self, now: float) -> int | None:
        """Return the place in the queue: counted down to 1 while queued, 1 from then on, none before."""
        if min(now, self.ended) < self.queued or self.outcome == "invalid":
            return None
        waited = self.running - self.queued
        if now >= self.running or not 0 < waited < math.inf:
            return 1
        return max(1, math.ceil(_START_OF_QUEUE * (self.running - now) / waited))

    def end(self, at: float, outcome: str) -> "Life":
        """Return this life ended at `at`, unless it ended before."""
        return attrs.evolve(self, ended=at, outcome=outcome) if at < self.ended else self


def plan_life(created: float, delays: tuple[float, float, float], duration: float, outcome: str) -> Life:
    """Return the schedule of a workflow that finds a runner."""
    uploaded = created + delays[0]
    queued = uploaded + delays[1]
    running = queued + delays[2]
    ended = uploaded if outcome == "invalid" else running + duration
    return Life(accepted=created, uploaded=uploaded, queued=queued, running=running, ended=ended, outcome=outcome)


def plan_waiting(created: float) -> Life:
    """Return the schedule of a workflow that finds no runner: it stays accepted."""
    never = math.inf
    return Life(accepted=created, uploaded=never, queued=never, running=never, ended=never, outcome="completed")
