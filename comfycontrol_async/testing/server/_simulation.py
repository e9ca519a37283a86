"""Workflows that run by a schedule, with no ComfyUI behind them."""

from comfycontrol_async.testing.server._graph import bad_file_names, graph_fault, judge
from comfycontrol_async.testing.server._life import OUTCOMES, Failure, plan_life, plan_waiting
from comfycontrol_async.testing.server._state import Json, State
from comfycontrol_async.testing.server._workflows import WorkflowRecord, failure_of

_STATS: Json = {
    "system": {
        "os": "posix",
        "ram_total": 64 << 30,
        "ram_free": 48 << 30,
        "comfyui_version": "0.3.77",
        "python_version": "3.12.12",
    },
    "devices": [{"name": "cuda:0", "type": "cuda", "vram_total": 24 << 30, "vram_free": 20 << 30}],
    "dev_mode": False,
    "extensions": ["ComfyUI-Manager"],
}


class Simulation:
    """Plans the whole life of a workflow when it is made: as `outcome` says, unless its graph cannot run."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def start(self) -> None:
        """Do nothing: schedules need no task."""

    async def stop(self) -> None:
        """Do nothing: schedules go on."""

    def submit(self, record: WorkflowRecord) -> None:
        """Plan the life of a new workflow, with a runner that its tags allow."""
        state, now = self._state, record.created
        record.runner_id, record.managed_runner_id = state.choose_runner(record.tags)
        seconds = 0.0
        try:
            seconds, ending = state.options.run_time(record.index), self._ending(record)
        except Exception as error:  # of a function of the test's author, who would else meet a 500 without words
            text = f"a function given to LocalServer failed: {error}"
            ending = Failure(exception_type=type(error).__name__, exception_message=text)
        if isinstance(ending, Failure):
            record.failure = ending
        outcome = ending if isinstance(ending, str) else "failed"
        refusal = graph_fault(record.graph)
        if refusal is None:
            uploaded = [file.stored_as for file in record.files.values()]
            verdict = judge(record.prompt, state.options.node_definitions, uploaded)
            refusal, record.left_out = verdict.refusal, verdict.left_out
        if refusal is not None:
            record.failure, outcome = refusal, "invalid"
        if record.runner_id or record.managed_runner_id or outcome == "invalid":
            record.life = plan_life(now, state.options.delays, seconds, outcome)
        else:
            record.life = plan_waiting(now)

    def _ending(self, record: WorkflowRecord) -> str | Failure:
        outcome = self._state.outcome(record.index)
        if not isinstance(outcome, Failure) and outcome not in OUTCOMES:
            raise ValueError(f"outcome must return a Failure or one of {', '.join(OUTCOMES)}, not {outcome!r}")
        bad_names = bad_file_names(record.graph)
        if bad_names:
            return failure_of(record.graph, "ValueError", f"file name {bad_names[0]!r} is not allowed")
        return failure_of(record.graph) if outcome == "failed" else outcome

    def runners_changed(self) -> None:
        """Do nothing: what found no runner stays accepted."""

    async def cancel(self, record: WorkflowRecord) -> None:
        """End a workflow that is queued or running, `cancel_delay` later."""
        now = self._state.time.now()
        record.life = record.life.end(now + self._state.options.cancel_delay, "cancelled")

    async def interrupt(self, runner_id: str) -> None:
        """Cancel whatever runs on a runner."""
        now = self._state.time.now()
        for record in self._state.workflows.by_id.values():
            if record.runner_id == runner_id and record.life.status(now) == "running":
                record.life = record.life.end(now, "cancelled")

    async def stats(self, runner_id: str) -> Json:
        """Return what a ComfyUI says of its machine."""
        return _STATS
