"""Workflows: their records, and the store that keeps them in order."""

import asyncio
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from comfycontrol_async.testing.server._graph import Placeholder, find_placeholders, substitute
from comfycontrol_async.testing.server._life import Failure, Life
from comfycontrol_async.testing.server._outputs import make_content, name_outputs, output_nodes
from comfycontrol_async.testing.server._time import ServerTime, wake

_ON_THE_WAY = ("uploaded", "queued", "running")


@attrs.frozen
class StoredFile:
    """An uploaded file, under the name it was given on the runner."""

    filename: str
    stored_as: str
    content_type: str
    data: bytes = attrs.field(repr=False)


@attrs.frozen
class OutputFile:
    """A file that a completed workflow left; `name` has the folder, if any, before a `/`."""

    id: str
    node_id: str
    name: str


@attrs.define(eq=False, kw_only=True)
class WorkflowRecord:
    """One workflow as the server knows it.

    `params` are the (name, value) pairs the API shows, `values` the submitted form fields, `files` the submitted
    files by placeholder name, `index` the order of creation, and `created` is in server seconds. `left_out` are
    output nodes that do not run, `sleeping` are the
    streams that wait for the next tick or change, `place` is that in the queue of a real ComfyUI.
    """

    id: str
    index: int
    name: str
    tags: list[str]
    graph: dict[str, Any]
    values: Mapping[str, str]
    files: Mapping[str, StoredFile]
    params: Sequence[tuple[str, str]]
    created: float
    prompt_id: str
    life: Life
    time: ServerTime = attrs.field(repr=False)
    seed: int = attrs.field(repr=False)
    runner_id: str | None = None
    managed_runner_id: str | None = None
    failure: Failure | None = None
    left_out: frozenset[str] = frozenset()
    place: int | None = None
    files_on_disk: Mapping[str, Path] = attrs.field(factory=dict, init=False, repr=False)
    sleeping: set[asyncio.Future[bool]] = attrs.field(factory=set, init=False, repr=False)
    _prompt: dict[str, Any] | None = attrs.field(default=None, init=False, repr=False)
    _outputs: list[OutputFile] | None = attrs.field(default=None, init=False, repr=False)
    _contents: dict[str, bytes] = attrs.field(factory=dict, init=False, repr=False)

    @property
    def status(self) -> str:
        """The status now."""
        return self.life.status(self.time.now())

    @property
    def prompt(self) -> dict[str, Any]:
        """The graph as it runs, with every placeholder filled in."""
        if self._prompt is None:
            self._prompt = self._fill_in()
        return self._prompt

    @property
    def outputs(self) -> list[OutputFile]:
        """The files it leaves when it completes."""
        if self._outputs is None:
            rng = random.Random(self.seed + 1)
            named = name_outputs(self.prompt, self.left_out)
            self._outputs = [OutputFile(f"output-{make_id(rng)}", node_id, name) for node_id, name in named]
        return self._outputs

    def content(self, name: str) -> bytes | None:
        """Return what is in the output called `name`."""
        if name not in self._contents and any(output.name == name for output in self.outputs):
            self._contents[name] = make_content(name, self.prompt, self.seed)
        return self._contents.get(name)

    # What happens to it on a real ComfyUI

    def enter(self, state: str) -> None:
        """Note that it is "uploaded", "queued" or "running" now; harmless when it was before."""
        now, states = self.time.now(), _ON_THE_WAY[: _ON_THE_WAY.index(state) + 1]
        missing = [name for name in states if getattr(self.life, name) == math.inf]
        for name in missing:
            self.life = attrs.evolve(self.life, **{name: now})  # type: ignore[arg-type] # a name of a moment
        if missing:
            wake(self.sleeping)

    def finish(self, outcome: str, failure: Failure | None = None) -> None:
        """Note that it ends now; harmless when it has ended."""
        now = self.time.now()
        if now < self.life.ended:
            self.failure = failure
            self.life = self.life.end(now, outcome)
            wake(self.sleeping)

    def rename_files(self, names: Mapping[str, str]) -> None:
        """Note under which names its files are on the runner, by placeholder."""
        self.files = {name: attrs.evolve(file, stored_as=names[name]) for name, file in self.files.items()}
        self.params = pair_up(self.graph, self.values, self.files)
        self._prompt = None

    def keep(self, files: Sequence[tuple[str, str, Path]]) -> None:
        """Note the outputs: node id, name, and where it is on disk. A name that comes twice gets a number."""
        taken: dict[str, Path] = {}
        self._outputs = []
        for node_id, name, path in files:
            stem, dot, extension = name.rpartition(".")
            numbered = (f"{stem}_{number}{dot}{extension}" for number in itertools.count(2))
            unique = next(it for it in itertools.chain([name], numbered) if it not in taken)
            taken[unique] = path
            self._outputs.append(OutputFile(f"output-{make_id(random.Random())}", node_id, unique))
        self.files_on_disk = taken

    def _fill_in(self) -> dict[str, Any]:
        rng = random.Random(self.seed)
        planned = self.life.running
        started = planned if math.isfinite(planned) else self.created  # without a runner it never starts
        milliseconds = int(self.time.unix(started) * 1000)

        def value_of(placeholder: Placeholder) -> Any:
            if placeholder.kind == "random":
                return rng.getrandbits(64)
            if placeholder.kind == "timestamp":
                return milliseconds
            if placeholder.kind == "file":
                return self.files[placeholder.name].stored_as
            return self.values[placeholder.field]

        filled: dict[str, Any] = substitute(self.graph, value_of)
        return filled


