"""One workflow: create it once, follow it, finish it, fetch its files."""

from comfycontrol_async.runs._run import OnUpdate, WorkflowRun

__all__ = ["OnUpdate", "WorkflowRun"]
