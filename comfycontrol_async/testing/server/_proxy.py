"""Workflows on real ComfyUIs: one queue before all runners, each workflow on one whose tags fit."""

import functools
import shutil
import tempfile
import weakref
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import TypeVar

from comfycontrol_async.testing.server._comfyui import ComfyUI, ComfyUIError
from comfycontrol_async.testing.server._graph import bad_file_names, deadly_fault, graph_fault
from comfycontrol_async.testing.server._records import ApiError
from comfycontrol_async.testing.server._runner import ComfyUIRunner
from comfycontrol_async.testing.server._state import Json, State, existing
from comfycontrol_async.testing.server._workflows import WorkflowRecord, failure_of

_T = TypeVar("_T")


class Proxy:
    """Gives each workflow to the ComfyUI of a runner that its tags allow; of several, to the one with least to do.

    Files that workflows leave are kept in a temporary folder, which goes with this object.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._runners: dict[tuple[str, tuple[tuple[str, str], ...]], ComfyUIRunner] = {}
        self._waiting: list[WorkflowRecord] = []
        self._started = False

    async def start(self) -> None:
        """Go on with what is open.

        Raises:
            ComfyUIError: the ComfyUI that the server was given cannot be used.
        """
        options = self._state.options
        comfy = ComfyUI(options.comfyui or "", options.comfyui_headers or {})
        comfy.open()
        try:
            await comfy.check()
        finally:
            await comfy.close()
        for runner_id in self._state.runners:
            self._runner_of(runner_id)  # connects before the first workflow comes
        self._started = True
        for runner in self._runners.values():
            runner.start()

    async def stop(self) -> None:
        """End all tasks; what the ComfyUIs were given goes on there."""
        self._started = False
        for runner in self._runners.values():
            await runner.stop()

    def submit(self, record: WorkflowRecord) -> None:
        """Give a workflow to a runner, or keep it until there is one whose tags fit."""
        # Some broken graphs kill the worker of ComfyUI for good, so these never reach it.
        fault = graph_fault(record.graph) or deadly_fault(record.prompt)
        bad_names = bad_file_names(record.graph)
        if fault is not None:
            record.finish("invalid", fault)
        elif bad_names:
            message = f"file name {bad_names[0]!r} is not allowed"
            record.finish("failed", failure_of(record.graph, "ValueError", message))
        elif not self._place(record):
            self._waiting.append(record)

    def runners_changed(self) -> None:
        """Look again for a runner for what waits for one."""
        self._waiting = [record for record in self._waiting if not self._place(record)]

    async def cancel(self, record: WorkflowRecord) -> None:
        """Cancel what waits or runs on its ComfyUI; it ends as fast as that stops."""
        runner = self._runner_of(record.runner_id or record.managed_runner_id or "", record)
        await _told(runner.cancel(record))

    async def interrupt(self, runner_id: str) -> None:
        """Stop what runs on a runner, if it came from here."""
        await _told(self._runner_of(runner_id).interrupt())

    async def stats(self, runner_id: str) -> Json:
        """Ask the ComfyUI of a managed runner for its `/system_stats`."""
        found = await _told(self._runner_of(runner_id).comfy.stats())
        return {"devices": [], "dev_mode": False, "extensions": [], **found}

    def _place(self, record: WorkflowRecord) -> bool:
        own, managed = self._state.matching_runners(record.tags)
        candidates = own or managed
        if not candidates:
            return False
        # Shuffled, since `min` takes the first of those that have as little to do.
        links = {runner_id: self._runner_of(runner_id) for runner_id in candidates}
        self._state.rng.shuffle(candidates)
        chosen = min(candidates, key=lambda id: (not links[id].reachable, links[id].load))
        record.runner_id, record.managed_runner_id = (chosen, None) if own else (None, chosen)
        links[chosen].submit(record)
        return True

    def _move(self, record: WorkflowRecord, runner: ComfyUIRunner) -> bool:
        """Give a workflow that a runner cannot take to another one whose tags fit, if one answers."""
        own, managed = self._state.matching_runners(record.tags)
        if not any(link.reachable and link is not runner for link in map(self._runner_of, own or managed)):
            return False
        runner.reachable = False
        return self._place(record)

    def _runner_of(self, runner_id: str, record: WorkflowRecord | None = None) -> ComfyUIRunner:
        """Return the connection of a runner; of a workflow, the one that has it, though its address changed since."""
        if record is not None:
            for runner in self._runners.values():
                if runner.has(record):
                    return runner
        options = self._state.options
        fields: Mapping[str, object] = self._state.runners.get(runner_id, {})
        if runner_id not in self._state.runners:
            existing(self._state.managed_runners.get(runner_id))
        url = str(fields.get("endpoint") or options.comfyui)
        headers = fields.get("headers") if fields else options.comfyui_headers
        headers = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
        key = (url.rstrip("/"), tuple(sorted(headers.items())))
        if key not in self._runners:
            self._runners[key] = ComfyUIRunner(
                ComfyUI(url, headers), self._make_folder, options.comfyui_timeout, self._move
            )
            if self._started:
                self._runners[key].start()
        return self._runners[key]

    def _make_folder(self) -> Path:
        return self._folder

    @functools.cached_property
    def _folder(self) -> Path:
        path = tempfile.mkdtemp(prefix="comfycontrol-outputs-")
        weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        return Path(path)


async def _told(work: Awaitable[_T]) -> _T:
    """Await what a ComfyUI is asked for; when it cannot be reached, that is the 500 of the service."""
    try:
        return await work
    except ComfyUIError as error:
        raise ApiError(500, str(error)) from error