class WorkflowStore:
    """All workflows, oldest first."""

    def __init__(self, time: ServerTime, list_lag: float) -> None:
        self._time = time
        self._lag = list_lag
        self._created = 0
        self.by_id: dict[str, WorkflowRecord] = {}

    def next_index(self) -> int:
        """Return the creation index of the next workflow."""
        self._created += 1
        return self._created - 1

    def add(self, record: WorkflowRecord) -> None:
        """Keep a new workflow."""
        self.by_id[record.id] = record

    def newest_first(self) -> Iterator[WorkflowRecord]:
        """Yield what lists show now: without what is too new to be listed."""
        shown_until = self._time.now() - self._lag
        return itertools.dropwhile(lambda record: record.created > shown_until, reversed(self.by_id.values()))

    def page(self, status: str | None, number: int, size: int) -> tuple[list[WorkflowRecord], int]:
        """Return one page of the list, and how many there are on all pages."""
        shown: Iterable[WorkflowRecord] = self.newest_first()
        if status is not None:
            shown = (record for record in shown if record.status == status)
        everything = list(shown)
        first = (number - 1) * size
        return everything[first : first + size], len(everything)

    def of_runner(self, runner_id: str, most: int) -> list[WorkflowRecord]:
        """Return the newest workflows of one runner."""
        mine = (it for it in self.newest_first() if runner_id in (it.runner_id, it.managed_runner_id))
        return list(itertools.islice(mine, most))


def make_id(rng: random.Random) -> str:
    """Return a random UUID text, version 4."""
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def pair_up(graph: Any, values: Mapping[str, str], files: Mapping[str, StoredFile]) -> list[tuple[str, str]]:
    """Return the (name, value) pairs that the API shows of a workflow."""
    return [
        (item.token, files[item.name].stored_as if item.kind == "file" else values[item.field])
        for item in find_placeholders(graph)
    ]


def failure_of(
    graph: dict[str, Any],
    exception_type: str = "RuntimeError",
    message: str = "the test server was told to let this workflow fail",
) -> Failure:
    """Return a failure of the first output node, or of the first node."""
    nodes: list[tuple[str, Any]] = [*output_nodes(graph), *graph.items(), ("", None)]
    node_id, node = nodes[0]
    node_type = node.get("class_type") if isinstance(node, dict) else None
    return Failure(node_id or None, node_type, exception_type, message)
