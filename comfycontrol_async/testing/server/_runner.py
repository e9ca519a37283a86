"""Workflows on one real ComfyUI: delivered, followed to their end, and their files fetched.

The websocket says what happens when it happens, and loses what happens while it is down; so as long as a workflow is
open its queue is polled as well. A prompt that is neither queued nor in the history was lost in a restart.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async._clock import SYSTEM_CLOCK
from comfycontrol_async.testing.server._comfyui import (
    ComfyUI,
    ComfyUIError,
    Json,
    PromptRefusedError,
    first_fault,
    outcome_of,
    saved_files,
)
from comfycontrol_async.testing.server._life import Failure
from comfycontrol_async.testing.server._outputs import safe_name
from comfycontrol_async.testing.server._workflows import WorkflowRecord

_LOGGER = logging.getLogger("comfycontrol_async.testing")

# Real seconds
_POLL = 0.5
_LOST = 2.5  # neither queued nor in the history, while it answers
_GONE = 10.0  # when nothing listens there, before what was given to it counts as failed
_PATIENCE = 60.0  # when it listens and does not answer: it may be busy; for what was not given to it yet: be starting
_RECONNECT = 0.5

_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@attrs.define(eq=False)
class Job:
    """A workflow on this ComfyUI: whether it was given to it, when it was seen there last, and since when it is over.

    Moments are real seconds.
    """

    record: WorkflowRecord
    given: bool = False
    seen: float = 0.0
    over: bool = False
    over_since: float | None = None
    settling: bool = False

    @property
    def prompt_id(self) -> str:
        """The id that ComfyUI knows it by."""
        return self.record.prompt_id


class ComfyUIRunner:
    """Runs workflows on one ComfyUI.

    Args:
        comfy: the ComfyUI.
        folder: where the files of workflows are kept.
        timeout: real seconds without any sign of progress after which its worker counts as dead.
        move: gives a workflow that cannot be delivered here to another runner, and returns whether there is one.
    """

    def __init__(
        self,
        comfy: ComfyUI,
        folder: Callable[[], Path],
        timeout: float,
        move: "Callable[[WorkflowRecord, ComfyUIRunner], bool]",
    ) -> None:
        self.comfy = comfy
        self.reachable = True
        self._move = move
        self._folder = folder
        self._timeout = timeout
        self._client_id = uuid.uuid4().hex
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._connected = asyncio.Event()
        self._answered = 0.0
        self._moved = 0.0
        self._running: tuple[str, ...] = ()

    @property
    def load(self) -> int:
        """How many workflows are open here."""
        return len(self._jobs)

    def has(self, record: WorkflowRecord) -> bool:
        """Return whether a workflow is open here."""
        return record.id in self._jobs

    def start(self) -> None:
        """Begin, or go on with what is open, on the running event loop."""
        self.comfy.open()
        self._changed, self._connected = asyncio.Event(), asyncio.Event()
        self._answered = self._moved = SYSTEM_CLOCK.monotonic()
        self._spawn(self._listen())
        self._spawn(self._watch())
        for job in self._jobs.values():
            job.seen, job.settling = self._answered, False
            if not job.given:
                self._spawn(self._deliver(job))

    async def stop(self) -> None:
        """End all tasks; what ComfyUI was given goes on."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.comfy.close()

    def submit(self, record: WorkflowRecord) -> None:
        """Take a workflow."""
        job = self._jobs[record.id] = Job(record)
        if self.load == 1:
            self._moved = SYSTEM_CLOCK.monotonic()
        self._spawn(self._deliver(job))
        self._changed.set()

    async def cancel(self, record: WorkflowRecord) -> None:
        """Cancel a workflow that waits or runs.

        Raises:
            ComfyUIError: it gives no usable answer.
        """
        job = self._jobs.get(record.id)
        if job is None or not job.given:
            return
        await self.comfy.delete(job.prompt_id)
        # It may have begun meanwhile. Interrupt only what is ours: older versions stop whatever runs.
        queue = await self.comfy.queue()
        if job.prompt_id in queue.running:
            await self.comfy.interrupt(job.prompt_id)
        elif await self.comfy.history(job.prompt_id) is None:
            self._end(job, "cancelled")  # ComfyUI says nothing of a prompt that was deleted
        else:
            job.over = True
            self._changed.set()

    async def interrupt(self) -> None:
        """Stop what runs, if it is one of ours.

        Raises:
            ComfyUIError: it gives no usable answer.
        """
        ours = {job.prompt_id for job in self._jobs.values() if job.given}
        for prompt_id in (await self.comfy.queue()).running:
            if prompt_id in ours:
                await self.comfy.interrupt(prompt_id)

    # Delivery

    async def _deliver(self, job: Job) -> None:
        """Upload the files and queue the graph; try again while ComfyUI cannot be reached."""
        record = job.record
        deadline = SYSTEM_CLOCK.monotonic() + _PATIENCE
        doubtful = False
        while True:
            try:
                await self._upload(record)
                record.enter("uploaded")
                await self._post(record)
            except PromptRefusedError as refused:
                self._end(job, "invalid", refused.failure)
            except ComfyUIError as error:
                again = error.status is None or error.status in (502, 503, 504)
                self.reachable = self.reachable and error.sent
                # Only what certainly never arrived may run elsewhere.
                doubtful = doubtful or error.sent
                if not doubtful and self._move(record, self):
                    del self._jobs[record.id]
                    return
                if again and SYSTEM_CLOCK.monotonic() < deadline:
                    await SYSTEM_CLOCK.sleep(_RECONNECT)
                    continue
                self._fail(job, "RunnerError", str(error))
            except Exception as error:  # whatever it answers, a workflow must not stay open for ever
                self._fail(job, "RunnerError", f"{self._shown} gives an answer that cannot be read: {error!r}")
            else:
                job.given, job.seen = True, SYSTEM_CLOCK.monotonic()
                record.enter("queued")
                self._changed.set()
            return

    async def _upload(self, record: WorkflowRecord) -> None:
        names = {}
        for name, file in record.files.items():
            names[name] = await self.comfy.upload(file.stored_as, file.data, file.content_type)
        record.rename_files(names)

    async def _post(self, record: WorkflowRecord) -> None:
        """Queue the graph; a lost answer is looked up before it is queued again."""
        # A short run would be over before the websocket is there to say so.
        with suppress(TimeoutError):
            async with asyncio.timeout(_RECONNECT):
                await self._connected.wait()
        try:
            answer = await self.comfy.post(record.prompt_id, record.prompt, self._client_id)
        except ComfyUIError as error:
            if not error.sent or error.status is not None or not await self._arrived(record.prompt_id):
                raise
        else:
            record.prompt_id = str(answer.get("prompt_id") or record.prompt_id)
            fault = first_fault(answer)
            if fault is not None:
                message = "workflow %s runs without what node %s is needed for: %s"
                _LOGGER.warning(message, record.id, fault.node_id, fault.exception_message)

    async def _arrived(self, prompt_id: str) -> bool:
        """Return whether a prompt is queued, runs or has run; it may take a moment to show."""
        for _ in range(int(_LOST / _POLL)):
            with suppress(ComfyUIError):
                found = (await self.comfy.queue()).place(prompt_id)
                if found is not None or await self.comfy.history(prompt_id) is not None:
                    return True
            await SYSTEM_CLOCK.sleep(_POLL)
        return False

    # Following

    async def _listen(self) -> None:
        """Read the websocket for ever, as long as there is one."""
        while True:
            try:
                async for name, data in self.comfy.events(self._client_id):
                    self._connected.set()
                    self.reachable = True
                    self._hear(name, data)
            except ComfyUIError:
                pass  # the poll finds out what it is
            self._connected.clear()
            await SYSTEM_CLOCK.sleep(_RECONNECT)

    def _hear(self, name: str, data: Json) -> None:
        job = self._by_prompt(data.get("prompt_id"))
        if job is None:
            return
        self._moved = SYSTEM_CLOCK.monotonic()
        if name == "execution_start":
            job.record.enter("running")
        elif name in _ENDS or (name == "executing" and data.get("node") is None):
            job.over = True
            self._changed.set()

    async def _watch(self) -> None:
        """Look at what is open: at once when something changes, and now and then."""
        looked = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL if self._jobs else None):
                    await self._changed.wait()
            self._changed.clear()
            for job in [job for job in self._jobs.values() if job.over and not job.settling]:
                job.settling = True
                self._spawn(self._settle(job))
            now = SYSTEM_CLOCK.monotonic()
            if self._jobs and now - looked >= _POLL:
                looked = now
                try:
                    await self._look()
                except Exception as error:  # whatever it answers, a workflow must not stay open for ever
                    for job in list(self._jobs.values()):
                        self._fail(job, "RunnerError", f"{self._shown} gives an answer that cannot be read: {error!r}")

    async def _look(self) -> None:
        """Ask for the queue, and find out what each open workflow does."""
        try:
            queue = await self.comfy.queue()
            self._reached()
            if queue.running != self._running:
                self._running, self._moved = queue.running, self._answered
            for job in [job for job in self._jobs.values() if job.given and not job.settling]:
                job.record.place = queue.place(job.prompt_id)
                if job.prompt_id in queue.running:
                    job.record.enter("running")
                if job.record.place is not None:
                    job.seen = self._answered
                elif await self.comfy.history(job.prompt_id) is not None:
                    job.over = True
                    self._changed.set()
                elif self._answered - job.seen >= _LOST:
                    self._fail(job, "PromptLost", f"{self._shown} does not know the prompt any more: was it restarted?")
        except ComfyUIError as error:
            self._missed(error)
        self._check_progress()

    def _reached(self) -> None:
        self.reachable = True
        self._answered = SYSTEM_CLOCK.monotonic()

    def _missed(self, error: ComfyUIError) -> None:
        """Give up what ComfyUI was given when it has not answered for long."""
        self.reachable = False
        silent = SYSTEM_CLOCK.monotonic() - self._answered
        if silent < (_PATIENCE if error.sent else _GONE):
            return
        for job in [job for job in self._jobs.values() if job.given]:
            self._fail(job, "RunnerUnreachable", f"{error}; it was silent for {silent:.0f} s")

    def _check_progress(self) -> None:
        """Give up when its worker is dead: then the queue stands still for ever."""
        still = SYSTEM_CLOCK.monotonic() - self._moved
        if still < self._timeout:
            return
        for job in [job for job in self._jobs.values() if job.given and not job.settling]:
            message = f"{self._shown} made no progress for {still:.0f} s: its worker may be dead, restart it"
            self._fail(job, "RunnerStalled", message)

    # The end

    async def _settle(self, job: Job) -> None:
        """Find out how a prompt ended, and fetch its files."""
        job.over = False  # an event that comes meanwhile sets it again
        try:
            history = await self.comfy.history(job.prompt_id)
            if history is None:  # the event came before it was written down
                return
            self._moved = SYSTEM_CLOCK.monotonic()
            job.over_since = job.over_since or self._moved
            outcome, failure = outcome_of(history)
            if outcome == "completed":
                await self._fetch(job.record, history)
            self._end(job, outcome, failure)
        except ComfyUIError as error:
            if error.status == 404:  # answered from its cache, and the file was removed
                self._fail(job, "OutputGone", str(error))
            elif job.over_since is not None and SYSTEM_CLOCK.monotonic() - job.over_since >= _GONE:
                self._fail(job, "OutputNotFetched", str(error))
        except OSError as error:
            self._fail(job, "OutputNotKept", f"the files cannot be kept: {error.strerror or error}")
        except Exception as error:  # whatever it answers, a workflow must not stay open for ever
            self._fail(job, "RunnerError", f"{self._shown} gives a history that cannot be read: {error!r}")
        finally:
            job.settling = False
            if job.over:
                self._changed.set()

    async def _fetch(self, record: WorkflowRecord, history: Json) -> None:
        """Save the outputs, in the order of the graph's nodes; temporary ones are no outputs."""
        folder = self._folder() / record.id
        folder.mkdir(exist_ok=True)
        files: list[tuple[str, str, Path]] = []
        for node_id, file in saved_files(history, list(record.prompt)):
            target = folder / str(len(files))
            try:
                await self.comfy.download(file, target)
            except ComfyUIError as error:
                if error.status != 404:
                    raise
                message = f"node {node_id} names the output {file['filename']!r}, but {self._shown} has it no more"
                raise ComfyUIError(message, status=404) from error
            parts = [*str(file.get("subfolder") or "").replace("\\", "/").split("/"), str(file["filename"])]
            files.append((node_id, "/".join(safe_name(part) for part in parts if part), target))
        record.keep(files)

    def _end(self, job: Job, outcome: str, failure: Failure | None = None) -> None:
        if self._jobs.pop(job.record.id, None) is not None:
            job.record.finish(outcome, failure)

    def _fail(self, job: Job, kind: str, message: str) -> None:
        self._end(job, "failed", Failure(None, None, kind, message))

    # Tools

    @property
    def _shown(self) -> str:
        return f"the ComfyUI at {self.comfy.shown}"

    def _by_prompt(self, prompt_id: Any) -> Job | None:
        return next((job for job in self._jobs.values() if prompt_id and job.prompt_id == prompt_id), None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
