"""Everything the server remembers besides workflows: user, runners, templates."""

import random
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._options import ServerOptions
from comfycontrol_async.testing.server._records import ApiError
from comfycontrol_async.testing.server._signing import UrlSigner
from comfycontrol_async.testing.server._time import ServerTime
from comfycontrol_async.testing.server._workflows import WorkflowRecord, WorkflowStore, make_id

Json = dict[str, Any]
_Resource = TypeVar("_Resource")


class Executor(Protocol):
    """What runs the workflows: a schedule, or real ComfyUIs."""

    async def start(self) -> None:
        """Begin, or go on after `stop`."""

    async def stop(self) -> None:
        """End all tasks; what was begun can go on later."""

    def submit(self, record: WorkflowRecord) -> None:
        """Take a new workflow, whose values were checked."""

    def runners_changed(self) -> None:
        """Look again for a runner for what waits for one."""

    async def cancel(self, record: WorkflowRecord) -> None:
        """Cancel a workflow that is queued or running."""

    async def interrupt(self, runner_id: str) -> None:
        """Cancel what runs on a self-hosted runner."""

    async def stats(self, runner_id: str) -> Json:
        """Return what the ComfyUI of a managed runner says of its machine."""
        ...


class State:
    """The data behind the API, seeded with a user, one runner of its own and two managed ones."""

    def __init__(self, options: ServerOptions, time: ServerTime, signer: UrlSigner) -> None:
        self.options = options
        self.time = time
        self.signer = signer
        self.rng = random.Random()
        self.user: Json = {}
        self.runners: dict[str, Json] = {}
        self.managed_runners: dict[str, Json] = {}
        self.templates: dict[str, Json] = {}
        self.workflows = WorkflowStore(time, options.list_lag)
        self.outcome: Callable[[int], str | Failure] = always_completed

    def seed(self) -> None:
        """Fill in what a new account has; harmless when done before."""
        if self.user:
            return
        self.user = {"name": "Local User", "email": "local@example.com", "deleted": False}
        self.user |= {"tier": self.options.tier, "provider": "github", **self.fresh()}
        options = self.options
        endpoint = options.comfyui or "http://127.0.0.1:8188"
        headers = dict(options.comfyui_headers or {})
        self.add_runner({"name": "Local runner", "endpoint": endpoint, "headers": headers, "tags": []})
        # A real ComfyUI is a managed runner too, since only these have stats.
        kinds = [("pro", "local")] if options.comfyui else [("pro", "gpu-a100"), ("plus", "gpu-rtx4090")]
        for kind, tag in kinds:
            runner: Json = {"name": f"Managed {kind} runner", "runner_type": kind, "status": "active"}
            runner |= {"tags": ["managed", tag], **self.fresh()}
            self.managed_runners[runner["id"]] = runner

    def fresh(self) -> Json:
        """Return what every new resource has: an id and two timestamps."""
        now = self.time.text(self.time.now())
        return {"id": make_id(self.rng), "created_at": now, "updated_at": now}

    def add_runner(self, fields: Json) -> Json:
        """Keep a new self-hosted runner."""
        runner = {**fields, "user_id": self.user["id"], "status": "active", **self.fresh()}
        self.runners[runner["id"]] = runner
        return runner

    def add_template(self, fields: Json) -> Json:
        """Keep a new template."""
        template = {**fields, "user_id": self.user["id"], **self.fresh()}
        self.templates[template["id"]] = template
        return template

    def change(self, resource: Json, fields: Json) -> None:
        """Change some fields of a runner or template."""
        resource.update(fields, updated_at=self.time.text(self.time.now()))

    def workflow(self, id: str) -> WorkflowRecord:
        """Return the workflow, or end the request with 404."""
        return existing(self.workflows.by_id.get(id))

    def matching_runners(self, tags: list[str]) -> tuple[list[str], list[str]]:
        """Return the ids of the user's own runners for these tags, and of the managed ones, which come second."""
        # The tier decides who has managed runners at all.
        managed = [] if self.options.tier == "free" else _matching(self.managed_runners.values(), tags)
        return _matching(self.runners.values(), tags), managed

    def choose_runner(self, tags: list[str]) -> tuple[str | None, str | None]:
        """Return the ids (self-hosted, managed) of a runner for these tags: one of the user's own if any matches."""
        own, managed = self.matching_runners(tags)
        if own:
            return self.rng.choice(own), None
        return None, self.rng.choice(managed) if managed else None


def always_completed(index: int) -> str:
    """Let every workflow complete."""
    return "completed"


def existing(resource: _Resource | None) -> _Resource:
    """Return the resource, or end the request with 404."""
    if resource is None:
        raise ApiError(404, "requested entity not found")
    return resource


def _matching(runners: Iterable[Json], tags: list[str]) -> list[str]:
    # A runner without tags takes everything; the others must have all the tags asked for.
    wanted = set(tags)
    return [
        runner["id"]
        for runner in runners
        if runner["status"] == "active" and (not runner["tags"] or wanted <= set(runner["tags"]))
    ]
